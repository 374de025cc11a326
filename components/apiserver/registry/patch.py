"""The three patches of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md).

All are pure: they return a new document and leave their arguments alone (parts may be shared with them)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

#: Path of a list field (names only, no indexes) -> the key that merges its items, "set" for a list of
#: primitives that is merged as a set, None for a list that is replaced.
MergeKey = Callable[[tuple[str, ...]], str | None]


class PatchError(ValueError):
    """A patch that is malformed or cannot be applied to this document."""


class PatchTestFailed(PatchError):
    """A JSON patch `test` operation that did not hold."""


# --- RFC 7386


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


# --- RFC 6902

#: apiserver/pkg/endpoints/handlers' maxJSONPatchOperations.
MAX_OPERATIONS = 10_000
#: What `copy` may add in all, in bytes (evanphx/json-patch's AccumulatedCopySizeLimit, set to the limit of a body).
_MAX_COPIED = 3 * 1024 * 1024
#: What one value counts beside its text: about what it takes as a Python object.
_VALUE_SIZE = 32
_MAX_DEPTH = 200


def json_patch(document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """RFC 6902: all operations in order, or PatchError."""
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
    # RFC 6901, section 4: ~1 first, then ~0.
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _value(operation: Mapping[str, Any]) -> Any:
    if "value" not in operation:
        raise PatchError(f"{operation['op']} operation needs a value: {operation.get('path')}")
    return operation["value"]


#: Digits of the longest index that is looked at: Python refuses to read a number of more than 4300.
_MOST_DIGITS = 18


def _index(token: str, length: int) -> int:
    # RFC 6901: ASCII digits without leading zeros.
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
    """How much memory a value takes, about, and how deep it is nested."""
    size, depth, level = 0, 0, [value]
    while level:
        size += len(level) * _VALUE_SIZE + sum(len(one) for one in level if isinstance(one, str))
        collections = [one for one in level if isinstance(one, Mapping | list)]
        depth += bool(collections)
        level = [inner for one in collections for inner in (one.values() if isinstance(one, Mapping) else one)]
        if size > _MAX_COPIED or depth > _MAX_DEPTH:
            break
    return size, depth


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


class _JsonPatch:
    """A document of its own, changed in place by one operation after the other."""

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
        tokens, value = _tokens(operation), _value(operation)
        self._put(tokens, self._new(tokens, value))

    def remove(self, operation: Mapping[str, Any]) -> None:
        tokens = _tokens(operation)
        if not tokens:
            raise PatchError("remove operation does not apply to the whole document")
        self._take(tokens)

    def replace(self, operation: Mapping[str, Any]) -> None:
        tokens, value = _tokens(operation), _value(operation)
        new = self._new(tokens, value)
        if not tokens:
            self.document = new
            return
        container, token = self._container(tokens), tokens[-1]
        _read(container, [token])
        container[_index(token, len(container) - 1) if isinstance(container, list) else token] = new

    def move(self, operation: Mapping[str, Any]) -> None:
        source, target = _tokens(operation, "from"), _tokens(operation)
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
                f"Unable to complete the copy, the accumulated size increase of copy is {self._added}, "
                f"exceeding the limit {_MAX_COPIED}"
            )
        self._put(target, self._new(target, value))

    def test(self, operation: Mapping[str, Any]) -> None:
        path, wanted = operation.get("path"), _value(operation)
        try:
            found = _read(self.document, _tokens(operation))
        except PatchError:
            # evanphx/json-patch: a missing value tests equal to null.
            found = None
        if not _equal(found, wanted):
            raise PatchTestFailed(f"testing value {path} failed: test failed")

    def _new(self, tokens: Sequence[str], value: Any) -> Any:
        """A copy to be put at a path: later operations may change it."""
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
        container, token = self._container(tokens), tokens[-1]
        if isinstance(container, dict):
            container[token] = value
        else:
            container.insert(len(container) if token == "-" else _index(token, len(container)), value)

    def _take(self, tokens: Sequence[str]) -> Any:
        if not tokens:
            return self.document
        container, token = self._container(tokens), tokens[-1]
        value = _read(container, [token])
        del container[_index(token, len(container) - 1) if isinstance(container, list) else token]
        return value


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: Python's, but true is not 1."""
    waiting = [(left, right)]
    while waiting:
        one, other = waiting.pop()
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if one.keys() != other.keys():
                return False
            waiting += [(one[key], other[key]) for key in one]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            waiting += zip(one, other, strict=True)
        elif isinstance(one, bool) != isinstance(other, bool) or one != other:
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

