"""The descriptor of Weave NPC: weave-npc on every node."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Installation,
)
from kubewire.components.policy.engine import PolicyEngine, agent

AGENT = "weave-npc"
#: In upstream's manifest weave-npc is a container of the pod weave-net, and has its account.
_ACCOUNT = "weave-net"


def _install(cluster: Cluster, _: Choice[Any]) -> Installation:
    return Installation(
        tuple(
            agent(__package__, AGENT, node, _ACCOUNT, f"--node-name={node.name}")
            for node in cluster.nodes
        )
    )


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
