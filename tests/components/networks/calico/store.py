"""A datastore in memory with the API server's manners: resourceVersions, 404, 409, preconditions."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from kubewire.components.networks.calico.plugin.datastore import ApiError, Datastore


class Memory(Datastore):
    """before_update: called once before the next update, to lose a race."""

    def __init__(self, **kinds: list[dict[str, Any]]) -> None:
        self._versions = itertools.count(1)
        self.kinds: dict[str, dict[str, dict[str, Any]]] = {}
        self.before_update: Any = None
        self.calls = 0
        for kind, objects in kinds.items():
            for obj in objects:
                self.create(kind, obj)

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        self.calls += 1
        return copy.deepcopy(self.kinds.get(kind, {}).get(name))

    def list(self, kind: str) -> list[dict[str, Any]]:
        self.calls += 1
        return copy.deepcopy(list(self.kinds.get(kind, {}).values()))

    def create(self, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        name = obj["metadata"]["name"]
        if name in self.kinds.setdefault(kind, {}):
            raise ApiError(409, "AlreadyExists")
        return self._store(kind, obj)

    def update(self, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.before_update:
            work, self.before_update = self.before_update, None
            work()
        self._check(kind, obj)
        return self._store(kind, obj)

    def delete(self, kind: str, obj: dict[str, Any]) -> None:
        self._check(kind, obj)
        del self.kinds[kind][obj["metadata"]["name"]]

    def _check(self, kind: str, obj: dict[str, Any]) -> None:
        found = self.kinds.get(kind, {}).get(obj["metadata"]["name"])
        if found is None:
            raise ApiError(404, "NotFound")
        if found["metadata"]["resourceVersion"] != obj["metadata"].get("resourceVersion"):
            raise ApiError(409, "Conflict")

    def _store(self, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
        stored = copy.deepcopy(obj)
        stored["metadata"] |= {"resourceVersion": str(next(self._versions)), "uid": obj["metadata"]["name"]}
        self.kinds[kind][obj["metadata"]["name"]] = stored
        return copy.deepcopy(stored)


def pool(cidr: str, name: str = "default-ipv4-ippool", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"cidr": cidr, "blockSize": 26, "nodeSelector": "all()", **spec}}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}
