"""The descriptor of kube-network-policies: its agent on every node."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Host,
    Installation,
    Process,
    Role,
    Setting,
    account,
    kubeconfig_path,
    rule,
)
from kubewire.components.policy.engine import PolicyEngine

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
    fail_open = bool(choice.settings["failOpen"])
    return Installation(
        processes=tuple(_agent(node, fail_open) for node in cluster.nodes),
        objects=account("kube-system", AGENT, rules),
    )


def _agent(node: Host, fail_open: bool) -> Process:
    arguments = (
        f"--kubeconfig={kubeconfig_path(AGENT)}",
        f"--hostname-override={node.name}",
        f"--fail-open={str(fail_open).lower()}",
    )
    user = f"system:serviceaccount:kube-system:{AGENT}"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", arguments, user)


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
