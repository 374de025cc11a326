"""The three patches of the Kubernetes API: JSON patch, merge patch and strategic merge patch.

The first two are RFC 6902 and RFC 7386; the third is described in
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md.
All functions are pure: they return a new document, which may share parts with their arguments, and
do not change the arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

#: Returns, for the path of a list field (names only, no indexes), the key that merges its items,
#: "set" for a list of primitives that is merged as a set, or None for a list that is replaced.
MergeKey = Callable[[tuple[str, ...]], str | None]


class PatchError(ValueError):
    """The patch is malformed or cannot be applied to this document."""


class PatchTestFailed(PatchError):
    """The test operation of a JSON patch failed."""


#: maxJSONPatchOperations of apiserver/pkg/endpoints/handlers.
MAX_OPERATIONS = 10_000
#: The bytes that `copy` may add in all (AccumulatedCopySizeLimit of evanphx/json-patch, set to the
#: limit of a body).
_MAX_COPIED = 3 * 1024 * 1024
#: The bytes that each value counts in addition to its text, roughly its size as a Python object.
_VALUE_SIZE = 32
_MAX_DEPTH = 200


def json_patch(document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """RFC 6902: applies all operations in order, or raises PatchError."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is an array of operations")
    patched = _JsonPatch(_copied(document))
    for operation in operations:
        patched.apply(operation)
    return patched.document


def _tokens(operation: Mapping[str, Any], member: str = "path") -> list[str]:
    pointer = operation.get(member)
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise PatchError(f"{operation.get('op')} operation has an invalid {member}: {pointer!r}")
    # RFC 6901, section 4: ~1 is replaced first, then ~0.
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _value(operation: Mapping[str, Any]) -> Any:
    if "value" not in operation:
        raise PatchError(f"{operation['op']} operation needs a value: {operation.get('path')}")
    return operation["value"]


#: Longer indexes are refused unread, because int() refuses more than 4300 digits.
_MOST_DIGITS = 18


def _index(token: str, length: int) -> int:
    # RFC 6901: an index is ASCII digits without leading zeros.
    if not (token.isascii() and token.isdigit()) or (token != "0" and token.startswith("0")):
        raise PatchError(f"invalid array index {token!r}")
    if len(token) > _MOST_DIGITS or int(token) > length:
        raise PatchError(f"Unable to access invalid index: {token}: invalid index referenced")
    return int(token)


def _read(document: Any, tokens: Sequence[str]) -> Any:
    for token in tokens:
        if isinstance(document, Mapping):
            if token not in document:
                raise PatchError(f"key {token!r} is missing: missing value")
            document = document[token]
        elif isinstance(document, list):
            index = _index(token, len(document) - 1)
            document = document[index]
        else:
            raise PatchError(f"there is nothing below {token!r}: missing value")
    return document


def _measure(value: Any) -> tuple[int, int]:
    """The approximate memory of a value in bytes, and the depth of its nesting."""
    size = 0
    depth = 0
    level = [value]
    while level:
        size += len(level) * _VALUE_SIZE + sum(len(item) for item in level if isinstance(item, str))
        collections = [item for item in level if isinstance(item, Mapping | list)]
        depth += bool(collections)
        level = []
        for item in collections:
            level += item.values() if isinstance(item, Mapping) else item
        if size > _MAX_COPIED or depth > _MAX_DEPTH:
            break
    return size, depth


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


