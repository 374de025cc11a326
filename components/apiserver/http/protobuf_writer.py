"""Encodes answers in Kubernetes' protobuf encoding, which client-go's typed clients ask for first.

It writes what the JSON of an object has. Go's own encoder also writes the zero values that JSON
omits, which a reader takes for absent all the same. As for the reader (protobuf.py),
protobuf_fields.json has the numbers. The steps for a message are compiled on first use, because a
list has thousands of the same kind.

A watch is a sequence of frames: four bytes of length, then a WatchEvent whose object is a whole
body with its envelope (apimachinery's LengthDelimitedFramer and RawSerializer).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson

from kubewire.components.apiserver.http.protobuf import MAGIC, message_name, messages
from kubewire.components.apiserver.openapi.protobuf import varint
from kubewire.components.base.golang import parse_duration
from kubewire.components.kubeapi.resources import KubeObject

#: Encodes a value together with its field's tag.
Writer = Callable[[Any], bytes]

_LENGTH = 2
_FIXED64 = 1


def is_known(api_version: str, kind: str) -> bool:
    """Whether a kind has an encoding; custom resources and Tables have none."""
    return message_name(api_version, kind) in messages()


def encode(obj: KubeObject) -> bytes:
    """A whole body: the envelope with kind and apiVersion, and the object in it."""
    return enveloped(obj["apiVersion"], obj["kind"], content(obj))


def content(obj: KubeObject) -> bytes:
    """The message of an object, without its envelope, as it stands in a list."""
    return _message(message_name(obj["apiVersion"], obj["kind"]))(obj)


def encode_list(
    api_version: str, kind: str, metadata: dict[str, Any], items: Iterable[bytes]
) -> bytes:
    """A list of objects that content() has encoded; kind is that of the list."""
    head = _field(1, _message("meta.v1.ListMeta")(metadata))
    return enveloped(api_version, kind, head + b"".join(_field(2, item) for item in items))


def enveloped(api_version: str, kind: str, raw: bytes) -> bytes:
    types = _field(1, api_version.encode()) + _field(2, kind.encode())
    return MAGIC + _field(1, types) + _field(2, raw) + _field(3, b"") + _field(4, b"")


def watch_event(kind: str, body: bytes) -> bytes:
    """One event of a watch as a frame; body is the object's whole body."""
    event = _field(1, kind.encode()) + _field(2, _field(1, body))
    return len(event).to_bytes(4, "big") + event


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | _LENGTH) + varint(len(data)) + data


@cache
def _message(name: str) -> Callable[[Any], bytes]:
    """Encodes an object, or another value of JSON, as a message."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    fields = messages()[name]
    # Types refer to each other in circles, so the writers are made when the first object comes.
    writers: dict[str, Writer] = {}
    embedded: list[tuple[Writer, frozenset[str]]] = []

    def compile_fields() -> None:
        for number, (key, kind) in fields.items():
            if kind.startswith("inline "):
                inner = kind.removeprefix("inline ")
                embedded.append((_value(number, inner), frozenset(_keys(inner))))
            else:
                writers[key] = _writer(number, kind.lstrip("*"))

    def write(obj: Any) -> bytes:
        if not writers and not embedded:
            compile_fields()
        parts = [
            writers[key](value)
            for key, value in obj.items()
            if value is not None and key in writers
        ]
        for writer, keys in embedded:
            if own := {key: value for key, value in obj.items() if key in keys}:
                parts.append(writer(own))
        return b"".join(parts)

    return write


def _keys(name: str) -> Iterable[str]:
    """The names in JSON of a message's fields."""
    for key, kind in messages()[name].values():
        if kind.startswith("inline "):
            yield from _keys(kind.removeprefix("inline "))
        else:
            yield key


def _writer(number: int, kind: str) -> Writer:
    if kind.startswith("list "):
        item = _value(number, kind.removeprefix("list "))
        return lambda values: b"".join([item(value) for value in values])
    if kind.startswith("map "):
        return _map(number, _value(2, kind.removeprefix("map ")))
    return _value(number, kind)


def _map(number: int, value: Writer) -> Writer:
    def write(entries: dict[str, Any]) -> bytes:
        return b"".join(
            # Only a zero time is null in a map.
            _field(number, _field(1, key.encode()) + (value(item) if item is not None else b""))
            for key, item in sorted(entries.items())
        )

    return write


def _value(number: int, kind: str) -> Writer:
    """Encodes one value: a scalar or a message."""
    bytes_tag = varint(number << 3 | _LENGTH)
    number_tag = varint(number << 3)

    def delimited(encoded: Callable[[Any], bytes]) -> Writer:
        def write(value: Any) -> bytes:
            data = encoded(value)
            return bytes_tag + varint(len(data)) + data

        return write

    match kind:
        case "string":
            return delimited(str.encode)
        case "bytes":
            return delimited(base64.b64decode)
        case "bool" | "int":
            return lambda value: number_tag + varint(int(value))
        case "double":
            fixed_tag = varint(number << 3 | _FIXED64)
            return lambda value: fixed_tag + struct.pack("<d", value)
    return delimited(lambda value: _message(kind)(value))


def _timestamp(value: str) -> bytes:
    """A time, in seconds and nanoseconds since 1970."""
    moment = datetime.fromisoformat(value)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86400 + since.seconds
    return b"\x08" + varint(seconds) + b"\x10" + varint(since.microseconds * 1000)


def _duration(value: str) -> bytes:
    """A text such as 1m30s, in nanoseconds."""
    return b"\x08" + varint(round(parse_duration(value) * 1e9))


def _int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + _field(3, value.encode())
    return b"\x08\x00\x10" + varint(value) + b"\x1a\x00"


def _quantity(value: Any) -> bytes:
    return _field(1, str(value).encode())


def _raw_json(value: Any) -> bytes:
    return _field(1, orjson.dumps(value))


def _strings(values: list[str]) -> bytes:
    return b"".join(_field(1, value.encode()) for value in values)


_SCHEMA = "apiextensions.v1.JSONSchemaProps"


def _schema_or_bool(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\x08" + varint(int(value))
    return b"\x08\x01" + _field(2, _message(_SCHEMA)(value))


def _schema_or_array(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(_field(2, _message(_SCHEMA)(item)) for item in value)
    return _field(1, _message(_SCHEMA)(value))


def _schema_or_strings(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(_field(2, item.encode()) for item in value)
    return _field(1, _message(_SCHEMA)(value))


_SPECIAL: dict[str, Callable[[Any], bytes]] = {
    "meta.v1.Time": _timestamp,
    "meta.v1.MicroTime": _timestamp,
    "IntOrString": _int_or_string,
    "Quantity": _quantity,
    "meta.v1.FieldsV1": _raw_json,
    "runtime.RawExtension": _raw_json,
    "authentication.v1.ExtraValue": _strings,
    "authorization.v1.ExtraValue": _strings,
    "certificates.v1.ExtraValue": _strings,
    "meta.v1.Duration": _duration,
    "apiextensions.v1.JSON": _raw_json,
    "apiextensions.v1.JSONSchemaPropsOrBool": _schema_or_bool,
    "apiextensions.v1.JSONSchemaPropsOrArray": _schema_or_array,
    "apiextensions.v1.JSONSchemaPropsOrStringArray": _schema_or_strings,
}
