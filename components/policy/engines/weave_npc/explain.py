"""Which rule or set element of Weave NPC carries a decision."""

from __future__ import annotations

import re

from kubewire.components.policy.carrier import Carrier
from kubewire.components.policy.engines.weave_npc import names
from kubewire.components.policy.engines.weave_npc.render import default_name, rules_of
from kubewire.components.policy.evaluator import Decision
from kubewire.components.policy.model import Direction, Endpoint, State

_RULES = ("iptables-save", "-c", "-t", "filter")
_COMMENT = re.compile(r'--comment ("[^"]*")')


def carriers(
    state: State, pod: Endpoint, direction: Direction, decision: Decision
) -> tuple[Carrier, ...]:
    """A pod that no policy selects is an element of its namespace's default-allow set; what a rule
    allows has a line in the chain of the direction; the rest is dropped behind it."""
    if decision.origin is not None:
        return _of_rule(state, direction, decision)
    if decision.isolated_by:
        return (Carrier(_RULES, _dropping(direction), "rule"),)
    if state.applied[pod.key].tiers(direction):
        return ()  # its own node, or the pod itself
    name = default_name(pod.key.namespace, direction)
    address = next((one for one in pod.addresses if ":" not in one), "")
    pattern = rf"^add \S+ {re.escape(address)}( |$)"
    return (Carrier(("ipset", "save", name), pattern, "set element"),) if address else ()


def _of_rule(state: State, direction: Direction, decision: Decision) -> tuple[Carrier, ...]:
    """All lines of the rule: it has one for each of its ports."""
    origin = decision.origin
    policy = None if origin is None else state.policies.get(origin.policy)
    if policy is None:
        return ()
    chain = names.INGRESS if direction is Direction.INGRESS else names.EGRESS_CUSTOM
    lines = (
        line
        for rule in policy.rules(direction)
        if rule.origin == origin
        for line in rules_of(state, policy, rule, direction)
    )
    comments = dict.fromkeys(found[1] for line in lines if (found := _COMMENT.search(line)))
    return tuple(
        Carrier(_RULES, f"-A {chain} .*{re.escape(comment)}", "rule") for comment in comments
    )


def _dropping(direction: Direction) -> str:
    if direction is Direction.EGRESS:
        return f"-A {names.EGRESS} .*-j (DROP|NFLOG)"
    return "-A FORWARD -o weave .*-j (DROP|NFLOG)"
