"""Encodes an OpenAPI v2 document as gnostic's openapi_v2.Document.

The numbers are the field numbers of OpenAPIv2.proto (github.com/google/gnostic-models).
"""

from __future__ import annotations

from kubewire.components.apiserver.openapi.gnostic import JSON, any_value, extensions, named
from kubewire.components.apiserver.openapi.protobuf import (
    boolean,
    double,
    integer,
    message,
    text,
    texts,
)

_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_NUMBERS = {
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "maxProperties": 17,
    "minProperties": 18,
}


def encode(document: JSON) -> bytes:
    info = document["info"]
    path_items = document["paths"].items()
    paths = b"".join(named(2, path, _path_item(item)) for path, item in path_items)
    schemas = document["definitions"].items()
    definitions = b"".join(named(1, name, _schema(schema)) for name, schema in schemas)
    return b"".join(
        [
            text(1, document["swagger"]),
            message(2, text(1, info["title"]) + text(2, info["version"])),
            message(8, paths),
            message(9, definitions),
        ]
    )


def _path_item(item: JSON) -> bytes:
    methods = [key for key in _METHODS if key in item]
    operations = b"".join(message(_METHODS[key], _operation(item[key])) for key in methods)
    parameters = item.get("parameters", ())
    return operations + b"".join(message(9, _parameter(parameter)) for parameter in parameters)


def _operation(operation: JSON) -> bytes:
    answers = operation["responses"].items()
    responses = b"".join(named(1, code, _response(answer)) for code, answer in answers)
    return b"".join(
        [
            text(5, operation["operationId"]),
            texts(6, operation["produces"]),
            texts(7, operation["consumes"]),
            *(message(8, _parameter(parameter)) for parameter in operation["parameters"]),
            message(9, responses),
            texts(10, operation["schemes"]),
            extensions(13, operation),
        ]
    )


def _response(response: JSON) -> bytes:
    """A ResponseValue.response with its SchemaItem.schema."""
    schema = message(2, message(1, _schema(response["schema"]))) if "schema" in response else b""
    return message(1, text(1, response["description"]) + schema)


def _parameter(parameter: JSON) -> bytes:
    """A ParametersItem.parameter: a body, query or path parameter."""
    required = parameter.get("required", False)
    if parameter["in"] == "body":
        body = text(2, parameter["name"]) + text(3, "body") + boolean(4, required)
        return message(1, message(1, body + message(5, _schema(parameter["schema"]))))
    common = boolean(1, required) + text(2, parameter["in"]) + text(4, parameter["name"])
    kind = parameter["type"]
    if parameter["in"] == "query":
        return message(1, message(2, message(3, common + text(6, kind) + boolean(20, True))))
    return message(1, message(2, message(4, common + text(5, kind) + boolean(19, True))))


def _schema(schema: JSON) -> bytes:
    return b"".join(
        [
            text(1, schema.get("$ref", "")),
            text(2, schema.get("format", "")),
            text(3, schema.get("title", "")),
            text(4, schema.get("description", "")),
            double(7, schema.get("maximum", 0)),
            boolean(8, schema.get("exclusiveMaximum", False)),
            double(9, schema.get("minimum", 0)),
            boolean(10, schema.get("exclusiveMinimum", False)),
            text(13, schema.get("pattern", "")),
            *(integer(number, schema.get(key, 0)) for key, number in _NUMBERS.items()),
            boolean(16, schema.get("uniqueItems", False)),
            texts(19, schema.get("required", [])),
            *(message(20, any_value(value)) for value in schema.get("enum", ())),
            _additional(schema.get("additionalProperties")),
            message(22, text(1, schema["type"])) if "type" in schema else b"",
            message(23, message(1, _schema(schema["items"]))) if "items" in schema else b"",
            _properties(schema.get("properties")),
            extensions(31, schema),
        ]
    )


def _additional(value: JSON | bool | None) -> bytes:
    if value is None:
        return b""
    return message(21, boolean(2, value) if isinstance(value, bool) else message(1, _schema(value)))


def _properties(properties: JSON | None) -> bytes:
    if not properties:
        return b""
    return message(
        25,
        b"".join(named(1, name, _schema(schema)) for name, schema in properties.items()),
    )
