"""The tiers that exist without an object, and the order in which policies are asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubewire.components.policy.model import Action, Applied, Direction, ObjectKey, Policy, Tier

ADMIN = Tier("kube-admin", 1_000.0, Action.PASS)
DEFAULT = Tier("default", 1_000_000.0, Action.DENY)
BASELINE = Tier("kube-baseline", 10_000_000.0, Action.PASS)
#: With the orders that Calico gives them, so that its own tiers lie where they do there.
BUILT_IN = (ADMIN, DEFAULT, BASELINE)

ByTier = tuple[tuple[str, tuple[ObjectKey, ...]], ...]


def applied(policies: Iterable[Policy], tiers: Mapping[str, Tier]) -> Applied:
    """The policies of one endpoint in the order in which they are asked. A policy whose tier does
    not exist is not asked."""
    known = [policy for policy in policies if policy.tier in tiers]
    known.sort(key=lambda policy: (policy.order, policy.key))
    return Applied(
        ingress=_by_tier(known, tiers, Direction.INGRESS),
        egress=_by_tier(known, tiers, Direction.EGRESS),
    )


def _by_tier(policies: list[Policy], tiers: Mapping[str, Tier], direction: Direction) -> ByTier:
    found: dict[str, list[ObjectKey]] = {}
    for policy in policies:
        if direction in policy.directions:
            found.setdefault(policy.tier, []).append(policy.key)
    order = sorted(found, key=lambda name: (tiers[name].order, name))
    return tuple((name, tuple(found[name])) for name in order)
