"""JSON patch and merge patch, RFC 6902 and RFC 7386; strategicmerge.py has the third kind.

All functions are pure: they return a new document, which may share parts with their arguments, and
do not change the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


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
