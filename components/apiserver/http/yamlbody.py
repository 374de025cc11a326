"""Reads YAML bodies as sigs.k8s.io/yaml does: into values of JSON.

A date therefore stays a string, and keys of maps are strings. The events of libyaml are processed
one by one, which bounds depth, values and aliases during reading and keeps every step short.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from kubewire.components.apiserver import bodies

_TAG = "tag:yaml.org,2002:"
#: How many values the aliases of a document may stand for. go-yaml allows 400,000 and has the same
#: text.
_MAX_ALIASED = 20_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """The document is not YAML, or contains what JSON cannot express."""


@dataclass
class _Open:
    """A collection whose end has not been read; key is a map's pending key and whether it
    merges.
    """

    value: Any
    anchor: str | None
    before: int
    key: tuple[str, bool] | None = None
    merged: list[Any] = field(default_factory=list)


def load(body: bytes) -> Any:
    """Reads the first document; raises YamlError, bodies.TooDeep and bodies.TooLarge."""
    return load_strictly(body)[0]


def load_strictly(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """Like load, with a text such as `line 3: key "a" already set in map` for each repeated key."""
    try:
        loader = _LOADER(body)
        try:
            document = _Document(loader)
            return document.read(), tuple(document.repeated)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from error
    except UnicodeDecodeError as error:
        raise YamlError("yaml: invalid UTF-8") from error


class _Document:
    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._stack: list[_Open] = []
        #: The value of each anchor, and how many values it contains.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self.repeated: list[str] = []
        #: The line of the scalar that was read last, counted from 1.
        self._line = 0
        self._values = 0
        self._aliased = 0
        self._root: Any = None

    def read(self) -> Any:
        while True:
            event = self._loader.get_event()
            if isinstance(event, yaml.StreamEndEvent | yaml.DocumentEndEvent):
                return self._root
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)

    def _count(self, number: int) -> None:
        self._values += number
        if self._values > bodies.MAX_VALUES:
            raise bodies.values_limit()

    def _scalar(self, event: Any) -> None:
        self._count(1)
        self._line = event.start_mark.line + 1
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        value = _construct(tag.removeprefix(_TAG), event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._add(value, merge=tag == f"{_TAG}merge")

    def _begin(self, event: Any) -> None:
        if len(self._stack) >= bodies.MAX_DEPTH:
            raise bodies.TooDeep(f"yaml: exceeded max depth of {bodies.MAX_DEPTH}")
        if self._wants_key():
            raise YamlError("yaml: a key of a map must be a scalar")
        self._count(1)
        empty: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        if event.anchor is not None:
            # The anchor cannot be used before the end of its collection.
            self._anchors.pop(event.anchor, None)
        self._stack.append(_Open(empty, event.anchor, self._values))

    def _end(self) -> None:
        done = self._stack.pop()
        for source in done.merged:
            # The map's own keys win over merged ones.
            for key, value in source.items():
                done.value.setdefault(key, value)
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._values - done.before + 1)
        self._add(done.value)

    def _alias(self, event: Any) -> None:
        if any(open_collection.anchor == event.anchor for open_collection in self._stack):
            raise YamlError(f"yaml: anchor '{event.anchor}' value contains itself")
        if event.anchor not in self._anchors:
            raise YamlError(f"yaml: unknown anchor '{event.anchor}' referenced")
        value, number = self._anchors[event.anchor]
        self._aliased += number
        if self._aliased > _MAX_ALIASED:
            raise YamlError("yaml: document contains excessive aliasing")
        self._count(number)
        if isinstance(value, dict | list):
            bodies.check_depth(value, bodies.MAX_DEPTH - len(self._stack))
        self._add(_copied(value))

    def _wants_key(self) -> bool:
        if not self._stack:
            return False
        top = self._stack[-1]
        return isinstance(top.value, dict) and top.key is None

    def _add(self, value: Any, *, merge: bool = False) -> None:
        if not self._stack:
            self._root = value
            return
        top = self._stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is None:
            name = _key(value)
            if name in top.value and not merge:
                self.repeated.append(f'line {self._line}: key "{name}" already set in map')
            top.key = (name, merge)
        else:
            name, merging = top.key
            top.key = None
            if merging:
                top.merged += _merge_sources(value)
            else:
                top.value[name] = value


def _merge_sources(value: Any) -> list[Any]:
    sources = value if isinstance(value, list) else [value]
    if not all(isinstance(source, dict) for source in sources):
        raise YamlError("yaml: map merge requires map or sequence of maps as the value")
    return sources


def _copied(value: Any) -> Any:
    """Copies a value so that no two places share it, because defaulting changes values in place."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _key(value: Any) -> str:
    """A key as JSON has it, a string: a bare `on:` is "true", `80:` is "80"."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise YamlError(f"yaml: unsupported map key {value!r}")


def _construct(tag: str, text: str) -> Any:
    make = _SCALARS.get(tag)
    if make is None:
        return text
    try:
        return make(text)
    except ValueError as error:
        raise YamlError(f"yaml: cannot decode !!{tag} `{text[:80]}`") from error


_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)")
#: Longer integers stay strings. Python refuses more than 4300 digits, and a double has at most
#: 309.
_MOST_DIGITS = 400


def _integer(text: str) -> int | float | str:
    # PyYAML's pattern also reads 1:30 as ninety, which go-yaml does not.
    if not _INTEGER.fullmatch(text) or len(text) > _MOST_DIGITS:
        return text
    digits = text.replace("_", "").lower()
    bare = digits.lstrip("+-")
    plain_base = 8 if bare.startswith("0") and bare != "0" else 10
    base = {"0b": 2, "0o": 8, "0x": 16}.get(bare[:2], plain_base)
    number = int(bare[2:] if bare[:2] in ("0b", "0o", "0x") else bare, base)
    number = -number if digits.startswith("-") else number
    # As in Go, a number that no integer type can hold becomes a float.
    return number if -(2**63) <= number < 2**64 else _finite(float(number))


def _float(text: str) -> float | str:
    if ":" in text:
        return text
    plain = text.replace("_", "").lower()
    if plain.endswith((".inf", ".nan")):
        raise YamlError(f"json: unsupported value: {plain}")
    return _finite(float(plain))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise YamlError("json: unsupported value: +Inf")
    return number


def _binary(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except binascii.Error as error:
        raise ValueError(text) from error


def _null(text: str) -> None:
    return None


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": _null,
    "bool": _boolean,
    "int": _integer,
    "float": _float,
    "binary": _binary,
}