class _JsonPatch:
    """A private copy of the document, changed in place by one operation after another."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self._added = 0

    def apply(self, operation: Any) -> None:
        kind = operation.get("op") if isinstance(operation, Mapping) else operation
        step = _OPERATIONS.get(kind) if isinstance(kind, str) else None
        if step is None or not isinstance(operation, Mapping):
            raise PatchError(f"Unexpected kind: {kind}")
        step(self, operation)

    def add(self, operation: Mapping[str, Any]) -> None:
        tokens = _tokens(operation)
        value = _value(operation)
        self._put(tokens, self._new(tokens, value))

    def remove(self, operation: Mapping[str, Any]) -> None:
        tokens = _tokens(operation)
        if not tokens:
            raise PatchError("remove operation does not apply to the whole document")
        self._take(tokens)

    def replace(self, operation: Mapping[str, Any]) -> None:
        tokens = _tokens(operation)
        value = _value(operation)
        new = self._new(tokens, value)
        if not tokens:
            self.document = new
            return
        container = self._container(tokens)
        token = tokens[-1]
        _read(container, [token])
        container[_index(token, len(container) - 1) if isinstance(container, list) else token] = new

    def move(self, operation: Mapping[str, Any]) -> None:
        source = _tokens(operation, "from")
        target = _tokens(operation)
        if source == target:
            return
        if target[: len(source)] == source:
            raise PatchError("move operation into one of its own children")
        self._put(target, self._take(source))

    def copy(self, operation: Mapping[str, Any]) -> None:
        value = _read(self.document, _tokens(operation, "from"))
        target = _tokens(operation)
        self._added += _measure(value)[0]
        if self._added > _MAX_COPIED:
            raise PatchError(
                "Unable to complete the copy, the accumulated size increase of copy is "
                f"{self._added}, "
                f"exceeding the limit {_MAX_COPIED}"
            )
        self._put(target, self._new(target, value))

    def test(self, operation: Mapping[str, Any]) -> None:
        path = operation.get("path")
        wanted = _value(operation)
        try:
            value = _read(self.document, _tokens(operation))
        except PatchError:
            # In evanphx/json-patch a missing value equals null.
            value = None
        if not _equal(value, wanted):
            raise PatchTestFailed(f"testing value {path} failed: test failed")

    def _new(self, tokens: Sequence[str], value: Any) -> Any:
        """A copy of a value that is put into the document, because later operations may change
        it.
        """
        if len(tokens) + _measure(value)[1] > _MAX_DEPTH:
            raise PatchError("exceeded max depth")
        return _copied(value)

    def _container(self, tokens: Sequence[str]) -> Any:
        container = _read(self.document, tokens[:-1])
        if not isinstance(container, dict | list):
            raise PatchError(f"there is nothing at {tokens[-1]!r} to change: missing value")
        return container

    def _put(self, tokens: Sequence[str], value: Any) -> None:
        if not tokens:
            self.document = value
            return
        container = self._container(tokens)
        token = tokens[-1]
        if isinstance(container, dict):
            container[token] = value
        else:
            container.insert(
                len(container) if token == "-" else _index(token, len(container)),
                value,
            )

    def _take(self, tokens: Sequence[str]) -> Any:
        if not tokens:
            return self.document
        container = self._container(tokens)
        token = tokens[-1]
        value = _read(container, [token])
        del container[_index(token, len(container) - 1) if isinstance(container, list) else token]
        return value


def _equal(left: Any, right: Any) -> bool:
    """JSON equality, which differs from Python's in that true is not 1."""
    waiting = [(left, right)]
    while waiting:
        first, second = waiting.pop()
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            if first.keys() != second.keys():
                return False
            waiting += [(first[key], second[key]) for key in first]
        elif isinstance(first, list) and isinstance(second, list):
            if len(first) != len(second):
                return False
            waiting += zip(first, second, strict=True)
        elif isinstance(first, bool) != isinstance(second, bool) or first != second:
            return False
    return True


_OPERATIONS: dict[str, Callable[[_JsonPatch, Mapping[str, Any]], None]] = {
    "add": _JsonPatch.add,
    "remove": _JsonPatch.remove,
    "replace": _JsonPatch.replace,
    "move": _JsonPatch.move,
    "copy": _JsonPatch.copy,
    "test": _JsonPatch.test,
}


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
    if not isinstance(kept, list) or not all(isinstance(key, str) for key in kept):
        raise PatchError(f"{_RETAIN} must be a list of strings")
    given = [key for key, value in patch.items() if not key.startswith("$") and value is not None]
    if extra := [key for key in given if key not in kept]:
        raise PatchError(
            f"{_RETAIN} does not name {', '.join(sorted(extra))}, which the patch sets",
        )
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
    return _ordered(merged, current, order, key) if isinstance(order, list) else merged


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

    The other items keep their place relative to the original.
    """
    if key is None or not isinstance(order, list) or not isinstance(merged, list):
        return merged

    def identity(item: Any) -> bytes:
        return _identity(item.get(key) if isinstance(item, Mapping) and key != "set" else item)

    wanted = _positions([identity(item) for item in order])
    before = _positions([identity(item) for item in original])
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
