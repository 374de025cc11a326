"""Decodes Kubernetes' protobuf encoding of requests
(https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding).

The typed clients of client-go, kubectl create among them, send protobuf by default.
protobuf_writer.py encodes the answers. protobuf_fields.json, which openapi/generate.py writes, maps
for each message a field number to "jsonName type". A type is a scalar or a message, or

    list TYPE   map TYPE from strings   inline MESSAGE whose fields JSON has in the enclosing object
    *TYPE a pointer

Go omits zero values from JSON (omitempty), but it writes them into protobuf unless the field is a
pointer, and the encoding does not show whether it is. So the zero values of pointers stay in the
JSON, and the others do not.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from kubewire.components.apiserver import bodies
from kubewire.components.base.golang import format_duration

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"


class ProtobufError(ValueError):
    """The bytes are not the message that they should be."""


Field = tuple[str, str]


@lru_cache(maxsize=1)
def messages() -> dict[str, dict[int, Field]]:
    """The fields of each message by their numbers."""
    raw = orjson.loads(Path(__file__).with_name("protobuf_fields.json").read_bytes())
    return {
        message: {int(number): tuple(text.split(" ", 1)) for number, text in fields.items()}
        for message, fields in raw.items()
    }


def decode(body: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Decodes a request body into the object as JSON would have it.

    The second value names the fields that the table does not have, as a newer client may send
    them: `field 42 of core.v1.PodSpec`. Raises ProtobufError.
    """
    if not body.startswith(MAGIC):
        text = "provided data does not appear to be a protobuf message"
        raise ProtobufError(f"{text}, expected prefix [107 56 115 0]")
    try:
        envelope = _Reader().message("runtime.Unknown", body[4:])
        api_version = envelope.get("apiVersion", "")
        kind = envelope.get("kind", "")
        name = message_name(api_version, kind)
        if name not in messages():
            raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"')
        reader = _Reader()
        decoded = reader.message(name, base64.b64decode(envelope.get("raw", "")))
    except IndexError as error:
        raise ProtobufError("unexpected EOF") from error
    except (struct.error, UnicodeDecodeError, OverflowError, OSError) as error:
        raise ProtobufError(f"proto: {error}") from error
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"proto: not JSON: {error}") from error
    obj: dict[str, Any] = {"kind": kind, "apiVersion": api_version}
    obj.update(decoded)
    return obj, tuple(reader.unknown)


#: The kinds of apimachinery, whose group and version do not tell their message.
_META_KINDS = frozenset(
    {"DeleteOptions", "Status", "PartialObjectMetadata", "PartialObjectMetadataList"}
)


def message_name(api_version: str, kind: str) -> str:
    """The name of a kind's message: apps/v1 Deployment is apps.v1.Deployment.

    Only the first part of a group's name counts: rbac.authorization.k8s.io/v1 becomes rbac.v1.
    """
    if kind in _META_KINDS:
        return f"meta.v1.{kind}"
    group, _, version = api_version.rpartition("/")
    return f"{group.split('.')[0] or 'core'}.{version}.{kind}"


def _is_zero(value: Any) -> bool:
    return value is None or (value in ("", 0) and not isinstance(value, dict | list))


_ZERO: dict[str, Any] = {"string": "", "bytes": "", "int": 0, "bool": False, "Quantity": "0"}


class _Reader:
    """Reads a message and those in it, counting values and depth."""

    def __init__(self) -> None:
        #: The fields that the table does not have, each once.
        self.unknown: dict[str, None] = {}
        self._values = 0
        self._depth = 0

    def message(self, name: str, data: bytes) -> Any:
        self._count()
        if special := _SPECIAL.get(name):
            return special(data)
        if self._depth >= bodies.MAX_DEPTH // 2:
            raise bodies.TooDeep(f"proto: {bodies.TOO_DEEP}")
        self._depth += 1
        fields = messages()[name]
        result: dict[str, Any] = {}
        pointers = set[str]()
        for number, raw in _wire(data):
            field = fields.get(number)
            if field is None:
                self.unknown[f"field {number} of {name}"] = None
                continue
            key, kind = field
            if kind.startswith("*"):
                pointers.add(key)
            self._add(result, key, kind.lstrip("*"), raw)
        self._depth -= 1
        present = {
            key: value
            for key, value in result.items()
            if value is not None and (key in pointers or not _is_zero(value))
        }
        return _as_json(name, present)

    def _count(self) -> None:
        self._values += 1
        if self._values > bodies.MAX_VALUES:
            raise bodies.values_limit()

    def _add(self, result: dict[str, Any], name: str, kind: str, raw: int | bytes) -> None:
        if kind.startswith("map "):
            key, value = self._entry(kind.removeprefix("map "), raw)
            result.setdefault(name, {})[key] = value
        elif kind.startswith("list "):
            result.setdefault(name, []).extend(self._items(kind.removeprefix("list "), raw))
        elif kind.startswith("inline "):
            result.update(self._value(kind.removeprefix("inline "), raw))
        else:
            result[name] = self._value(kind, raw)

    def _entry(self, kind: str, raw: int | bytes) -> tuple[str, Any]:
        key = ""
        value = _ZERO.get(kind, {} if "." in kind else "")
        for number, part in _wire(_bytes(raw)):
            if number == 1:
                key = _bytes(part).decode()
            elif number == 2:
                value = self._value(kind, part)
        return key, value

    def _items(self, kind: str, raw: int | bytes) -> Iterator[Any]:
        if kind == "int" and isinstance(raw, bytes):
            position = 0
            while position < len(raw):
                number, position = _varint(raw, position)
                self._count()
                yield _signed(number)
        else:
            yield self._value(kind, raw)

    def _value(self, kind: str, raw: int | bytes) -> Any:
        match kind:
            case "string":
                self._count()
                return _bytes(raw).decode()
            case "bytes":
                return base64.b64encode(_bytes(raw)).decode()
            case "bool":
                return bool(raw)
            case "int":
                return _signed(raw) if isinstance(raw, int) else 0
            case "double":
                return struct.unpack("<d", _bytes(raw))[0]
        return self.message(kind, _bytes(raw))


