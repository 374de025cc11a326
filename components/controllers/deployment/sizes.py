"""Computes how many replicas each ReplicaSet of a Deployment should have.

A rollout keeps at most replicas + maxSurge pods and at least replicas - maxUnavailable available
ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from kubewire.components.controllers.meta import annotations_of, created_at, int_or_percent

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Deployment, PartialObjectMetadata, ReplicaSet

DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"


def name_of(obj: PartialObjectMetadata) -> str:
    return str(obj["metadata"]["name"])


def replicas_of(obj: Deployment | ReplicaSet) -> int:
    value = obj["spec"].get("replicas")
    return 1 if value is None else int(value)


def available_of(replicaset: ReplicaSet) -> int:
    return int((replicaset.get("status") or {}).get("availableReplicas") or 0)


def is_rolling(deployment: Deployment) -> bool:
    strategy = deployment["spec"].get("strategy") or {}
    return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")


def fenceposts(deployment: Deployment) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods (ResolveFenceposts).

    maxSurge rounds up and maxUnavailable rounds down; maxUnavailable is 1 if both are 0.
    """
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    desired = replicas_of(deployment)
    surge = int_or_percent(rolling.get("maxSurge", "25%"), desired, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), desired, round_up=False)
    return surge, 1 if surge == 0 and unavailable == 0 else unavailable


def max_surge(deployment: Deployment) -> int:
    return fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Deployment) -> int:
    """At most spec.replicas; 0 for Recreate."""
    desired = replicas_of(deployment)
    if not is_rolling(deployment) or desired == 0:
        return 0
    return min(fenceposts(deployment)[1], desired)


def min_available(deployment: Deployment) -> int:
    return replicas_of(deployment) - max_unavailable(deployment)


def total(replicasets: Iterable[ReplicaSet]) -> int:
    return sum(replicas_of(item) for item in replicasets)


def new_size(
    deployment: Deployment,
    everything: Sequence[ReplicaSet],
    newest: ReplicaSet | None,
) -> int:
    """The size of the new ReplicaSet in the next step (NewRSNewReplicas); newest may not exist
    yet.
    """
    desired = replicas_of(deployment)
    if not is_rolling(deployment):
        return desired
    current = replicas_of(newest) if newest is not None else 0
    room = desired + max_surge(deployment) - total(everything)
    if room <= 0:
        return current
    return current + min(room, desired - current)


def old_sizes(
    deployment: Deployment,
    old: Sequence[ReplicaSet],
    newest: ReplicaSet,
) -> dict[str, int]:
    """The new sizes of the old ReplicaSets that shrink in this step.

    Unhealthy pods go first, then those of the oldest ReplicaSets.
    """
    everything = [*old, newest]
    unavailable_new = replicas_of(newest) - available_of(newest)
    budget = total(everything) - min_available(deployment) - unavailable_new
    if total(old) == 0 or budget <= 0:
        return {}
    sizes = {name_of(item): replicas_of(item) for item in old}
    before = dict(sizes)
    ordered = sorted(old, key=lambda item: (created_at(item), name_of(item)))
    _drop_unhealthy(ordered, sizes, budget)
    _drop_available(ordered, sizes, sum(map(available_of, everything)) - min_available(deployment))
    return {name: size for name, size in sizes.items() if size != before[name]}


def _drop_unhealthy(ordered: Sequence[ReplicaSet], sizes: dict[str, int], budget: int) -> None:
    for item in ordered:
        drop = min(budget, sizes[name_of(item)] - available_of(item))
        if drop > 0:
            sizes[name_of(item)] -= drop
            budget -= drop


def _drop_available(ordered: Sequence[ReplicaSet], sizes: dict[str, int], budget: int) -> None:
    for item in ordered:
        drop = min(budget, sizes[name_of(item)])
        if drop > 0:
            sizes[name_of(item)] -= drop
            budget -= drop


def is_scaling(deployment: Deployment, everything: Iterable[ReplicaSet]) -> bool:
    """Whether spec.replicas changed since the ReplicaSets were last sized."""
    for item in everything:
        desired = annotations_of(item).get(DESIRED_REPLICAS)
        if replicas_of(item) <= 0 or desired is None:
            continue
        if int(desired) != replicas_of(deployment):
            return True
    return False


def proportional_sizes(
    deployment: Deployment,
    old: Sequence[ReplicaSet],
    newest: ReplicaSet | None,
) -> dict[str, int]:
    """Sizes after spec.replicas changed in the middle of a rollout or while the rollout is paused.

    A single active ReplicaSet takes the whole change. Of several, each keeps its share and the
    largest takes the rounding difference. A ReplicaSet listed with its current size only gets new
    annotations.
    """
    everything = [*old, *([newest] if newest is not None else [])]
    desired = replicas_of(deployment)
    active = [item for item in everything if replicas_of(item) > 0]
    if len(active) <= 1:
        only = active[0] if active else newest or max(old, key=created_at, default=None)
        return {} if only is None or replicas_of(only) == desired else {name_of(only): desired}
    if newest is not None and _is_saturated(deployment, newest):
        return {name_of(item): 0 for item in old if replicas_of(item) > 0}
    if not is_rolling(deployment):
        return {}
    allowed = desired + max_surge(deployment) if desired > 0 else 0
    return _share_out(deployment, active, allowed - total(active))


def _share_out(deployment: Deployment, active: Sequence[ReplicaSet], to_add: int) -> dict[str, int]:
    newer_first = sorted(active, key=created_at, reverse=to_add > 0)
    ordered = sorted(newer_first, key=replicas_of, reverse=True)
    sizes: dict[str, int] = {}
    added = 0
    for item in ordered:
        change = _proportion(deployment, item, to_add, added) if to_add else 0
        sizes[name_of(item)] = replicas_of(item) + change
        added += change
    first = name_of(ordered[0])
    sizes[first] = max(sizes[first] + to_add - added, 0)
    return sizes


def _proportion(deployment: Deployment, item: ReplicaSet, to_add: int, added: int) -> int:
    if replicas_of(item) == 0 or to_add == added:
        return 0
    share = _fraction(deployment, item)
    left = to_add - added
    return min(share, left) if to_add > 0 else max(share, left)


def _fraction(deployment: Deployment, item: ReplicaSet) -> int:
    desired = replicas_of(deployment)
    if desired == 0:
        return -replicas_of(item)
    annotated = annotations_of(item).get(MAX_REPLICAS)
    reported = (deployment.get("status") or {}).get("replicas") or 0
    before = int(annotated or reported)
    if before == 0:
        return 0
    size = Decimal(replicas_of(item) * (desired + max_surge(deployment))) / before
    return int(size.quantize(Decimal(1), rounding=ROUND_HALF_UP)) - replicas_of(item)


def _is_saturated(deployment: Deployment, newest: ReplicaSet) -> bool:
    desired = replicas_of(deployment)
    return (
        replicas_of(newest) == desired
        and annotations_of(newest).get(DESIRED_REPLICAS) == str(desired)
        and available_of(newest) == desired
    )
