"""Delays a key until the informers show what was last written for it.

Without that, a plan would see a state older than its own writes and repeat them. Upstream counts
expected creations and deletions of each owner (ControllerExpectations). Resource versions of one
API server are ordered across all resources, so it is enough that the informer has reached the
version of the write. This also covers updates and objects with generated names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.kubeapi.resources import Resource

#: Seconds after which a write counts as seen. Its event may never come, for example when the
#: object was created and deleted between two lists.
PATIENCE = 30.0


@dataclass(frozen=True)
class _Write:
    resource: Resource[Any]
    name: tuple[str, str]
    uid: str
    version: int
    since: float


class Writes:
    """The writes of each key that the informers do not show yet.

    progress returns the highest resourceVersion that a resource's informer has seen, lookup its
    objects.
    """

    def __init__(
        self,
        progress: Callable[[Resource[Any]], int | None],
        lookup: Callable[[Resource[Any], tuple[str, str]], Mapping[str, object] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._lookup = lookup
        self._clock = clock
        self._pending: dict[object, list[_Write]] = {}

    def written(self, key: object, resource: Resource[Any], obj: Mapping[str, Any]) -> None:
        """Records a create, update or patch; obj is the API server's answer."""
        version = obj.get("metadata", {}).get("resourceVersion")
        if self._progress(resource) is None or not version:
            return
        name = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        self._remember(key, _Write(resource, name, "", int(version), self._clock()))

    def deleted(
        self, key: object, resource: Resource[Any], name: tuple[str, str], uid: str
    ) -> None:
        """Records the deletion of an object."""
        if self._progress(resource) is not None and uid:
            self._remember(key, _Write(resource, name, uid, 0, self._clock()))

    def caught_up(self, key: object) -> bool:
        """Whether the informers show every write for this key."""
        unseen = [write for write in self._pending.get(key, ()) if not self._visible(write)]
        if unseen:
            self._pending[key] = unseen
        else:
            self._pending.pop(key, None)
        return not unseen

    def _remember(self, key: object, write: _Write) -> None:
        self._pending.setdefault(key, []).append(write)

    def _visible(self, write: _Write) -> bool:
        if self._clock() - write.since > PATIENCE:
            return True
        if not write.uid:
            return (self._progress(write.resource) or 0) >= write.version
        current = self._lookup(write.resource, write.name)
        metadata = current["metadata"] if current else None
        if not isinstance(metadata, dict) or metadata.get("uid") != write.uid:
            return True
        return bool(metadata.get("deletionTimestamp"))