def _bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise ProtobufError("proto: wrong wireType = 0")
    return raw


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
        if shift > 63:
            raise ProtobufError("proto: integer overflow")


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields field numbers with their raw values
    (https://protobuf.dev/programming-guides/encoding/).
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number = key >> 3
        wire_type = key & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ProtobufError(f"proto: illegal wireType {wire_type}")
        if position + size > len(data):
            raise ProtobufError("unexpected EOF")
        yield number, data[position : position + size]
        position += size


#: The seconds of Go's zero time, 0001-01-01, which is null in JSON.
_ZERO_TIME = -62_135_596_800


def _time(data: bytes) -> str | None:
    """meta.v1.Time in whole seconds; a zero time is an empty message, and null in JSON."""
    seconds, _ = _timestamp(data)
    return None if seconds is None else f"{_moment(seconds).isoformat()}Z"


def _micro_time(data: bytes) -> str | None:
    seconds, nanos = _timestamp(data)
    if seconds is None:
        return None
    moment = _moment(seconds, nanos // 1000)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def _timestamp(data: bytes) -> tuple[int | None, int]:
    """The seconds since 1970 and nanoseconds of a Timestamp; no seconds for a zero time."""
    parts = dict(_wire(data))
    seconds = parts.get(1, 0)
    nanos = parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        raise ProtobufError("proto: wrong wireType for a field of a time")
    seconds = _signed(seconds)
    nanos = _signed(nanos)
    is_zero = not data or (seconds == _ZERO_TIME and not nanos)
    return None if is_zero else seconds, nanos


def _moment(seconds: int, microseconds: int = 0) -> datetime:
    try:
        return datetime(1970, 1, 1) + timedelta(seconds=seconds, microseconds=microseconds)
    except OverflowError as error:
        raise ProtobufError(f"proto: {seconds} seconds are out of range") from error


def _duration(data: bytes) -> str:
    """meta.v1.Duration: nanoseconds, which JSON has as a text such as 1m30s."""
    nanoseconds = dict(_wire(data)).get(1, 0)
    return format_duration(_signed(nanoseconds) / 1e9 if isinstance(nanoseconds, int) else 0)


def _int_or_string(data: bytes) -> int | str:
    parts = dict(_wire(data))
    if parts.get(1, 0) == 1:
        return _bytes(parts.get(3, b"")).decode()
    number = parts.get(2, 0)
    return _signed(number) if isinstance(number, int) else 0


def _quantity(data: bytes) -> str:
    return _bytes(dict(_wire(data)).get(1, b"0")).decode() or "0"


def _raw_json(data: bytes) -> Any:
    raw = dict(_wire(data)).get(1, b"")
    return bodies.load_json(_bytes(raw)) if raw else None


def _strings(data: bytes) -> list[str]:
    return [_bytes(raw).decode() for number, raw in _wire(data) if number == 1]


_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.Duration": _duration,
    "IntOrString": _int_or_string,
    "Quantity": _quantity,
    "meta.v1.FieldsV1": _raw_json,
    "runtime.RawExtension": _raw_json,
    "authentication.v1.ExtraValue": _strings,
    "authorization.v1.ExtraValue": _strings,
    "certificates.v1.ExtraValue": _strings,
    "apiextensions.v1.JSON": _raw_json,
}


def _as_json(name: str, fields: dict[str, Any]) -> Any:
    """A message as its type writes itself in JSON (apiextensions/v1/marshal.go)."""
    match name:
        case "apiextensions.v1.JSONSchemaPropsOrBool":
            return fields["schema"] if "schema" in fields else fields.get("allows", False)
        case "apiextensions.v1.JSONSchemaPropsOrArray":
            return fields["schema"] if "schema" in fields else fields.get("jSONSchemas")
        case "apiextensions.v1.JSONSchemaPropsOrStringArray":
            return fields.get("property") or fields.get("schema")
    return fields
