"""Sets of fields, as metadata.managedFields writes them (FieldsV1), and the merge of server-side apply
(https://kubernetes.io/docs/reference/using-api/server-side-apply/, sigs.k8s.io/structured-merge-diff).

A path is a tuple of elements: "f:NAME" a field, 'k:{"name":"x"}' an item of a keyed list, 'v:"x"' an item of
a set. Lists without a merge key are one value. All functions are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from components.machinery.resources import KubeObject

Path = tuple[str, ...]
#: Path of a list field (names only) -> the keys that identify its items, () for a set, None for one value.
ListKeys = Callable[[tuple[str, ...]], tuple[str, ...] | None]
FieldSet = frozenset[Path]

#: Nobody owns what the server gives or what names the object.
_UNOWNED = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation",
                "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds",
            )
        ),
    }
)  # fmt: skip


def owned_fields(obj: KubeObject, list_keys: ListKeys) -> FieldSet:
    """Every field of an object that a manager can own."""
    found: set[Path] = set()
    _collect(obj, (), (), list_keys, found)
    return frozenset(path for path in found if path[:2] not in _UNOWNED and path[:1] not in _UNOWNED)


def _collect(value: Any, path: Path, names: Path, list_keys: ListKeys, found: set[Path]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _collect(item, (*path, f"f:{key}"), (*names, key), list_keys, found)
        return
    keys = list_keys(names) if isinstance(value, list) and value else None
    if keys is None:
        found.add(path)
    elif not keys:
        found.update((*path, value_element(item)) for item in value)
    else:
        for item in value:
            place = (*path, item_element(item, keys))
            found.add(place)
            _collect(item, place, names, list_keys, found)


#: Keys whose default stands for them when they are left out (x-kubernetes-list-map-keys with a default).
_KEY_DEFAULTS = {"protocol": "TCP"}


def item_element(item: Any, keys: tuple[str, ...]) -> str:
    values = {key: _key_value(item, key) for key in sorted(keys)}
    return "k:" + orjson.dumps({key: value for key, value in values.items() if value is not None}).decode()


def _key_value(item: Any, key: str) -> Any:
    return item.get(key, _KEY_DEFAULTS.get(key)) if isinstance(item, dict) else None


def value_element(item: Any) -> str:
    return "v:" + orjson.dumps(item).decode()


# --- FieldsV1


def to_fields_v1(fields: Iterable[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_leaf_dots(root)


def _without_leaf_dots(node: dict[str, Any]) -> dict[str, Any]:
    # A leaf is {}; "." only says that a path with children is itself in the set.
    return {
        key: {} if set(child) == {"."} else _without_leaf_dots(child) if key != "." else {}
        for key, child in node.items()
    }


def from_fields_v1(fields: dict[str, Any]) -> FieldSet:
    found: set[Path] = set()
    stack: list[tuple[Path, dict[str, Any]]] = [((), fields)]
    while stack:
        path, node = stack.pop()
        if not node and path:
            found.add(path)
        for element, child in node.items():
            if element == ".":
                found.add(path)
            else:
                stack.append(((*path, element), child or {}))
    return frozenset(found)


def readable(path: Path) -> str:
    """As conflicts name it: .spec.containers[name="web"].image"""
    text = ""
    for element in path:
        kind, rest = element[0], element[2:]
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            pairs = ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in orjson.loads(rest).items())
            text += f"[{pairs}]"
        else:
            text += f"[={rest}]"
    return text


# --- values at paths

MISSING = object()


def value_at(obj: Any, path: Path) -> Any:
    """The value, or MISSING."""
    for element in path:
        obj = _step(obj, element)
        if obj is MISSING:
            return MISSING
    return obj


def _step(value: Any, element: str) -> Any:
    if element.startswith("f:"):
        return value.get(element[2:], MISSING) if isinstance(value, dict) else MISSING
    index = _index(value, element)
    return MISSING if index is None else value[index]


def _index(items: Any, element: str) -> int | None:
    if not isinstance(items, list):
        return None
    wanted = orjson.loads(element[2:])
    for index, item in enumerate(items):
        if element[0] == "v" and item == wanted:
            return index
        if (
            element[0] == "k"
            and isinstance(item, dict)
            and all(_key_value(item, key) == val for key, val in wanted.items())
        ):
            return index
    return None


def without(obj: KubeObject, path: Path) -> KubeObject:
    """A copy of obj without what stands at a path; what becomes empty by it goes too."""
    element, rest = path[0], path[1:]
    child = _step(obj, element)
    if child is MISSING:
        return obj
    smaller = without(child, rest) if rest else MISSING
    gone = smaller is MISSING or (smaller in ({}, []) and child not in ({}, []))
    if isinstance(obj, dict):
        kept = {key: value for key, value in obj.items() if f"f:{key}" != element}
        return kept if gone else {**obj, element[2:]: smaller}
    index = _index(obj, element)
    return [item for at, item in enumerate(obj) if at != index] if gone else [
        smaller if at == index else item for at, item in enumerate(obj)
    ]  # fmt: skip


def merged(live: Any, applied: Any, list_keys: ListKeys, names: Path = ()) -> Any:
    """live with everything applied says."""
    if isinstance(live, dict) and isinstance(applied, dict):
        result = dict(live)
        for key, value in applied.items():
            result[key] = merged(live[key], value, list_keys, (*names, key)) if key in live else value
        return result
    if not (isinstance(live, list) and isinstance(applied, list)):
        return applied
    keys = list_keys(names)
    if keys is None:
        return applied
    if not keys:
        return live + [item for item in applied if item not in live]
    result_items = list(live)
    for item in applied:
        index = _index(result_items, item_element(item, keys))
        if index is None:
            result_items.append(item)
        else:
            result_items[index] = merged(result_items[index], item, list_keys, names)
    return result_items


def changed(new: KubeObject, old: KubeObject, list_keys: ListKeys) -> FieldSet:
    """Fields of new whose value is not that of old."""
    fields = owned_fields(new, list_keys)
    return frozenset(
        path
        for path in fields
        if (before := value_at(old, path)) is MISSING or (path[-1][0] == "f" and before != value_at(new, path))
    )
