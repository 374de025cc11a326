"""Which rules of Azure NPM carry a decision."""

from __future__ import annotations

import re

from kubewire.components.policy.carrier import Carrier
from kubewire.components.policy.engines.azure_npm.render import policy_chain, rules_of
from kubewire.components.policy.evaluator import Decision
from kubewire.components.policy.model import Direction, Endpoint, State

_RULES = ("iptables-save", "-c", "-t", "filter")
_COMMENT = re.compile(r"--comment (\"[^\"]*\"|\S+)")


def carriers(
    state: State, _: Endpoint, direction: Direction, decision: Decision
) -> tuple[Carrier, ...]:
    """A rule has its lines in its policy's chain; what no rule allows gets the mark for the drop
    there. Nothing for a pod that no policy selects: no rule is about it."""
    if decision.origin is None:
        return tuple(
            Carrier(_RULES, f"-A {policy_chain(key, direction)} .*--comment DROP-ALL ", "rule")
            for key in decision.isolated_by
        )
    policy = state.policies.get(decision.origin.policy)
    if policy is None:
        return ()
    lines = (
        line
        for rule in policy.rules(direction)
        if rule.origin == decision.origin
        for line in rules_of(state, policy, rule, direction)
    )
    chain = policy_chain(policy.key, direction)
    comments = dict.fromkeys(found[1] for line in lines if (found := _COMMENT.search(line)))
    return tuple(
        Carrier(_RULES, f"-A {chain} .*--comment {re.escape(comment)} ", "rule")
        for comment in comments
    )
