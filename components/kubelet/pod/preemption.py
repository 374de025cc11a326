"""Chooses the pods that must end so that a critical pod can be admitted. Pure.

A static pod, or one with a priority of at least system-cluster-critical, is not rejected for want
of resources, because the node may not work without it. The choice is upstream's
(pkg/kubelet/preemption): as few Guaranteed pods as possible, then as few Burstable and BestEffort
ones, and among equals the pod that requests less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.podneeds import Requests, total_requests
from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod

#: The priority of system-cluster-critical, the lower one of the two system classes.
SYSTEM_CRITICAL = 2_000_000_000
_CLASSES = ("BestEffort", "Burstable", "Guaranteed")


class PreemptionError(Exception):
    """No set of pods frees what is missing."""


def is_critical(pod: Pod) -> bool:
    if pods.is_static(pod) or pods.is_mirror(pod):
        return True
    return (pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL


def can_preempt(pod: Pod, other: Pod) -> bool:
    """Whether the other pod may be ended for this one."""
    if is_critical(pod) and not is_critical(other):
        return True
    own, theirs = pod["spec"].get("priority"), other["spec"].get("priority")
    return own is not None and theirs is not None and own > theirs


def victims(pod: Pod, others: Iterable[Pod], missing: Mapping[str, int]) -> list[Pod]:
    """The pods to end. missing: resource -> amount that is lacking. Raises PreemptionError."""
    classes: dict[str, list[Pod]] = {name: [] for name in _CLASSES}
    for other in others:
        if can_preempt(pod, other):
            classes[pods.qos_class(other)].append(other)
    best_effort, burstable, guaranteed = (classes[name] for name in _CLASSES)
    _refuse(_left(missing, [*best_effort, *burstable, *guaranteed]))
    of_guaranteed = _nearest(guaranteed, _left(missing, [*best_effort, *burstable]))
    of_burstable = _nearest(burstable, _left(missing, [*best_effort, *of_guaranteed]))
    of_best_effort = _nearest(best_effort, _left(missing, [*of_burstable, *of_guaranteed]))
    return [*of_best_effort, *of_burstable, *of_guaranteed]


def _refuse(missing: Mapping[str, int]) -> None:
    if missing:
        text = "".join(f"(res: {name}, q: {number}), " for name, number in missing.items())
        raise PreemptionError(f"no set of running pods found to reclaim resources: [{text}]")


def _freed(pod: Pod) -> Requests:
    """What the end of a pod frees, with the place of the pod itself."""
    return {**total_requests(pod["spec"], {}), "pods": 1}


def _left(missing: Mapping[str, int], ended: Sequence[Pod]) -> Requests:
    """What is still missing when these pods have ended."""
    left = dict(missing)
    for pod in ended:
        freed = _freed(pod)
        left = {name: number - freed.get(name, 0) for name, number in left.items()}
    return {name: number for name, number in left.items() if number > 0}


def _nearest(candidates: Sequence[Pod], missing: Mapping[str, int]) -> list[Pod]:
    """Takes the pod that frees most of what is missing, until nothing is."""
    remaining = list(candidates)
    chosen: list[Pod] = []
    while missing:
        if not remaining:
            _refuse(missing)
        best = min(remaining, key=lambda pod: (_distance(pod, missing), *_size(pod)))
        remaining.remove(best)
        chosen.append(best)
        missing = _left(missing, [best])
    return chosen


def _distance(pod: Pod, missing: Mapping[str, int]) -> float:
    """The sum over resources of the square of the share that would still be missing."""
    freed = _freed(pod)
    shares = (max(number - freed.get(name, 0), 0) / number for name, number in missing.items())
    return sum(share**2 for share in shares)


def _size(pod: Pod) -> tuple[int, int]:
    requests = total_requests(pod["spec"], {})
    return requests.get("memory", 0), requests.get("cpu", 0)
