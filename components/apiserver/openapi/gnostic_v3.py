"""Encodes an OpenAPI v3 document as gnostic's openapi_v3.Document.

The numbers are the field numbers of OpenAPIv3.proto (github.com/google/gnostic-models). Most
messages are an `...OrReference`, in which 1 is the object and 2 the reference.
"""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver.openapi.gnostic import JSON, any_value, extensions, named
from kubewire.components.apiserver.openapi.protobuf import (
    boolean,
    double,
    integer,
    message,
    text,
    texts,
)

_METHODS = {"get": 4, "put": 5, "post": 6, "delete": 7, "patch": 10}
_NUMBERS = {
    "maxLength": 15,
    "minLength": 16,
    "maxItems": 18,
    "minItems": 19,
    "maxProperties": 21,
    "minProperties": 22,
}
_ALTERNATIVES = {"allOf": 26, "oneOf": 27, "anyOf": 28}


def encode(document: JSON) -> bytes:
    info = document["info"]
    components = document["components"]["schemas"].items()
    schemas = b"".join(named(1, name, _schema_or_reference(schema)) for name, schema in components)
    path_items = document["paths"].items()
    paths = b"".join(named(1, path, _path_item(item)) for path, item in path_items)
    return b"".join(
        [
            text(1, document["openapi"]),
            message(2, text(1, info["title"]) + text(6, info["version"])),
            message(4, paths),
            message(5, message(1, schemas)),
        ]
    )


def _path_item(item: JSON) -> bytes:
    methods = [key for key in _METHODS if key in item]
    operations = b"".join(message(_METHODS[key], _operation(item[key])) for key in methods)
    parameters = item.get("parameters", ())
    return operations + b"".join(message(13, _parameter(parameter)) for parameter in parameters)


def _operation(operation: JSON) -> bytes:
    answers = operation["responses"].items()
    responses = b"".join(named(2, code, _response(answer)) for code, answer in answers)
    return b"".join(
        [
            text(5, operation["operationId"]),
            *(message(6, _parameter(item)) for item in operation.get("parameters", ())),
            message(
                7,
                _request_body(operation["requestBody"]),
            )
            if "requestBody" in operation
            else b"",
            message(8, responses),
            extensions(13, operation),
        ]
    )


def _parameter(parameter: JSON) -> bytes:
    return message(
        1,
        text(1, parameter["name"])
        + text(2, parameter["in"])
        + boolean(4, parameter.get("required", False))
        + message(10, _schema_or_reference(parameter["schema"])),
    )


def _request_body(body: JSON) -> bytes:
    return message(
        1,
        message(2, _media_types(body["content"])) + boolean(3, body.get("required", False)),
    )


def _response(response: JSON) -> bytes:
    content = message(3, _media_types(response["content"])) if "content" in response else b""
    return message(1, text(1, response["description"]) + content)


def _media_types(content: JSON) -> bytes:
    return b"".join(
        named(
            1,
            kind,
            message(1, _schema_or_reference(media["schema"])) if "schema" in media else b"",
        )
        for kind, media in content.items()
    )


def _schema_or_reference(schema: JSON) -> bytes:
    return message(2, text(1, schema["$ref"])) if "$ref" in schema else message(1, _schema(schema))


def _schema(schema: JSON) -> bytes:
    return b"".join(
        [
            boolean(1, schema.get("nullable", False)),
            text(9, schema.get("title", "")),
            double(11, schema.get("maximum", 0)),
            boolean(12, schema.get("exclusiveMaximum", False)),
            double(13, schema.get("minimum", 0)),
            boolean(14, schema.get("exclusiveMinimum", False)),
            text(17, schema.get("pattern", "")),
            *(integer(number, schema.get(key, 0)) for key, number in _NUMBERS.items()),
            boolean(20, schema.get("uniqueItems", False)),
            texts(23, schema.get("required", [])),
            *(message(24, any_value(item)) for item in schema.get("enum", ())),
            text(25, schema.get("type", "")),
            *(
                message(number, _schema_or_reference(item))
                for key, number in _ALTERNATIVES.items()
                for item in schema.get(key, ())
            ),
            message(29, _schema(schema["not"])) if "not" in schema else b"",
            message(
                30,
                message(1, _schema_or_reference(schema["items"])),
            )
            if "items" in schema
            else b"",
            _properties(schema.get("properties")),
            _additional(schema.get("additionalProperties")),
            _default(schema.get("default")),
            text(34, schema.get("description", "")),
            text(35, schema.get("format", "")),
            extensions(36, schema),
        ]
    )


def _properties(properties: JSON | None) -> bytes:
    if not properties:
        return b""
    items = properties.items()
    encoded = b"".join(named(1, name, _schema_or_reference(schema)) for name, schema in items)
    return message(31, encoded)


def _additional(value: JSON | bool | None) -> bytes:
    if value is None:
        return b""
    return message(
        32,
        boolean(2, value) if isinstance(value, bool) else message(1, _schema_or_reference(value)),
    )


def _default(value: Any) -> bytes:
    """A DefaultType, which can only be a number, a boolean or a string."""
    if isinstance(value, bool):
        return message(33, boolean(2, value))
    if isinstance(value, int | float):
        return message(33, double(1, float(value)))
    return message(33, text(3, value)) if isinstance(value, str) else b""
