"""Sets of fields, as metadata.managedFields writes them (FieldsV1), and the merge of server-side
apply (https://kubernetes.io/docs/reference/using-api/server-side-apply/,
sigs.k8s.io/structured-merge-diff).

A path is a tuple of elements: "f:NAME" is a field, 'k:{"name":"x"}' an item of a keyed list, and
'v:"x"' an item of a set. A list without a merge key is a single value. All functions are pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from kubewire.components.kubeapi.resources import KubeObject

Path = tuple[str, ...]
#: Returns, for the path of a list field (names only), the keys that identify its items, () for a
#: set, or None for a single value.
ListKeys = Callable[[tuple[str, ...]], tuple[str, ...] | None]
FieldSet = frozenset[Path]
#: The id() of a list and the keys by which its items are found.
_ListIdentity = tuple[int, tuple[str, ...] | None]

#: No manager owns the fields that the server sets and those that name the object.
_UNOWNED = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp",
                "generation", "managedFields", "selfLink", "deletionTimestamp",
                "deletionGracePeriodSeconds",
            )
        ),
    }
)  # fmt: skip

#: Keys that are sorted at a time, which takes a few milliseconds.
_PART = 8192


def owned_fields(obj: KubeObject, list_keys: ListKeys) -> FieldSet:
    """Every field of an object that a manager can own."""
    fields: set[Path] = set()
    _collect(obj, (), (), list_keys, fields)
    return frozenset(path for path in fields if not _is_unowned(path))


def _is_unowned(path: Path) -> bool:
    return path[:2] in _UNOWNED or path[:1] in _UNOWNED


def _collect(value: Any, path: Path, names: Path, list_keys: ListKeys, fields: set[Path]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _collect(item, (*path, f"f:{key}"), (*names, key), list_keys, fields)
        return
    keys = list_keys(names) if isinstance(value, list) and value else None
    if keys is None:
        fields.add(path)
    elif not keys:
        fields.update((*path, value_element(item)) for item in value)
    else:
        for item in value:
            place = (*path, item_element(item, keys))
            fields.add(place)
            _collect(item, place, names, list_keys, fields)


#: Defaults of keys that may be omitted (x-kubernetes-list-map-keys with a default).
_KEY_DEFAULTS = {"protocol": "TCP"}


def item_element(item: Any, keys: tuple[str, ...]) -> str:
    return _keys_element({key: _key_value(item, key) for key in keys})


def _keys_element(values: dict[str, Any]) -> str:
    given = {key: value for key, value in values.items() if value is not None}
    return "k:" + orjson.dumps(given, option=orjson.OPT_SORT_KEYS).decode()


def _key_value(item: Any, key: str) -> Any:
    return item.get(key, _KEY_DEFAULTS.get(key)) if isinstance(item, dict) else None


def value_element(item: Any) -> str:
    return "v:" + orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()


def to_fields_v1(fields: Iterable[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in fields:
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_leaf_dots(root)


def _without_leaf_dots(node: dict[str, Any]) -> dict[str, Any]:
    # A leaf is {}, and "." says that a path with children is itself in the set.
    ordered: dict[str, Any] = {}
    for key in _in_order(list(node)):
        child = node[key]
        is_leaf = key == "." or set(child) == {"."}
        ordered[key] = {} if is_leaf else _without_leaf_dots(child)
    return ordered


def _in_order(keys: list[str]) -> Iterable[str]:
    """The sorted keys. A call of sorted() is one step that no other thread can interrupt, and it
    takes 40 ms for 100,000 keys, so many of them are sorted in parts.
    """
    parts = [sorted(keys[start : start + _PART]) for start in range(0, len(keys), _PART)]
    return parts[0] if len(parts) == 1 else heapq.merge(*parts)


def from_fields_v1(fields: dict[str, Any]) -> FieldSet:
    """Parses FieldsV1; raises ValueError when it is malformed."""
    paths: set[Path] = set()
    stack: list[tuple[Path, dict[str, Any]]] = [((), fields)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            raise ValueError(f"fieldsV1: {readable(path)} is not an object")
        if path:
            _check_element(path[-1])
        if not node and path:
            paths.add(path)
        for element, child in node.items():
            if element == ".":
                paths.add(path)
            else:
                stack.append(((*path, element), child or {}))
    return frozenset(paths)


_ELEMENT_VALUES: dict[str, type] = {"k": dict, "v": object, "i": int}


def _check_element(element: str) -> None:
    kind = element[:1]
    colon = element[1:2]
    rest = element[2:]
    if colon != ":" or kind not in ("f", "k", "v", "i"):
        raise ValueError(f"fieldsV1: {element!r} is not a path element")
    if kind != "f" and not isinstance(orjson.loads(rest), _ELEMENT_VALUES[kind]):
        raise ValueError(f"fieldsV1: {element!r} has the wrong value")


def readable(path: Path) -> str:
    """The path as conflicts name it: .spec.containers[name="web"].image"""
    text = ""
    for element in path:
        kind = element[0]
        rest = element[2:]
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = orjson.loads(rest).items()
            pairs = [f"{key}={orjson.dumps(value).decode()}" for key, value in keys]
            text += f"[{','.join(pairs)}]"
        else:
            text += f"[={rest}]"
    return text


MISSING = object()


class Finder:
    """Finds the items of lists by their elements.

    Each list is indexed once, so no list may change while the Finder is in use.
    """

    def __init__(self) -> None:
        #: The list is kept with its index, so that no other object gets its id().
        self._places: dict[_ListIdentity, tuple[list[Any], dict[str, int]]] = {}

    def value_at(self, obj: Any, path: Path) -> Any:
        """The value at a path, or MISSING."""
        for element in path:
            obj = self.step(obj, element)
            if obj is MISSING:
                return MISSING
        return obj

    def step(self, value: Any, element: str) -> Any:
        if element.startswith("f:"):
            return value.get(element[2:], MISSING) if isinstance(value, dict) else MISSING
        index = self.index(value, element)
        return MISSING if index is None else value[index]

    def index(self, items: Any, element: str) -> int | None:
        if not isinstance(items, list):
            return None
        wanted = orjson.loads(element[2:])
        if element[0] == "i":
            return wanted if 0 <= wanted < len(items) else None
        if element[0] == "v":
            return self._index(items, None).get(value_element(wanted))
        keys = tuple(sorted(wanted))
        return self._index(items, keys).get(_keys_element(wanted))

    def _index(self, items: list[Any], keys: tuple[str, ...] | None) -> dict[str, int]:
        known = self._places.get((id(items), keys))
        if known is None:
            known = self._places[id(items), keys] = (items, _places(items, keys))
        return known[1]


def _places(items: list[Any], keys: tuple[str, ...] | None) -> dict[str, int]:
    """The index of the first item of each element."""
    places: dict[str, int] = {}
    for index, item in enumerate(items):
        if keys is None:
            places.setdefault(value_element(item), index)
        elif isinstance(item, dict):
            places.setdefault(item_element(item, keys), index)
    return places


def value_at(obj: Any, path: Path) -> Any:
    """The value at a path, or MISSING."""
    return Finder().value_at(obj, path)


def without(obj: KubeObject, paths: Iterable[Path]) -> KubeObject:
    """A copy of obj without the values at these paths; containers that become empty are removed
    too.
    """
    gone: dict[str, Any] = {}
    for path in paths:
        node = gone
        for element in path:
            node = node.setdefault(element, {})
        node[_HERE] = True
    result: KubeObject = _without(obj, gone, Finder())
    return result


#: A key that is not an element, since these have a colon after their first letter.
_HERE = ""


def _without(value: Any, gone: dict[str, Any], finder: Finder) -> Any:
    if isinstance(value, dict):
        kept = ((key, _smaller(item, gone.get(f"f:{key}"), finder)) for key, item in value.items())
        return {key: item for key, item in kept if item is not MISSING}
    if isinstance(value, list):
        items_gone = {element: node for element, node in gone.items() if element[:1] in ("k", "v")}
        places = {finder.index(value, element): node for element, node in items_gone.items()}
        items = (_smaller(item, places.get(index), finder) for index, item in enumerate(value))
        return [item for item in items if item is not MISSING]
    return value


def _smaller(value: Any, gone: dict[str, Any] | None, finder: Finder) -> Any:
    if gone is None:
        return value
    if _HERE in gone:
        return MISSING
    smaller = _without(value, gone, finder)
    return MISSING if smaller in ({}, []) and value not in ({}, []) else smaller


def merged(live: Any, applied: Any, list_keys: ListKeys, names: Path = ()) -> Any:
    """Returns live with the fields and items that applied specifies."""
    if isinstance(live, dict) and isinstance(applied, dict):
        result = dict(live)
        for key, value in applied.items():
            if key in live:
                result[key] = merged(live[key], value, list_keys, (*names, key))
            else:
                result[key] = value
        return result
    if not (isinstance(live, list) and isinstance(applied, list)):
        return applied
    keys = list_keys(names)
    if keys is None:
        return applied
    places = _places(live, keys or None)
    result_items = list(live)
    for item in applied:
        element = item_element(item, keys) if keys else value_element(item)
        index = places.get(element)
        if index is None:
            places[element] = len(result_items)
            result_items.append(item)
        elif keys:
            result_items[index] = merged(result_items[index], item, list_keys, names)
    return result_items


def changed(new: KubeObject, old: KubeObject, list_keys: ListKeys) -> FieldSet:
    """The fields of new whose values differ from those of old."""
    find = Finder().value_at
    fields: set[Path] = set()
    for path in owned_fields(new, list_keys):
        before = find(old, path)
        if before is MISSING or (path[-1][0] == "f" and before != find(new, path)):
            fields.add(path)
    return frozenset(fields)
