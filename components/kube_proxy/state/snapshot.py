"""What a sync works from: Services and endpoints as they were when it began, kept up to date by
what changed."""

from __future__ import annotations

from typing import TypeVar

from kubewire.components.kube_proxy.state.model import Endpoint, ServicePort, ServicePortName
from kubewire.components.kube_proxy.state.tracker import Tracker

_T = TypeVar("_T")


class Snapshot:
    """Handlers change the tracker while a sync writes; the snapshot stands still meanwhile."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.services: dict[ServicePortName, ServicePort] = {}
        self.endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}

    def advance(self) -> frozenset[ServicePortName]:
        """Takes in the changes since the last call; returns whose."""
        changed = self._tracker.take_changed()
        for name in changed:
            _copy(name, self._tracker.services, self.services)
            _copy(name, self._tracker.endpoints, self.endpoints)
        return changed


def _copy(
    name: ServicePortName, source: dict[ServicePortName, _T], target: dict[ServicePortName, _T]
) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)
