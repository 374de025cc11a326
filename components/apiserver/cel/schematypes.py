"""Structural schemas as CEL types, so that a rule that names a wrong field is refused.

An object with properties becomes a protobuf message, because the checker knows the fields of
messages. Only the checker uses these types: at run time a rule works on plain maps.
(apiextensions' schema/cel/model and apiserver's pkg/cel/common/schemas.go.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_PACKAGE = "kubewire.schema"
_RESERVED = frozenset(
    "true false null in as break const continue else for function if import let loop package "
    "namespace return var void while".split()
)
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMATS = {"date-time": "Timestamp", "date": "Timestamp", "duration": "Duration"}
_METADATA: Schema = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
}
_RESOURCE: Mapping[str, Schema] = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": _METADATA,
}
_MESSAGE, _STRING, _INTEGER, _BOOLEAN, _BYTES = 11, 9, 3, 8, 12
_OPTIONAL, _REPEATED = 1, 3


def escape(name: str) -> str:
    """The name of a field in expressions, or "" when it cannot be one (cel.Escape)."""
    if name in _RESERVED:
        return f"__{name}__"
    escaped = re.sub(r"__|[./-]", lambda match: _ESCAPES[match[0]], name)
    return escaped if _IDENTIFIER.fullmatch(escaped) else ""


def with_resource(schema: Schema) -> Schema:
    """The schema of a whole object, whose apiVersion, kind and metadata are known anyway."""
    properties = {**(schema.get("properties") or {}), **_RESOURCE}
    return {**schema, "properties": properties}


class Types:
    """Messages for the objects of schemas; name() adds them, and pool() has all that were added."""

    def __init__(self) -> None:
        from google.protobuf import descriptor_pb2

        self._file = descriptor_pb2.FileDescriptorProto(
            name="kubewire/schema.proto", package=_PACKAGE, syntax="proto3"
        )
        for name in ("struct", "timestamp", "duration"):
            self._file.dependency.append(f"google/protobuf/{name}.proto")
        self._names: dict[int, str] = {}

    def pool(self) -> Any:
        from google.protobuf import (
            descriptor_pb2,
            descriptor_pool,
            duration_pb2,
            struct_pb2,
            timestamp_pb2,
        )

        from kubewire.components.apiserver.cel import values

        pool = descriptor_pool.DescriptorPool()
        values.declare(pool)
        for module in (struct_pb2, timestamp_pb2, duration_pb2):
            proto = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(proto)
            pool.Add(proto)
        pool.Add(self._file)
        return pool

    def name(self, schema: Schema) -> str:
        """The type of a schema's values, for Environment."""
        if schema.get("nullable") or schema.get("x-kubernetes-int-or-string"):
            return "dyn"
        kind = schema.get("type")
        if kind == "array":
            return f"list<{self.name(schema.get('items') or {})}>"
        if kind == "string":
            return self._string(schema)
        if kind == "object":
            return self._object(schema)
        return {"integer": "int", "boolean": "bool"}.get(kind or "", "dyn")

    def _string(self, schema: Schema) -> str:
        form = schema.get("format", "")
        if form == "byte":
            return "bytes"
        return f"google.protobuf.{_FORMATS[form]}" if form in _FORMATS else "string"

    def _object(self, schema: Schema) -> str:
        additional = schema.get("additionalProperties")
        if isinstance(additional, Mapping):
            return f"map<string, {self.name(additional)}>"
        if schema.get("properties") is None and not schema.get("x-kubernetes-embedded-resource"):
            return "dyn"
        return f"{_PACKAGE}.{self._message(schema)}"

    def _message(self, schema: Schema) -> str:
        known = self._names.get(id(schema))
        if known is not None:
            return known
        name = self._names[id(schema)] = f"Self{len(self._names)}"
        message = self._file.message_type.add(name=name)
        if schema.get("x-kubernetes-embedded-resource"):
            schema = with_resource(schema)
        for number, (key, inner) in enumerate((schema.get("properties") or {}).items(), 1):
            if escaped := escape(key):
                self._field(message, escaped, number, inner)
        return name

    def _field(self, message: Any, name: str, number: int, schema: Schema) -> None:
        text = self.name(schema)
        field = message.field.add(name=name, number=number, label=_OPTIONAL, json_name=name)
        if text.startswith("list<"):
            field.label = _REPEATED
            _set_type(field, text[5:-1])
        elif text.startswith("map<string, "):
            field.label = _REPEATED
            field.type = _MESSAGE
            entry = self._entry(message, name, text[len("map<string, ") : -1])
            field.type_name = f".{_PACKAGE}.{message.name}.{entry}"
        else:
            _set_type(field, text)

    def _entry(self, message: Any, name: str, value: str) -> str:
        # protobuf derives the name of a map's entry from that of the field.
        words = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
        entry = message.nested_type.add(name=f"{words}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_OPTIONAL, type=_STRING)
        _set_type(entry.field.add(name="value", number=2, label=_OPTIONAL), value)
        return str(entry.name)


def _set_type(field: Any, text: str) -> None:
    """Lists in lists and in maps cannot be expressed, and are dynamic."""
    simple = {"string": _STRING, "int": _INTEGER, "bool": _BOOLEAN, "bytes": _BYTES}
    if text in simple:
        field.type = simple[text]
        return
    field.type = _MESSAGE
    is_message = "." in text and "<" not in text
    field.type_name = f".{text}" if is_message else ".google.protobuf.Value"
