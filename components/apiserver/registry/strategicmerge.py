"""Strategic merge patch: a merge patch that merges lists by key
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md).

The functions are pure: they return a new document, which may share parts with their arguments, and
do not change the arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kubewire.components.apiserver.registry.patch import PatchError

#: Returns, for the path of a list field (names only, no indexes), the key that merges its items,
#: "set" for a list of primitives that is merged as a set, or None for a list that is replaced.
MergeKey = Callable[[tuple[str, ...]], str | None]


class PatchFormatError(PatchError):
    """A directive of the patch has a wrong form, for which upstream answers 400."""


_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def strategic_merge(
    original: Mapping[str, Any],
    patch: Mapping[str, Any],
    merge_key: MergeKey,
    path: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A merge patch that merges lists by key; raises PatchError.

    Its directives are $patch (replace, delete, merge), $retainKeys, $setElementOrder/FIELD and
    $deleteFromPrimitiveList/FIELD.
    """
    directive = patch.get(_DIRECTIVE, "merge")
    if directive == "replace":
        replacement: dict[str, Any] = _without_directives(
            {key: value for key, value in patch.items() if key != _DIRECTIVE}
        )
        return replacement
    if directive == "delete":
        return {}
    if directive != "merge":
        raise PatchError(f"invalid patch directive: {directive!r}")
    result = _retained(dict(original), patch)
    for key, value in patch.items():
        if key.startswith(_DELETE_PRIMITIVES):
            _delete_primitives(result, key.removeprefix(_DELETE_PRIMITIVES), value)
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(result, key, value, patch.get(_ORDER + key), merge_key, (*path, key))
    for key, order in patch.items():
        # An order without a list to merge sorts the existing list.
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and name in result:
            result[name] = _ordered(result[name], result[name], order, merge_key((*path, name)))
    return result


