"""endpoints.kubernetes.io/last-change-trigger-time: since when what is written has been true, so that
network programming latency can be measured (upstream's TriggerTimeTracker)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kubewire.components.controllers.meta import Key, key_of
from kubewire.components.controllers.pods import ready_condition
from kubewire.components.kubeapi.resources import KubeObject


@dataclass(frozen=True)
class Seen:
    """Trigger times at the last sync."""

    service: str = ""
    pods: dict[str, str] = field(default_factory=dict)


def observe(service: KubeObject, pods: Iterable[KubeObject]) -> Seen:
    times = {pod["metadata"]["name"]: (ready_condition(pod) or {}).get("lastTransitionTime") or "" for pod in pods}
    created = service["metadata"].get("creationTimestamp") or ""
    return Seen(created, {name: when for name, when in times.items() if when})


def trigger_time(before: Seen | None, now: Seen) -> str | None:
    """The earliest time among pods that changed since; the Service's own creation the first time, if later."""
    old = before or Seen()
    changed = [when for name, when in now.pods.items() if when > old.pods.get(name, "")]
    if now.service > old.service:
        changed.append(now.service)
    return min(changed, default=None)


class TriggerTimes:
    def __init__(self) -> None:
        self._seen: dict[Key, Seen] = {}

    def compute(self, service: KubeObject, pods: Iterable[KubeObject]) -> str | None:
        key, now = key_of(service), observe(service, pods)
        result = trigger_time(self._seen.get(key), now)
        self._seen[key] = now
        return result

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)
