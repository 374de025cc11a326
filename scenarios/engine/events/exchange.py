"""Writes the events of a run as lines of JSON and reads them (`kubewire run --events FILE`), so
that a run in a virtual machine can be followed from outside.

Both sides have read the same scenario files, so a case is written as its id and a lab as its lab
file. All other values are the dataclasses of results.py, field by field. The reader checks every
value against the declared type (TypeError, ValueError), because the virtual machine may have run
anything, and its output is not trusted.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from kubewire.scenarios.engine.events import results
from kubewire.scenarios.engine.events.results import Event, RunFinished, RunStarted
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.file.spec import LabSpec

_EVENTS = {kind.__name__: kind for kind in typing.get_args(results.Event)}


def encode(event: Event) -> str:
    """The event as one line of JSON."""
    return json.dumps({"event": type(event).__name__, "fields": _fields(event)})


def decode(line: str, cases: Mapping[str, Case]) -> Event:
    """The event in a line. cases: id -> case, for the cases that the event may concern. Raises
    LookupError, TypeError or ValueError for a malformed line or another case."""
    data = json.loads(line)
    event: Event = _Decoder(cases).build(_EVENTS[data["event"]], data["fields"])
    return event


class EventFile:
    """A renderer that writes events to a file. It leaves out the start and the end of the run,
    because the reader has its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        if not isinstance(event, RunStarted | RunFinished):
            self._stream.write(encode(event) + "\n")
            self._stream.flush()
            # A folder that a virtual machine shares with the host shows only synced data.
            os.fsync(self._stream.fileno())


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, Case):
        return value.id
    if isinstance(value, LabSpec):
        return value.as_dict()
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


class _Decoder:
    def __init__(self, cases: Mapping[str, Case]) -> None:
        self.cases = cases

    def build(self, kind: type, data: Any) -> Any:
        if not isinstance(data, dict):
            raise TypeError(f"not a {kind.__name__}: {data!r}")
        return kind(**{name: self.value(_hints(kind)[name], item) for name, item in data.items()})

    def value(self, hint: Any, data: Any) -> Any:
        origin = typing.get_origin(hint)
        arguments = typing.get_args(hint)
        if hint is Any:
            return data
        if origin in (typing.Union, types.UnionType):
            return self._either(arguments, data)
        if origin is typing.Literal:
            return self._one_of(arguments, data)
        if origin is tuple:
            return self._tuple(arguments, data)
        if origin is not None:  # Mapping
            return self._checked(dict, data)
        return self._single(hint, data)

    def _single(self, kind: type, data: Any) -> Any:
        if kind is Case:
            return self.cases[self._checked(str, data)]
        if kind is LabSpec:
            return LabSpec.parse(data)
        if kind is bytes:
            return base64.b64decode(self._checked(str, data), validate=True)
        if kind is Path:
            return Path(self._checked(str, data))
        if kind is float:
            return float(self._checked((int, float), data))
        if dataclasses.is_dataclass(kind):
            return self.build(kind, data)
        return self._checked(kind, data)

    def _either(self, kinds: tuple[Any, ...], data: Any) -> Any:
        if data is None and type(None) in kinds:
            return None
        (kind,) = (one for one in kinds if one is not type(None))
        return self.value(kind, data)

    @staticmethod
    def _one_of(choices: tuple[Any, ...], data: Any) -> Any:
        if data not in choices:
            raise ValueError(f"{data!r} is not one of {', '.join(map(str, choices))}")
        return data

    def _tuple(self, kinds: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
        items = self._checked(list, data)
        if kinds[1:] == (...,):
            return tuple(self.value(kinds[0], item) for item in items)
        return tuple(self.value(kind, item) for kind, item in zip(kinds, items, strict=True))

    @staticmethod
    def _checked(kind: Any, data: Any) -> Any:
        if not isinstance(data, kind):
            raise TypeError(f"{data!r} is not a {kind}")
        return data