def _retained(result: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    if _RETAIN not in patch:
        return result
    kept = patch[_RETAIN]
    given = [key for key, value in patch.items() if not key.startswith("$") and value is not None]
    if not isinstance(kept, list) or any(key not in kept for key in given):
        raise PatchFormatError("invalid patch format of retainKeys")
    return {key: value for key, value in result.items() if key in kept}


def _delete_primitives(result: dict[str, Any], name: str, gone: Any) -> None:
    if not isinstance(gone, list):
        raise PatchError(f"{_DELETE_PRIMITIVES}{name} must be a list")
    if isinstance(result.get(name), list):
        identities = {_identity(item) for item in gone}
        result[name] = [item for item in result[name] if _identity(item) not in identities]


def _identity(value: Any) -> bytes:
    """A text that is equal for equal JSON values.

    Lists are searched by it, because comparing each item with each other takes quadratic time.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _merge_field(
    result: dict[str, Any],
    key: str,
    value: Any,
    order: Any,
    merge_key: MergeKey,
    path: tuple[str, ...],
) -> None:
    current = result.get(key)
    if value is None:
        result.pop(key, None)
    elif isinstance(value, Mapping):
        if value.get(_DIRECTIVE) == "delete":
            result.pop(key, None)
        else:
            result[key] = strategic_merge(
                current if isinstance(current, Mapping) else {},
                value,
                merge_key,
                path,
            )
    elif isinstance(value, list):
        result[key] = _merge_list(
            current if isinstance(current, list) else [],
            value,
            order,
            merge_key,
            path,
        )
    else:
        result[key] = value


def _merge_list(
    current: list[Any], patch: list[Any], order: Any, merge_key: MergeKey, path: tuple[str, ...]
) -> list[Any]:
    key = merge_key(path)
    if any(isinstance(item, Mapping) and item.get(_DIRECTIVE) == "replace" for item in patch):
        # With an item {"$patch": "replace"} the other items are the whole new list.
        return [_without_directives(item) for item in patch if item != {_DIRECTIVE: "replace"}]
    match key:
        case None:
            return [_without_directives(item) for item in patch]
        case "set":
            merged = _with_new(current, patch)
        case _:
            merged = _merge_maps(current, patch, key, merge_key, path)
    merged = _ordered(merged, current, patch, key)
    if not isinstance(order, list):
        return merged
    _check_order(patch, order, key)
    return _ordered(merged, current, order, key)


def _check_order(patch: list[Any], order: list[Any], key: str) -> None:
    """Checks that the patch's items stand in the order, one after the other."""
    waiting = deque(_identities(order, key))
    kept = [item for item in patch if not (isinstance(item, Mapping) and _DIRECTIVE in item)]
    for identity in _identities(kept, key) if waiting else ():
        while waiting and waiting[0] != identity:
            waiting.popleft()
        if not waiting:
            raise PatchFormatError("invalid patch format of setElementOrder list")


def _identities(items: list[Any], key: str) -> list[bytes]:
    is_set = key == "set"
    return [
        _identity(item.get(key) if isinstance(item, Mapping) and not is_set else item)
        for item in items
    ]


def _with_new(current: list[Any], patch: list[Any]) -> list[Any]:
    """Merges a set: the present items, then the new ones of the patch."""
    merged = list(current)
    seen = {_identity(item) for item in current}
    for item in patch:
        if (identity := _identity(item)) not in seen:
            seen.add(identity)
            merged.append(item)
    return merged


def _merge_maps(
    current: list[Any], patch: list[Any], key: str, merge_key: MergeKey, path: tuple[str, ...]
) -> list[Any]:
    merged: list[Any] = list(current)
    places: dict[bytes, list[int]] = {}
    for index, old in enumerate(current):
        if isinstance(old, Mapping):
            places.setdefault(_identity(old.get(key)), []).append(index)
    for item in patch:
        if not isinstance(item, Mapping) or key not in item:
            raise PatchError(f"map: {item} does not contain declared merge key: {key}")
        identity = _identity(item[key])
        indexes = places.get(identity)
        if item.get(_DIRECTIVE) == "delete":
            for index in places.pop(identity, ()):
                merged[index] = _GONE
        elif indexes:
            merged[indexes[0]] = strategic_merge(merged[indexes[0]], item, merge_key, path)
        else:
            places[identity] = [len(merged)]
            merged.append(strategic_merge({}, item, merge_key, path))
    return [item for item in merged if item is not _GONE]


_GONE = object()


def _ordered(merged: list[Any], original: list[Any], order: Any, key: str | None) -> list[Any]:
    """Puts the items that the order names into that order.

    The other items keep their place relative to the original, and new ones come first: a list in
    a patch is the order, too (normalizeElementOrder of apimachinery).
    """
    if key is None or not isinstance(order, list) or not isinstance(merged, list):
        return merged

    def identity(item: Any) -> bytes:
        return _identity(item.get(key) if isinstance(item, Mapping) and key != "set" else item)

    wanted = _positions(_identities(order, key))
    before = _positions(_identities(original, key))
    named = deque(
        sorted(
            (item for item in merged if identity(item) in wanted),
            key=lambda item: wanted[identity(item)],
        )
    )
    unnamed = deque(item for item in merged if identity(item) not in wanted)
    result: list[Any] = []
    while named and unnamed:
        named_at = before.get(identity(named[0]))
        unnamed_at = before.get(identity(unnamed[0]))
        is_named_first = named_at is None or unnamed_at is None or named_at < unnamed_at
        first = named if is_named_first else unnamed
        result.append(first.popleft())
    return [*result, *named, *unnamed]


def _positions(identities: list[bytes]) -> dict[bytes, int]:
    """The first index of each identity."""
    return {identity: index for index, identity in reversed([*enumerate(identities)])}


def _without_directives(value: Any) -> Any:
    """The value without directives and nulls, for a place where nothing existed before."""
    if isinstance(value, Mapping):
        return {
            key: _without_directives(item)
            for key, item in value.items()
            if item is not None and not key.startswith("$")
        }
    return [_without_directives(item) for item in value] if isinstance(value, list) else value
