"""The form in which the server keeps an object: what Go would make of its JSON and write again.

A client may say the same thing in many ways. `cpu: 0.1` is `cpu: 100m`, `hostPID: false` and
`command: []` are the same as nothing, and a time may be in any zone. Upstream decodes every body
into Go's types and encodes these, so its objects have one form only, and a write that says the
same again changes nothing. decode() and complete() do the same from models.json:

- decode() checks the types and drops what the type does not have, nulls, and the zero values that
  Go omits.
- complete() adds the fields that Go always writes. It comes after the defaults, which add objects.

Both compile what they have to do with each type on first use, because every write runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from kubewire.components.apiserver.openapi.decoding import (
    SUBSCHEMAS,
    ZERO,
    bytes_error,
    int_or_string_error,
    object_error,
    quantity_error,
    time_error,
)
from kubewire.components.apiserver.openapi.models import (
    OBJECT_META,
    Model,
    all_models,
    of_kind,
    referenced,
)
from kubewire.components.kubeapi.quantity import canonical_quantity
from kubewire.components.kubeapi.resources import KubeObject


@dataclass(frozen=True)
class Decoded:
    """error is Go's text for the first value that does not fit, unknown the paths of fields that
    the type does not have.
    """

    error: str = ""
    unknown: tuple[str, ...] = ()


def decode(obj: KubeObject, group: str, version: str, kind: str) -> Decoded:
    """Brings an object of a built-in kind into its canonical form, in place."""
    model = of_kind(group, version, kind)
    return Decoded() if model is None else _decoded(obj, model, "")


def is_registered(api_version: str, kind: str) -> bool:
    """Whether there is a built-in kind of this name."""
    group, _, version = api_version.rpartition("/")
    return of_kind(group, version, kind) is not None


def decode_metadata(metadata: Any) -> Decoded:
    """Like decode, for the metadata of an object of any kind."""
    model = all_models()[OBJECT_META]
    if not isinstance(metadata, dict):
        return Decoded(object_error({"metadata": metadata}, _HOLDER, ""))
    return _decoded(metadata, model, "metadata")


def _decoded(obj: dict[str, Any], model: Model, prefix: str) -> Decoded:
    unknown: list[str] = []
    try:
        _decoder(model.name).into(obj, unknown)
    except _Unfit:
        # The walk changes nothing that the slower one, which knows the texts, would find.
        return Decoded(object_error(obj, model, prefix))
    paths = (f"{prefix}.{path}" if prefix else path for path in unknown)
    return Decoded("", tuple(paths))


class _Unfit(Exception):
    """A value has another type than Go's."""


#: What a step returns for a value that Go omits.
_OMITTED: Any = object()

#: Brings one value into its canonical form. Paths of unknown fields are added to the list.
Step = Callable[[Any, list[str]], Any]


@dataclass
class _Decoder:
    """The steps for the fields of a type."""

    #: Texts and booleans, the most frequent ones: their Python type, and whether a zero is omitted.
    plain: dict[str, tuple[type, bool]] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def into(self, obj: Any, unknown: list[str]) -> Any:
        if type(obj) is not dict:
            raise _Unfit
        plain = self.plain
        steps = self.steps
        gone = []
        for key, value in obj.items():
            known = plain.get(key)
            if known is not None:
                if value is None or (not value and known[1] and type(value) is known[0]):
                    gone.append(key)
                elif type(value) is not known[0]:
                    raise _Unfit
                continue
            step = steps.get(key)
            if step is None:
                unknown.append(key)
                gone.append(key)
            elif value is None:
                gone.append(key)
            else:
                before = len(unknown)
                new = step(value, unknown)
                if len(unknown) != before:
                    unknown[before:] = [_joined(key, path) for path in unknown[before:]]
                if new is _OMITTED:
                    gone.append(key)
                elif new is not value:
                    obj[key] = new
        for key in gone:
            del obj[key]
        return obj


def _joined(key: str, path: str) -> str:
    return key + path if path.startswith("[") else f"{key}.{path}"


_PLAIN: dict[str, type] = {"s": str, "b": bool}


