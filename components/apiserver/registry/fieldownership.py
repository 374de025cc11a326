"""Field ownership: server-side apply, and how other writes take over fields
(https://kubernetes.io/docs/reference/using-api/server-side-apply/, KEP-555).

Several writers share one object: a user applies a Deployment while an autoscaler changes its
replicas. Server-side apply lets each declare only the fields it cares about. A manager sends its
complete configuration, and the server computes what to change from the fields that this manager
owned before, which metadata.managedFields records:

- A field in the configuration is set, and the manager owns it from then on.
- A field that the manager owned and no longer sends is removed, unless another manager owns it.
- A field that another manager owns with a different value is a conflict (409). With force the
  manager takes it over. If the values are equal, both own it.

Writes other than apply never conflict. What they change belongs to their writer alone from then
on, so the next apply of the former owner notices the change as a conflict. Fields are paths, and
an item of a list is identified by its keys, not by its index (fieldsets.py).

Ownership is recorded from the first apply of an object on. An object that was never applied has no
managedFields, and its writers pay nothing for them. At the first apply everything that exists
belongs to "before-first-apply", as in upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.fieldsets import (
    FieldSet,
    Finder,
    ListKeys,
    Path,
    changed,
    from_fields_v1,
    merged,
    owned_fields,
    readable,
    to_fields_v1,
    without,
)
from kubewire.components.apiserver.registry.metadata import timestamp
from kubewire.components.kubeapi.resources import KubeObject

#: The function list_map_keys(group, version, kind, path) of the openapi package.
ListKeysOf = Callable[[str, str, str, tuple[str, ...]], tuple[str, ...] | None]
_BEFORE = "before-first-apply"


@dataclass(frozen=True)
class Manager:
    """An entry of metadata.managedFields."""

    name: str
    operation: str
    api_version: str
    fields: FieldSet
    subresource: str = ""
    time: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.name, self.operation, self.subresource)

    @classmethod
    def parse(cls, entry: dict[str, Any]) -> Manager:
        return cls(
            entry.get("manager", ""),
            entry.get("operation", ""),
            entry.get("apiVersion", ""),
            from_fields_v1(entry.get("fieldsV1") or {}),
            entry.get("subresource", ""),
            entry.get("time", ""),
        )

    def dump(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(self.fields),
            "subresource": self.subresource,
        }
        # Both fields are optional, and "" is not a valid time.
        optional = ("time", "subresource")
        return {key: value for key, value in entry.items() if value != "" or key not in optional}


def managers_of(obj: KubeObject) -> list[Manager]:
    return [Manager.parse(entry) for entry in obj["metadata"].get("managedFields") or []]


def drop_unreadable(metadata: dict[str, Any]) -> None:
    """Drops managedFields of a new object that cannot be parsed (fieldmanager's UpdateNoErrors)."""
    if not metadata.get("managedFields"):
        return
    try:
        for entry in metadata["managedFields"]:
            Manager.parse(entry)
    except ValueError:
        del metadata["managedFields"]


def _record(obj: KubeObject, managers: list[Manager]) -> None:
    entries = [manager.dump() for manager in managers if manager.fields]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _with(
    managers: list[Manager],
    identity: tuple[str, str, str],
    api_version: str,
    fields: FieldSet,
) -> list[Manager]:
    """The managers with the fields of one of them set; its time changes only with its fields."""
    for index, manager in enumerate(managers):
        if manager.identity == identity:
            if manager.fields == fields:
                return managers
            fresh = replace(manager, fields=fields, api_version=api_version, time=timestamp())
            return [*managers[:index], fresh, *managers[index + 1 :]]
    name, operation, subresource = identity
    return [*managers, Manager(name, operation, api_version, fields, subresource, timestamp())]


def list_keys_for(served: Served, list_keys_of: ListKeysOf) -> ListKeys:
    """The function that returns the keys of this resource's lists."""
    return served.list_keys or partial(list_keys_of, served.group, served.version, served.kind)


@dataclass(frozen=True)
class OwnershipTracker:
    """Keeps managedFields correct when objects are written by other means than apply."""

    list_keys_of: ListKeysOf

    def on_update(
        self,
        served: Served,
        new: KubeObject,
        old: KubeObject,
        manager: str,
        subresource: str,
    ) -> None:
        """Sets managedFields of new: what the update changed belongs to its writer alone."""
        sent = new["metadata"].pop("managedFields", None)
        before = managers_of(old)
        if not before or sent == [{}]:
            return
        key = list_keys_for(served, self.list_keys_of)
        taken = changed(new, old, key)
        present = owned_fields(new, key)
        identity = (manager, "Update", subresource)
        after = [
            replace(item, fields=kept, time=item.time if kept == item.fields else timestamp())
            for item in before
            if (kept := (item.fields & present) - taken) or item.identity == identity
        ]
        own = next((item.fields for item in after if item.identity == identity), frozenset())
        _record(new, _with(after, identity, served.api_version, own | taken) if taken else after)


def first_applied(
    config: KubeObject,
    fields: FieldSet,
    identity: tuple[str, str, str],
    api_version: str,
) -> None:
    """Records, in an object that is about to be created, that one manager applied all of it."""
    _record(config, _with([], identity, api_version, fields))


def applied(
    live: KubeObject,
    config: KubeObject,
    fields: FieldSet,
    identity: tuple[str, str, str],
    api_version: str,
    list_keys: ListKeys,
    force: bool,
) -> KubeObject:
    """The live object after a manager applied its configuration; raises 409 on conflicts without
    force.
    """
    managers = managers_of(live) or [
        Manager(
            _BEFORE,
            "Update",
            api_version,
            owned_fields(live, list_keys),
            "",
            live["metadata"]["creationTimestamp"],
        )
    ]
    other_managers = [manager for manager in managers if manager.identity != identity]
    disputed = {
        manager.identity: contested
        for manager in other_managers
        if (contested := _contested(live, config, fields & manager.fields))
    }
    if disputed and not force:
        disputing = [manager for manager in other_managers if manager.identity in disputed]
        raise _conflict([(manager, disputed[manager.identity]) for manager in disputing])
    managers = [
        replace(
            item,
            fields=item.fields - disputed.get(item.identity, frozenset()),
        )
        for item in managers
    ]
    result: KubeObject = merged(live, config, list_keys)
    previous = next((item.fields for item in managers if item.identity == identity), frozenset())
    # A path counts as owned when another manager owns something below it.
    owned = _tree(path for other in other_managers for path in other.fields)
    result = without(result, [path for path in previous - fields if not _stands_in(owned, path)])
    _record(result, _with(managers, identity, api_version, fields))
    return result


def _tree(paths: Iterable[Path]) -> dict[str, Any]:
    """All prefixes of the paths, as a tree; a set would need a tuple for each level of each
    path.
    """
    root: dict[str, Any] = {}
    for path in paths:
        node = root
        for element in path:
            node = node.setdefault(element, {})
    return root


def _stands_in(tree: dict[str, Any], path: Path) -> bool:
    for element in path:
        if element not in tree:
            return False
        tree = tree[element]
    return True


def _contested(live: KubeObject, config: KubeObject, shared: FieldSet) -> FieldSet:
    find = Finder().value_at
    fields = (path for path in shared if path[-1][0] == "f")
    return frozenset(path for path in fields if find(live, path) != find(config, path))


def _conflict(disputed: list[tuple[Manager, FieldSet]]) -> status.StatusError:
    causes = []
    texts = []
    for manager, fields in disputed:
        using = f" using {manager.api_version}" if manager.api_version else ""
        paths = sorted(readable(path) for path in fields)
        causes += [
            {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{manager.name}"{using}',
                "field": path,
            }
            for path in paths
        ]
        place = f": {paths[0]}" if len(paths) == 1 else ":\n- " + "\n- ".join(paths)
        texts.append(f'conflict{"s" if len(paths) > 1 else ""} with "{manager.name}"{using}{place}')
    number = len(causes)
    message = f"Apply failed with {number} conflict{'s' if number > 1 else ''}: " + "\n".join(texts)
    return status.StatusError(status.status(409, "Conflict", message, {"causes": causes}))
