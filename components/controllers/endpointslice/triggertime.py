"""Computes the annotation endpoints.kubernetes.io/last-change-trigger-time.

It says since when the written endpoints have been true. kube-proxy measures network programming
latency with it (upstream's TriggerTimeTracker).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubewire.components.controllers.meta import Key, key_of
from kubewire.components.controllers.pods import ready_condition

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, Service


@dataclass(frozen=True)
class Seen:
    """The times of a Service and its pods, as of the last sync."""

    service: str = ""
    pods: dict[str, str] = field(default_factory=dict)


def observe(service: Service, pods: Iterable[Pod]) -> Seen:
    times: dict[str, str] = {}
    for pod in pods:
        condition = ready_condition(pod)
        since = condition.get("lastTransitionTime") if condition is not None else None
        times[pod["metadata"]["name"]] = since or ""
    created = service["metadata"].get("creationTimestamp") or ""
    return Seen(created, {name: when for name, when in times.items() if when})


def trigger_time(before: Seen | None, now: Seen) -> str | None:
    """The earliest time among the pods and the Service that changed since the last sync.

    The Service's creation counts only in its first sync.
    """
    old = before or Seen()
    changed = [when for name, when in now.pods.items() if when > old.pods.get(name, "")]
    if now.service > old.service:
        changed.append(now.service)
    return min(changed, default=None)


class TriggerTimes:
    """Remembers the times of every Service's last sync."""

    def __init__(self) -> None:
        self._seen: dict[Key, Seen] = {}

    def compute(self, service: Service, pods: Iterable[Pod]) -> str | None:
        key = key_of(service)
        now = observe(service, pods)
        result = trigger_time(self._seen.get(key), now)
        self._seen[key] = now
        return result

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)
