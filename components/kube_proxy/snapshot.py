"""What a sync works from: Services and endpoints as they were when it began, kept up to date by what changed."""

from __future__ import annotations

from typing import TypeVar

from components.kube_proxy.model import Endpoint, Endpoints, ServicePort, ServicePortName, Services
from components.kube_proxy.tracker import Tracker

_T = TypeVar("_T")


class Snapshot:
    """Handlers change the tracker while a sync writes; the snapshot stands still meanwhile."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.services: dict[ServicePortName, ServicePort] = {}
        self.endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        #: What the rules were last written from, of the names that changed since.
        self._before: dict[ServicePortName, tuple[ServicePort | None, tuple[Endpoint, ...] | None]] = {}

    def advance(self) -> frozenset[ServicePortName]:
        """Takes in the changes since the last call; returns whose."""
        changed = self._tracker.take_changed()
        for name in changed:
            self._before.setdefault(name, (self.services.get(name), self.endpoints.get(name)))
            _copy(name, self._tracker.services, self.services)
            _copy(name, self._tracker.endpoints, self.endpoints)
        return changed

    def settle(self) -> tuple[tuple[Services, Endpoints], tuple[Services, Endpoints]]:
        """The rules are written: how they were and how they are, of all names that changed since the last time."""
        before = (
            {name: service for name, (service, _) in self._before.items() if service is not None},
            {name: endpoints for name, (_, endpoints) in self._before.items() if endpoints is not None},
        )
        after = (
            {name: self.services[name] for name in self._before if name in self.services},
            {name: self.endpoints[name] for name in self._before if name in self.endpoints},
        )
        self._before = {}
        return before, after


def _copy(name: ServicePortName, source: dict[ServicePortName, _T], target: dict[ServicePortName, _T]) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)
