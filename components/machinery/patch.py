"""The three patches of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md).

All are pure: they return a new document and leave their arguments alone (parts may be shared with them)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def json_patch(document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """RFC 6902: all operations in order, or PatchError."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is an array of operations")
    for operation in operations:
        if not isinstance(operation, Mapping) or operation.get("op") not in _OPERATIONS:
            kind = operation.get("op") if isinstance(operation, Mapping) else operation
            raise PatchError(f"Unexpected kind: {kind}")
        document = _OPERATIONS[operation["op"]](document, operation)
    return document


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


def _index(token: str, length: int) -> int:
    # RFC 6901: digits without leading zeros.
    if not token.isdigit() or (token != "0" and token.startswith("0")):
        raise PatchError(f"invalid array index {token!r}")
    if int(token) > length:
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


def _change(document: Any, tokens: Sequence[str], leaf: Callable[[Any, str], Any]) -> Any:
    """The document with its container at tokens[:-1] replaced by leaf(container, tokens[-1])."""
    token, rest = tokens[0], tokens[1:]
    if not rest:
        if not isinstance(document, Mapping | list):
            raise PatchError(f"there is nothing at {token!r} to change: missing value")
        return leaf(document, token)
    child = _change(_read(document, [token]), rest, leaf)
    if isinstance(document, Mapping):
        return {**document, token: child}
    index = _index(token, len(document) - 1)
    return [*document[:index], child, *document[index + 1 :]]


def _put(value: Any) -> Callable[[Any, str], Any]:
    def leaf(container: Any, token: str) -> Any:
        if isinstance(container, Mapping):
            return {**container, token: value}
        index = len(container) if token == "-" else _index(token, len(container))
        return [*container[:index], value, *container[index:]]

    return leaf


def _drop(container: Any, token: str) -> Any:
    _read(container, [token])
    if isinstance(container, Mapping):
        return {key: value for key, value in container.items() if key != token}
    index = _index(token, len(container) - 1)
    return [*container[:index], *container[index + 1 :]]


def _set(value: Any) -> Callable[[Any, str], Any]:
    def leaf(container: Any, token: str) -> Any:
        _read(container, [token])
        if isinstance(container, Mapping):
            return {**container, token: value}
        index = _index(token, len(container) - 1)
        return [*container[:index], value, *container[index + 1 :]]

    return leaf


def _add(document: Any, operation: Mapping[str, Any]) -> Any:
    tokens, value = _tokens(operation), _value(operation)
    return _change(document, tokens, _put(value)) if tokens else value


def _remove(document: Any, operation: Mapping[str, Any]) -> Any:
    tokens = _tokens(operation)
    if not tokens:
        raise PatchError("remove operation does not apply to the whole document")
    return _change(document, tokens, _drop)


def _replace(document: Any, operation: Mapping[str, Any]) -> Any:
    tokens, value = _tokens(operation), _value(operation)
    return _change(document, tokens, _set(value)) if tokens else value


def _move(document: Any, operation: Mapping[str, Any]) -> Any:
    source, target = _tokens(operation, "from"), _tokens(operation)
    if source == target:
        return document
    if target[: len(source)] == source:
        raise PatchError("move operation into one of its own children")
    value = _read(document, source)
    document = _change(document, source, _drop)
    return _change(document, target, _put(value)) if target else value


def _copy(document: Any, operation: Mapping[str, Any]) -> Any:
    value = _read(document, _tokens(operation, "from"))
    target = _tokens(operation)
    return _change(document, target, _put(value)) if target else value


def _test(document: Any, operation: Mapping[str, Any]) -> Any:
    path, wanted = operation.get("path"), _value(operation)
    try:
        found = _read(document, _tokens(operation))
    except PatchError:
        # evanphx/json-patch: a missing value tests equal to null.
        found = None
    if not _equal(found, wanted):
        raise PatchTestFailed(f"testing value {path} failed: test failed")
    return document


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: Python's, but true is not 1."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


_OPERATIONS: dict[Any, Callable[[Any, Mapping[str, Any]], Any]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
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
    kept = set(patch[_RETAIN])
    if extra := [
        key for key, value in patch.items() if not key.startswith("$") and value is not None and key not in kept
    ]:
        raise PatchError(f"{_RETAIN} does not name {', '.join(sorted(extra))}, which the patch sets")
    return {key: value for key, value in result.items() if key in kept}


def _delete_primitives(result: dict[str, Any], name: str, gone: Any) -> None:
    if not isinstance(gone, list):
        raise PatchError(f"{_DELETE_PRIMITIVES}{name} must be a list")
    if isinstance(result.get(name), list):
        result[name] = [item for item in result[name] if item not in gone]


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
    if key == "set":
        merged = current + [
            item for index, item in enumerate(patch) if item not in current and item not in patch[:index]
        ]
    else:
        merged = _merge_maps(current, patch, key, merge_key, path)
    return _ordered(merged, current, order, key) if isinstance(order, list) else merged


def _merge_maps(
    current: list[Any], patch: list[Any], key: str, merge_key: MergeKey, path: tuple[str, ...]
) -> list[Any]:
    merged = list(current)
    for item in patch:
        if not isinstance(item, Mapping) or key not in item:
            raise PatchError(f"map: {item} does not contain declared merge key: {key}")
        found = [index for index, old in enumerate(merged) if isinstance(old, Mapping) and old.get(key) == item[key]]
        if item.get(_DIRECTIVE) == "delete":
            merged = [old for index, old in enumerate(merged) if index not in found]
        elif found:
            merged[found[0]] = strategic_merge(merged[found[0]], item, merge_key, path)
        else:
            merged.append(strategic_merge({}, item, merge_key, path))
    return merged


def _ordered(merged: list[Any], original: list[Any], order: Any, key: str | None) -> list[Any]:
    """Items the order names stand in that order; the others keep their place relative to the original."""
    if key is None or not isinstance(order, list) or not isinstance(merged, list):
        return merged

    def identity(item: Any) -> Any:
        return item.get(key) if isinstance(item, Mapping) else item

    wanted = [identity(item) for item in order]
    before = [identity(item) for item in original]
    named = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in merged if identity(item) not in wanted]
    result: list[Any] = []
    while named and others:
        known = identity(named[0]) in before and identity(others[0]) in before
        first = named if not known or before.index(identity(named[0])) < before.index(identity(others[0])) else others
        result.append(first.pop(0))
    return result + named + others


def _without_directives(value: Any) -> Any:
    """What a patch puts where nothing was: no directives, no nulls."""
    if isinstance(value, Mapping):
        return {
            key: _without_directives(item)
            for key, item in value.items()
            if item is not None and not key.startswith("$")
        }
    return [_without_directives(item) for item in value] if isinstance(value, list) else value
