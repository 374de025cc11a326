"""The descriptor of Azure NPM: azure-npm on every node."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Installation,
    account,
    rule,
)
from kubewire.components.policy.engine import PolicyEngine, agent

AGENT = "azure-npm"


def _install(cluster: Cluster, _: Choice[Any]) -> Installation:
    rules = (
        rule("get list watch", "", "pods nodes namespaces"),
        rule("get list watch", "networking.k8s.io", "networkpolicies"),
    )
    return Installation(
        processes=tuple(
            agent(__package__, AGENT, node, AGENT, f"--nodename={node.name}")
            for node in cluster.nodes
        ),
        objects=account("kube-system", AGENT, rules),
    )


ENGINE = PolicyEngine(
    AddOn(
        name="azure-npm",
        package=__package__,
        upstream="azure-npm",
        summary="iptables chains for each policy, a set for each label",
        backends=(Backend("iptables", None),),
        install=_install,
    ),
    kinds=("NetworkPolicy",),
    networks=("azure",),
)
