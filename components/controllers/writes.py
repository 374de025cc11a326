"""Read your own writes: act on a key only when the informers have seen what was last done for it.

Upstream counts expected creations and deletions per owner (ControllerExpectations). Resource versions of
one API server are ordered across all resources, so "the informer has come as far as my write" says
the same, also for updates and for objects with generated names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubewire.components.kubeapi.resources import KubeObject, Resource

#: Give up waiting for an event that never comes (an object made and gone between two lists), in seconds.
PATIENCE = 30.0


@dataclass(frozen=True)
class _Write:
    resource: Resource
    name: tuple[str, str]
    uid: str
    version: int
    since: float


class Writes:
    """progress(resource): the highest resourceVersion the informer has seen; stores: its objects."""

    def __init__(
        self,
        progress: Callable[[Resource], int | None],
        lookup: Callable[[Resource, tuple[str, str]], Mapping[str, object] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._lookup, self._clock = progress, lookup, clock
        self._pending: dict[object, list[_Write]] = {}

    def written(self, key: object, resource: Resource, obj: KubeObject) -> None:
        """obj: the server's answer to a create, update or patch."""
        version = obj.get("metadata", {}).get("resourceVersion")
        if self._progress(resource) is None or not version:
            return
        name = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self._remember(key, _Write(resource, name, "", int(version), self._clock()))

    def deleted(self, key: object, resource: Resource, name: tuple[str, str], uid: str) -> None:
        if self._progress(resource) is not None and uid:
            self._remember(key, _Write(resource, name, uid, 0, self._clock()))

    def caught_up(self, key: object) -> bool:
        """Whether every write for this key is visible in the informers."""
        still = [write for write in self._pending.get(key, ()) if not self._visible(write)]
        if still:
            self._pending[key] = still
        else:
            self._pending.pop(key, None)
        return not still

    def _remember(self, key: object, write: _Write) -> None:
        self._pending.setdefault(key, []).append(write)

    def _visible(self, write: _Write) -> bool:
        if self._clock() - write.since > PATIENCE:
            return True
        if not write.uid:
            return (self._progress(write.resource) or 0) >= write.version
        found = self._lookup(write.resource, write.name)
        metadata = found["metadata"] if found else None
        if not isinstance(metadata, dict) or metadata.get("uid") != write.uid:
            return True
        return bool(metadata.get("deletionTimestamp"))
