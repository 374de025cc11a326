"""How fast the number of replicas may change: stabilisation and scaling policies
(normalizeDesiredReplicas of pkg/controller/podautoscaler/horizontal.go).

Without `behavior` the number at most doubles, or becomes 4, and shrinks only to the highest number
recommended in --horizontal-pod-autoscaler-downscale-stabilization. With it, windows and policies say both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import HorizontalPodAutoscalerSpec, HPAScalingRules

#: How long recommendations and changes are remembered: the longest period of a policy.
_MEMORY = timedelta(seconds=3600)
_UP: HPAScalingRules = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: HPAScalingRules = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


@dataclass(frozen=True)
class History:
    """What the controller remembers of an autoscaler: recommendations, and changes by how many."""

    recommendations: tuple[tuple[datetime, int], ...] = ()
    changes: tuple[tuple[datetime, int], ...] = ()

    def recommended(self, replicas: int, now: datetime) -> History:
        return replace(self, recommendations=(*_recent(self.recommendations, now), (now, replicas)))

    def changed(self, by: int, now: datetime) -> History:
        return replace(self, changes=(*_recent(self.changes, now), (now, by)))


def _recent(
    entries: Sequence[tuple[datetime, int]],
    now: datetime,
) -> list[tuple[datetime, int]]:
    return [entry for entry in entries if entry[0] > now - _MEMORY]


@dataclass(frozen=True)
class Limited:
    """The number of replicas, and the reasons and texts of the conditions AbleToScale and
    ScalingLimited."""

    replicas: int
    able: tuple[str, str]
    limited: tuple[str, str, str] = field(default=("False", "", ""))


READY = ("ReadyForNewScale", "recommended size matches current size")
_IN_RANGE = ("False", "DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_MANY = (
    "True",
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
)
_TOO_FEW = (
    "True",
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
)
_UP_LIMIT = (
    "True",
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
)
_DOWN_LIMIT = (
    "True",
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
)
_DOWN_STABLE = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent "
    "recommendation",
)
_UP_STABLE = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)


def limit(
    spec: HorizontalPodAutoscalerSpec,
    current: int,
    desired: int,
    history: History,
    now: datetime,
    downscale_stabilization: float = 300.0,
) -> Limited:
    """history has the recommendations before this one."""
    behavior = spec.get("behavior")
    up = rules(spec, "scaleUp")
    down: HPAScalingRules = {
        "stabilizationWindowSeconds": int(downscale_stabilization),
        **rules(spec, "scaleDown"),
    }
    stable, able = _stabilized(current, desired, up, down, history, now)
    least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    if behavior is None:
        ceiling, floor = max(2 * current, 4), 0
    else:
        ceiling = _ceiling(current, up, history, now) if stable > current else most
        floor = _floor(current, down, history, now) if stable < current else least
    if stable > current and ceiling < most and stable > ceiling:
        return Limited(max(ceiling, least), able, _UP_LIMIT)
    if stable > most:
        return Limited(most, able, _TOO_MANY)
    if stable < current and floor > least and stable < floor:
        return Limited(min(floor, most), able, _DOWN_LIMIT)
    if stable < least:
        return Limited(least, able, _TOO_FEW)
    return Limited(stable, able, _IN_RANGE)


def rules(spec: HorizontalPodAutoscalerSpec, direction: str) -> HPAScalingRules:
    """The rules of scaleUp or scaleDown with their defaults. The window of scaleDown has none here,
    because its default is a flag."""
    given: dict[str, HPAScalingRules] = dict(spec.get("behavior") or {})  # type: ignore[arg-type]
    default = _UP if direction == "scaleUp" else _DOWN
    return {**default, **(given.get(direction) or {})}


def _stabilized(
    current: int,
    desired: int,
    up: HPAScalingRules,
    down: HPAScalingRules,
    history: History,
    now: datetime,
) -> tuple[int, tuple[str, str]]:
    lowest = min([desired, *_within(history, up, now)])
    highest = max([desired, *_within(history, down, now)])
    stable = min(max(current, lowest), highest)
    if stable == desired:
        return stable, READY
    return stable, _DOWN_STABLE if stable > desired else _UP_STABLE


def _within(history: History, given: HPAScalingRules, now: datetime) -> list[int]:
    window = timedelta(seconds=int(given["stabilizationWindowSeconds"]))
    return [count for moment, count in history.recommendations if moment > now - window]


def _ceiling(current: int, given: HPAScalingRules, history: History, now: datetime) -> int:
    if given["selectPolicy"] == "Disabled":
        return current
    proposals = []
    for policy in given["policies"]:
        begin = current - _changed(history, policy["periodSeconds"], now)
        value = policy["value"]
        proposals.append(
            begin + value if policy["type"] == "Pods" else math.ceil(begin * (1 + value / 100))
        )
    best = max(proposals) if given["selectPolicy"] == "Max" else min(proposals)
    return max(best, current)


def _floor(current: int, given: HPAScalingRules, history: History, now: datetime) -> int:
    if given["selectPolicy"] == "Disabled":
        return current
    proposals = []
    for policy in given["policies"]:
        begin = current - _changed(history, policy["periodSeconds"], now)
        value = policy["value"]
        proposals.append(
            begin - value if policy["type"] == "Pods" else int(begin * (1 - value / 100))
        )
    best = min(proposals) if given["selectPolicy"] == "Max" else max(proposals)
    return min(best, current)


def _changed(history: History, seconds: int, now: datetime) -> int:
    """By how many replicas the number changed in the last seconds."""
    since = now - timedelta(seconds=int(seconds))
    return sum(by for moment, by in history.changes if moment > since)
