"""The descriptor of kube-network-policies: its agent on every node."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Installation,
    Setting,
    account,
    rule,
)
from kubewire.components.policy.engine import PolicyEngine, agent

AGENT = "kube-network-policies"
#: Every network but the one whose packets between pods stay on a bridge that has an engine of its
#: own.
_NETWORKS = ("flannel", "calico", "aws-vpc", "azure", "none")
_FAIL_OPEN = Setting(
    "failOpen",
    {
        "type": "boolean",
        "description": "Whether new connections pass while the agent does not run.",
        "examples": [False],
    },
    True,
)


def _install(cluster: Cluster, choice: Choice[Any]) -> Installation:
    rules = (
        rule("get list watch", "", "namespaces nodes pods"),
        rule("get list watch", "networking.k8s.io", "networkpolicies"),
        rule(
            "get list watch",
            "policy.networking.k8s.io",
            "adminnetworkpolicies baselineadminnetworkpolicies clusternetworkpolicies",
        ),
    )
    fail_open = f"--fail-open={str(bool(choice.settings['failOpen'])).lower()}"
    return Installation(
        processes=tuple(
            agent(__package__, AGENT, node, AGENT, f"--hostname-override={node.name}", fail_open)
            for node in cluster.nodes
        ),
        objects=account("kube-system", AGENT, rules),
    )


ENGINE = PolicyEngine(
    AddOn(
        name="kube-network-policies",
        package=__package__,
        upstream="kube-network-policies",
        summary="the first packet of a connection is judged in user space (NFQUEUE)",
        backends=(Backend("nfqueue", None, requires=("nfqueue",)),),
        install=_install,
        settings=(_FAIL_OPEN,),
    ),
    kinds=(
        "NetworkPolicy",
        "ClusterNetworkPolicy",
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
    ),
    networks=_NETWORKS,
)