@cache
def _decoder(name: str) -> _Decoder:
    model = all_models()[name]
    decoder = _Decoder()
    for key, kind in model.fields.items():
        omits = key not in model.always and key not in model.pointers
        if kind in _PLAIN:
            decoder.plain[key] = (_PLAIN[kind], omits)
        elif kind == "o" and key in SUBSCHEMAS and model.short == "JSONSchemaProps":
            decoder.steps[key] = _subschema(key, name)
        else:
            decoder.steps[key] = _field_step(kind, omits)
    return decoder


def _field_step(kind: str, omits: bool) -> Step:
    step = _step(kind)
    if kind[0] in "[{":
        # Storage is in protobuf, which cannot tell an empty list from none.
        return lambda value, unknown: step(value, unknown) or _OMITTED
    if not omits or kind[0] == "#":
        return step

    def omitting(value: Any, unknown: list[str]) -> Any:
        new = step(value, unknown)
        return _OMITTED if new in _ZEROS else new

    return omitting if kind in _WITH_ZERO else step


#: The zero values of numbers, bytes and times.
_ZEROS = (0, "", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z")
_WITH_ZERO = frozenset("ilnytu")


def _step(kind: str) -> Step:
    """The step for a type as models.py writes it."""
    match kind[0]:
        case "#":
            return _object(kind[1:])
        case "[":
            return _list(kind[1:])
        case "{":
            return _map(kind[1:])
    return _SCALARS[kind]


def _object(name: str) -> Step:
    # Types refer to each other in circles, so a decoder is looked up only when it is needed.
    return lambda value, unknown: _decoder(name).into(value, unknown)


def _list(kind: str) -> Step:
    step = _step(kind)
    zero = ZERO.get(kind[0], dict)

    def items(value: Any, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise _Unfit
        for index, item in enumerate(value):
            before = len(unknown)
            new = zero() if item is None else step(item, unknown)
            if new is not item:
                value[index] = new
            if len(unknown) != before:
                unknown[before:] = [_joined(f"[{index}]", path) for path in unknown[before:]]
        return value

    return items


def _map(kind: str) -> Step:
    step = _step(kind)
    zero = ZERO.get(kind[0], dict)

    def entries(value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _Unfit
        for key, item in value.items():
            before = len(unknown)
            new = zero() if item is None else step(item, unknown)
            if new is not item:
                value[key] = new
            if len(unknown) != before:
                unknown[before:] = [_joined(key, path) for path in unknown[before:]]
        return value

    return entries


def _subschema(key: str, name: str) -> Step:
    """A JSONSchemaPropsOrArray or JSONSchemaPropsOrBool."""

    def either(value: Any, unknown: list[str]) -> Any:
        if type(value) is dict:
            return _decoder(name).into(value, unknown)
        if key == "items" and type(value) is list:
            return _list(f"#{name}")(value, unknown)
        if key == "items" or type(value) is not bool:
            raise _Unfit
        return value

    return either


def _text(value: Any, unknown: list[str]) -> Any:
    if type(value) is not str:
        raise _Unfit
    return value


def _boolean(value: Any, unknown: list[str]) -> Any:
    if type(value) is not bool:
        raise _Unfit
    return value


def _int32(value: Any, unknown: list[str]) -> Any:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise _Unfit
    return value


def _int64(value: Any, unknown: list[str]) -> Any:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _Unfit
    return value


#: Whole numbers up to here are written as such, not as 1e+21.
_MOST_WHOLE = 2**53


def _number(value: Any, unknown: list[str]) -> Any:
    if type(value) is float:
        return int(value) if value.is_integer() and abs(value) < _MOST_WHOLE else value
    if type(value) is not int:
        raise _Unfit
    return value


def _int_or_string(value: Any, unknown: list[str]) -> Any:
    if int_or_string_error(value):
        raise _Unfit
    return value


def _bytes(value: Any, unknown: list[str]) -> Any:
    if type(value) is not str or bytes_error(value):
        raise _Unfit
    if "\n" in value or "\r" in value:
        return value.replace("\n", "").replace("\r", "")
    return value


def _quantity(value: Any, unknown: list[str]) -> Any:
    if quantity_error(value):
        raise _Unfit
    return canonical_quantity(value)


#: The length of a time with seconds in UTC, and of one with microseconds.
_SECONDS = len("2006-01-02T15:04:05Z")
_MICROSECONDS = len("2006-01-02T15:04:05.000000Z")


def _time(value: Any, unknown: list[str]) -> Any:
    if time_error(value):
        raise _Unfit
    return value if _is_utc(value, _SECONDS) else in_utc(value, "seconds")


def _micro_time(value: Any, unknown: list[str]) -> Any:
    if time_error(value):
        raise _Unfit
    return value if _is_utc(value, _MICROSECONDS) else in_utc(value, "microseconds")


def _is_utc(value: str, length: int) -> bool:
    return len(value) == length and value.endswith("Z")


def in_utc(value: str, precision: str) -> str:
    """A time in UTC, as Go writes it; a part of a second that does not fit is cut off."""
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError:
        # In UTC it is before the year 1 or after 9999, which Go does not write either.
        return value
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _anything(value: Any, unknown: list[str]) -> Any:
    return value


_SCALARS: dict[str, Step] = {
    "s": _text,
    "b": _boolean,
    "i": _int32,
    "l": _int64,
    "n": _number,
    "x": _int_or_string,
    "y": _bytes,
    "q": _quantity,
    "t": _time,
    "u": _micro_time,
    "o": _anything,
}

#: Stands for an object whose metadata is no object, of which Go's text names only the field.
_HOLDER = Model("v1.", {"metadata": f"#{OBJECT_META}"})


def complete(obj: KubeObject, group: str, version: str, kind: str) -> None:
    """Adds, in place, the fields that Go writes even when they are zero."""
    model = of_kind(group, version, kind)
    if model is not None:
        _completer(model.name).into(obj)


#: What a field that is always written has when nothing is in it; others have null.
_WRITTEN: dict[str, Any] = {"s": "", "b": False, "i": 0, "l": 0, "n": 0, "q": "0", "x": 0}


@dataclass
class _Completer:
    """What is to be added to an object of a type, and where to look further."""

    values: list[tuple[str, Any]] = field(default_factory=list)
    structs: list[str] = field(default_factory=list)
    #: By field: its type's first letter, and the completer of what is in it.
    inside: dict[str, tuple[str, _Completer]] = field(default_factory=dict)

    def into(self, obj: dict[str, Any]) -> None:
        for key, value in self.values:
            if key not in obj:
                obj[key] = value
        for key in self.structs:
            if obj.get(key) is None:
                obj[key] = {}
        inside = self.inside
        for key, value in obj.items():
            found = inside.get(key)
            if found is None or value is None:
                continue
            kind, completer = found
            if kind == "#":
                completer.into(value)
            else:
                for item in value.values() if kind == "{" else value:
                    completer.into(item)


@cache
def _concerned() -> frozenset[str]:
    """The types in which something can be missing, directly or further inside."""
    users: dict[str, list[str]] = {}
    models = all_models()
    for name, model in models.items():
        for kind in model.fields.values():
            # Most fields are scalars, whose types are one letter.
            if len(kind) > 1 and (inner := referenced(kind)) is not None:
                users.setdefault(inner.name, []).append(name)
    concerned = {name for name, model in models.items() if model.always}
    waiting = list(concerned)
    while waiting:
        more = set(users.get(waiting.pop(), ())) - concerned
        concerned |= more
        waiting += more
    return frozenset(concerned)


#: The completers in use.
_COMPLETERS: dict[str, _Completer] = {}


def _completer(name: str) -> _Completer:
    if name not in _COMPLETERS:
        # Other threads must see none that is not finished, so all are entered together.
        made: dict[str, _Completer] = {}
        _make(name, made)
        _COMPLETERS.update(made)
    return _COMPLETERS[name]


def _make(name: str, made: dict[str, _Completer]) -> _Completer:
    """The completer of a type; those that do not exist yet are added to made."""
    known = _COMPLETERS.get(name) or made.get(name)
    if known is None:
        # Types refer to each other in circles, so it is entered before its fields are.
        known = made[name] = _Completer()
        _compile(known, all_models()[name], made)
    return known


def _compile(completer: _Completer, model: Model, made: dict[str, _Completer]) -> None:
    for key in model.always:
        kind = model.fields[key]
        if kind[0] == "#" and key not in model.pointers:
            completer.structs.append(key)
        else:
            value = None if key in model.pointers else _WRITTEN.get(kind)
            completer.values.append((key, value))
    for key, kind in model.fields.items():
        inner = referenced(kind) if len(kind) > 1 else None
        if inner is not None and inner.name in _concerned():
            completer.inside[key] = (kind[0], _make(inner.name, made))
