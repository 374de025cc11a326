"""What hands a packet to the agent, which decides: the set's element and the rule with the queue."""

from __future__ import annotations

import re

from kubewire.components.policy.carrier import Carrier
from kubewire.components.policy.engines.kube_network_policies.render import CHAIN, SETS
from kubewire.components.policy.evaluator import Decision
from kubewire.components.policy.model import Direction, Endpoint, State

_SAVE = {4: "iptables-save", 6: "ip6tables-save"}


def carriers(state: State, pod: Endpoint, direction: Direction, _: Decision) -> tuple[Carrier, ...]:
    """Nothing for a pod that no policy selects: its packets are not queued."""
    applied = state.applied[pod.key]
    if not (applied.ingress or applied.egress) or not pod.addresses:
        return ()
    address = pod.addresses[0]
    version = 6 if ":" in address else 4
    side = "dst" if direction is Direction.INGRESS else "src"
    return (
        Carrier(
            ("ipset", "save", SETS[version]), rf"^add \S+ {re.escape(address)}( |$)", "set element"
        ),
        Carrier(
            (_SAVE[version], "-c", "-t", "mangle"),
            rf"-A {CHAIN} .*--match-set {SETS[version]} {side} -j NFQUEUE",
            "rule",
        ),
    )