# --- strategic merge

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def strategic_merge(
    original: Mapping[str, Any], patch: Mapping[str, Any], merge_key: MergeKey, path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A merge patch whose lists merge by key. Directives: $patch (replace, delete, merge), $retainKeys,
    $setElementOrder/FIELD, $deleteFromPrimitiveList/FIELD. Raises PatchError."""
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
        # An order alone, without a list to merge, sorts what is there.
        if key.startswith(_ORDER) and (name := key.removeprefix(_ORDER)) not in patch and name in result:
            result[name] = _ordered(result[name], result[name], order, merge_key((*path, name)))
    return result


def _retained(result: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    if _RETAIN not in patch:
        return result
    kept = patch[_RETAIN]
    if not isinstance(kept, list) or not all(isinstance(key, str) for key in kept):
        raise PatchError(f"{_RETAIN} must be a list of strings")
    if extra := [
        key for key, value in patch.items() if not key.startswith("$") and value is not None and key not in kept
    ]:
        raise PatchError(f"{_RETAIN} does not name {', '.join(sorted(extra))}, which the patch sets")
    return {key: value for key, value in result.items() if key in kept}


def _delete_primitives(result: dict[str, Any], name: str, gone: Any) -> None:
    if not isinstance(gone, list):
        raise PatchError(f"{_DELETE_PRIMITIVES}{name} must be a list")
    if isinstance(result.get(name), list):
        identities = {_identity(item) for item in gone}
        result[name] = [item for item in result[name] if _identity(item) not in identities]


def _identity(value: Any) -> bytes:
    """Equal values of JSON have equal texts. Lists are searched by it: comparing each with each takes too long."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _merge_field(
    result: dict[str, Any], key: str, value: Any, order: Any, merge_key: MergeKey, path: tuple[str, ...]
) -> None:
    current = result.get(key)
    if value is None:
        result.pop(key, None)
    elif isinstance(value, Mapping):
        if value.get(_DIRECTIVE) == "delete":
            result.pop(key, None)
        else:
            result[key] = strategic_merge(current if isinstance(current, Mapping) else {}, value, merge_key, path)
    elif isinstance(value, list):
        result[key] = _merge_list(current if isinstance(current, list) else [], value, order, merge_key, path)
    else:
        result[key] = value


def _merge_list(
    current: list[Any], patch: list[Any], order: Any, merge_key: MergeKey, path: tuple[str, ...]
) -> list[Any]:
    key = merge_key(path)
    if any(isinstance(item, Mapping) and item.get(_DIRECTIVE) == "replace" for item in patch):
        # {"$patch": "replace"} as an item: the rest is the whole list.
        return [_without_directives(item) for item in patch if item != {_DIRECTIVE: "replace"}]
    if key is None:
        return [_without_directives(item) for item in patch]
    merged = _with_new(current, patch) if key == "set" else _merge_maps(current, patch, key, merge_key, path)
    return _ordered(merged, current, order, key) if isinstance(order, list) else merged


def _with_new(current: list[Any], patch: list[Any]) -> list[Any]:
    """A set merged: what is there, and of the patch what is not."""
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
        found = places.get(identity)
        if item.get(_DIRECTIVE) == "delete":
            for index in places.pop(identity, ()):
                merged[index] = _GONE
        elif found:
            merged[found[0]] = strategic_merge(merged[found[0]], item, merge_key, path)
        else:
            places[identity] = [len(merged)]
            merged.append(strategic_merge({}, item, merge_key, path))
    return [item for item in merged if item is not _GONE]


_GONE = object()


def _ordered(merged: list[Any], original: list[Any], order: Any, key: str | None) -> list[Any]:
    """Items the order names stand in that order; the others keep their place relative to the original."""
    if key is None or not isinstance(order, list) or not isinstance(merged, list):
        return merged

    def identity(item: Any) -> bytes:
        return _identity(item.get(key) if isinstance(item, Mapping) and key != "set" else item)

    wanted = _positions([identity(item) for item in order])
    before = _positions([identity(item) for item in original])
    named = deque(
        sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted[identity(item)])
    )
    others = deque(item for item in merged if identity(item) not in wanted)
    result: list[Any] = []
    while named and others:
        ours, theirs = before.get(identity(named[0])), before.get(identity(others[0]))
        first = named if ours is None or theirs is None or ours < theirs else others
        result.append(first.popleft())
    return [*result, *named, *others]


def _positions(identities: list[bytes]) -> dict[bytes, int]:
    """Where each stands first."""
    return {identity: index for index, identity in reversed([*enumerate(identities)])}


def _without_directives(value: Any) -> Any:
    """What a patch puts where nothing was: no directives, no nulls."""
    if isinstance(value, Mapping):
        return {
            key: _without_directives(item)
            for key, item in value.items()
            if item is not None and not key.startswith("$")
        }
    return [_without_directives(item) for item in value] if isinstance(value, list) else value
