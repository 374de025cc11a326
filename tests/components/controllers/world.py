"""An API server of dictionaries: carries out what plans say, so that tests can follow a rollout to its end."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from kubewire.components.controllers.actions import Action, Create, Delete, Emit, Patch, SlowStart, Update
from kubewire.components.controllers.meta import controller_uid
from kubewire.components.kubeapi.resources import PODS, KubeObject, Resource
from tests.components.controllers.objects import NOW, stamp


class World:
    """Time passes by tick(); pods start, become ready and end when the test says so."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.events: list[str] = []
        self._objects: dict[str, dict[str, KubeObject]] = {}
        self._count = itertools.count(1)

    def put(self, resource: Resource[Any], obj: Any) -> Any:
        obj = copy.deepcopy(obj)
        self._objects.setdefault(resource.plural, {})[obj["metadata"]["name"]] = obj
        return obj

    def get(self, resource: Resource[Any], name: str) -> Any:
        return self._objects[resource.plural][name]

    def all(self, resource: Resource[Any]) -> list[Any]:
        return list(self._objects.get(resource.plural, {}).values())

    def owned(self, resource: Resource[Any], owner: Any) -> list[KubeObject]:
        return [item for item in self.all(resource) if controller_uid(item) == owner["metadata"]["uid"]]

    def names(self, resource: Resource[Any]) -> list[str]:
        return sorted(self._objects.get(resource.plural, {}))

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, sync: Callable[[World], int], check: Callable[[], None] = lambda: None) -> None:
        """Let a controller (sync: one step, returns its writes) and the pods go on until nothing changes."""
        for _ in range(100):
            writes = sync(self)
            check()
            self.run_pods()
            self.tick(1)
            if not writes:
                return
        raise AssertionError("does not settle")

    def apply(self, actions: Iterable[Action]) -> int:
        """The number of writes, events not counted."""
        writes = 0
        for action in actions:
            match action:
                case Emit():
                    self.events.append(f"{action.reason}: {action.message}")
                    continue
                case SlowStart():
                    writes += self.apply(action.creates)
                    continue
                case Create():
                    self._create(action)
                case Delete():
                    self._delete(action)
                case Update() | Patch():
                    self._write(action)
            writes += 1
        return writes

    def _create(self, action: Create) -> None:
        obj: Any = copy.deepcopy(action.obj)
        metadata, number = obj["metadata"], next(self._count)
        metadata.setdefault("name", f"{metadata.get('generateName')}{number:05}")
        metadata |= {"uid": f"uid-{number}", "generation": 1, "resourceVersion": "1"}
        metadata["creationTimestamp"] = stamp(self.now)
        if action.resource == PODS:
            obj["status"] = {"phase": "Pending"}
        assert metadata["name"] not in self._objects.get(action.resource.plural, {}), "already exists"
        self.put(action.resource, obj)

    def _delete(self, action: Delete) -> None:
        obj = self.get(action.resource, action.name)
        assert not action.uid or obj["metadata"]["uid"] == action.uid
        if action.resource == PODS:
            obj["metadata"]["deletionTimestamp"] = stamp(self.now)
        else:
            del self._objects[action.resource.plural][action.name]

    def _write(self, action: Update | Patch) -> None:
        name = action.obj["metadata"]["name"] if isinstance(action, Update) else action.name
        obj = self.get(action.resource, name)
        if isinstance(action, Update):
            fresh = copy.deepcopy(action.obj)
            obj.update({"status": fresh["status"]} if action.subresource == "status" else fresh)
            return
        before = copy.deepcopy(obj.get("spec"))
        merge(obj, action.patch)
        if obj.get("spec") != before:
            obj["metadata"]["generation"] = obj["metadata"].get("generation", 1) + 1

    def each_pod(self, change: Callable[[KubeObject], None]) -> None:
        for item in self.all(PODS):
            change(item)

    def run_pods(self) -> None:
        """Every pod that is not being deleted runs and is ready; those being deleted are gone."""
        for item in self.all(PODS):
            if item["metadata"].get("deletionTimestamp"):
                del self._objects[PODS.plural][item["metadata"]["name"]]
            elif item["status"]["phase"] == "Pending":
                ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(self.now)}
                item["status"] = {"phase": "Running", "conditions": [ready]}


def merge(target: Any, patch: Any) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)
