"""How many replicas one metric asks for (pkg/controller/podautoscaler/replica_calculator.go).

The ratio of use to target scales the number of ready pods. Pods that are not ready, or of which
nothing is known, must not make the answer more extreme: where the ratio says that there are too few
pods they count as idle, where it says that there are too many as busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.meta import is_deleting, parse_time
from kubewire.components.controllers.pods import phase, ready_condition
from kubewire.components.kubeapi.quantity import milli_value

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod


@dataclass(frozen=True)
class Start:
    """In which seconds after its start the use of the processor by a pod tells nothing (flags)."""

    cpu_initialization: float = 300.0
    readiness_delay: float = 30.0


class MetricProblem(Exception):
    """The metric has no value now; the message is upstream's."""


@dataclass(frozen=True)
class Sample:
    """The use of a resource by a pod in thousandths, and over which time it was measured."""

    value: int
    timestamp: datetime
    window: timedelta


@dataclass(frozen=True)
class Proposal:
    """replicas, and what the status shows: use in percent of requests, and average per pod."""

    replicas: int
    utilization: int | None
    average: int


def samples_of(
    metrics: Sequence[Mapping[str, Any]], resource: str, container: str
) -> dict[str, Sample]:
    """By pod; container "" sums up all containers of a pod."""
    found: dict[str, Sample] = {}
    for item in metrics:
        chosen = [one for one in item["containers"] if container in ("", one["name"])]
        if not chosen or any(resource not in one["usage"] for one in chosen):
            continue
        total = sum(milli_value(one["usage"][resource]) for one in chosen)
        window = timedelta(seconds=float(item["window"].removesuffix("s") or 0))
        found[item["metadata"]["name"]] = Sample(total, parse_time(item["timestamp"]), window)
    return found


@dataclass(frozen=True)
class _Groups:
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def _group(
    pods: Sequence[Pod],
    samples: Mapping[str, Sample],
    resource: str,
    now: datetime,
    start: Start,
) -> _Groups:
    ready = 0
    groups: dict[str, set[str]] = {"unready": set(), "missing": set(), "ignored": set()}
    for pod in pods:
        name = pod["metadata"]["name"]
        sample = samples.get(name)
        if is_deleting(pod) or phase(pod) == "Failed":
            groups["ignored"].add(name)
        elif phase(pod) == "Pending":
            groups["unready"].add(name)
        elif sample is None:
            groups["missing"].add(name)
        elif resource == "cpu" and _is_warming_up(pod, sample, now, start):
            groups["unready"].add(name)
        else:
            ready += 1
    frozen = {key: frozenset(names) for key, names in groups.items()}
    return _Groups(ready, **frozen)


def _is_warming_up(pod: Pod, sample: Sample, now: datetime, start: Start) -> bool:
    """Whether the pod's use of the processor still is that of its start."""
    condition = ready_condition(pod)
    started = (pod.get("status") or {}).get("startTime")
    if condition is None or not started:
        return True
    changed = parse_time(condition.get("lastTransitionTime"))
    is_unready = condition.get("status") == "False"
    begin = parse_time(started)
    if begin + timedelta(seconds=start.cpu_initialization) > now:
        return is_unready or sample.timestamp < changed + sample.window
    return is_unready and begin + timedelta(seconds=start.readiness_delay) > changed


def requests_of(pods: Sequence[Pod], resource: str, container: str) -> dict[str, int]:
    """Raises MetricProblem when a container has no request, because a share of it has no sense."""
    found: dict[str, int] = {}
    for pod in pods:
        name = pod["metadata"]["name"]
        total = 0
        for item in pod["spec"]["containers"]:
            if container not in ("", item["name"]):
                continue
            request = ((item.get("resources") or {}).get("requests") or {}).get(resource)
            if request is None:
                where = f"container {item['name']} of Pod {name}"
                raise MetricProblem(f"missing request for {resource} in {where}")
            total += milli_value(request)
        found[name] = total
    return found


def by_utilization(
    current: int,
    target: int,
    pods: Sequence[Pod],
    samples: Mapping[str, Sample],
    requests: Mapping[str, int],
    resource: str,
    tolerates: Callable[[float], bool],
    now: datetime,
    start: Start = Start(),
) -> Proposal:
    """target is the share of requests in percent; tolerates says whether a ratio is near enough."""
    groups = _group(pods, samples, resource, now, start)
    used = _counted(samples, groups)
    wanted = sum(requests[name] for name in used)
    if not wanted:
        raise MetricProblem("no metrics returned matched known pods")

    def ratio(values: Mapping[str, int]) -> float:
        share = sum(values.values()) * 100 // sum(requests[name] for name in values)
        return share / target

    def busy(name: str) -> int:
        return requests[name] * max(100, target) // 100

    replicas = _scaled(current, used, groups, ratio, busy, tolerates)
    total = sum(used.values())
    return Proposal(replicas, total * 100 // wanted, total // len(used))


def by_average(
    current: int,
    target: int,
    pods: Sequence[Pod],
    samples: Mapping[str, Sample],
    resource: str,
    tolerates: Callable[[float], bool],
    now: datetime,
    start: Start = Start(),
) -> Proposal:
    """target is the use of each pod in thousandths."""
    groups = _group(pods, samples, resource, now, start)
    used = _counted(samples, groups)

    def ratio(values: Mapping[str, int]) -> float:
        return sum(values.values()) // len(values) / target

    replicas = _scaled(current, used, groups, ratio, lambda _: target, tolerates)
    return Proposal(replicas, None, sum(used.values()) // len(used))


def _counted(samples: Mapping[str, Sample], groups: _Groups) -> dict[str, int]:
    """What the pods use that count; raises MetricProblem if none does."""
    left_out = groups.unready | groups.ignored
    used = {name: item.value for name, item in samples.items() if name not in left_out}
    if not used:
        raise MetricProblem("did not receive metrics for targeted pods (pods might be unready)")
    return used


def _scaled(
    current: int,
    used: Mapping[str, int],
    groups: _Groups,
    ratio: Callable[[Mapping[str, int]], float],
    busy: Callable[[str], int],
    tolerates: Callable[[float], bool],
) -> int:
    first = ratio(used)
    grows_with_unready = bool(groups.unready) and first > 1
    if not grows_with_unready and not groups.missing:
        return current if tolerates(first) else math.ceil(first * groups.ready)
    values = dict(used)
    if first < 1:
        values |= {name: busy(name) for name in groups.missing}
    elif first > 1:
        values |= dict.fromkeys(groups.missing, 0)
    if grows_with_unready:
        values |= dict.fromkeys(groups.unready, 0)
    second = ratio(values)
    if tolerates(second) or (first < 1) != (second < 1):
        return current
    replicas = math.ceil(second * len(values))
    turns = replicas > current if second < 1 else replicas < current
    return current if turns else replicas
