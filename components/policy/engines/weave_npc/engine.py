"""The descriptor of Weave NPC: weave-npc on every node."""

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
    kubeconfig_path,
)
from kubewire.components.policy.engine import PolicyEngine

AGENT = "weave-npc"
#: In upstream's manifest weave-npc is a container of the pod weave-net, and has its account.
_ACCOUNT = "weave-net"


def _install(cluster: Cluster, _: Choice[Any]) -> Installation:
    return Installation(tuple(_weave_npc(node) for node in cluster.nodes))


def _weave_npc(node: Host) -> Process:
    arguments = (f"--kubeconfig={kubeconfig_path(AGENT)}", f"--node-name={node.name}")
    user = f"system:serviceaccount:kube-system:{_ACCOUNT}"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", arguments, user)


ENGINE = PolicyEngine(
    AddOn(
        name="weave-npc",
        package=__package__,
        upstream="weave-npc",
        summary="iptables chains with a set for each selector; no named ports",
        backends=(Backend("iptables", None),),
        install=_install,
    ),
    kinds=("NetworkPolicy",),
    networks=("weave",),
    default_for=("weave",),
)
