"""Content types of requests and answers (apiserver/pkg/endpoints/handlers/negotiation).

JSON, YAML and protobuf are read and written; only objects of custom resources and Tables have no
protobuf. CBOR is refused, which makes its clients fall back to JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from kubewire.components.apiserver import bodies, status
from kubewire.components.apiserver.http import protobuf
from kubewire.components.apiserver.http.duplicatekeys import duplicate_keys

ACCEPTED_OUT = ("application/json", "application/yaml")
_ACCEPTED_IN = ("application/json", "application/yaml", protobuf.MEDIA_TYPE)
_JSON = frozenset({"application/json", "application/*", "*/*"})


@dataclass(frozen=True)
class MediaType:
    """An entry of an Accept header."""

    type: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def asks_for(self, kind: str, group: str) -> bool:
        return self.parameters.get("as") == kind and self.parameters.get("g") == group


@dataclass(frozen=True)
class Representation:
    """The form of the answer.

    kind is "" for the object itself, or Table, PartialObjectMetadata or PartialObjectMetadataList.
    """

    kind: str = ""
    version: str = ""
    yaml: bool = False
    protobuf: bool = False

    @property
    def content_type(self) -> str:
        if self.protobuf:
            return protobuf.MEDIA_TYPE
        return "application/yaml" if self.yaml else "application/json"


@lru_cache(maxsize=256)
def parse_accept(header: str) -> tuple[MediaType, ...]:
    """Parses an Accept header; entries are in order of preference (q, then position)."""
    ranked = []
    for position, entry in enumerate(header.split(",")):
        name, *pairs = (part.strip() for part in entry.split(";"))
        parameters = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if name and quality > 0:
            ranked.append((-quality, position, MediaType(name.lower(), parameters)))
    return tuple(entry for _, _, entry in sorted(ranked, key=lambda item: item[:2]))


@lru_cache(maxsize=256)
def representation(header: str, custom: bool = False, *, tables: bool = True) -> Representation:
    """Chooses the representation of a resource; raises 406 when no entry can be served.

    custom says that the objects are of a custom resource, tables whether there is a Table of them.
    """
    entries = parse_accept(header) or (MediaType("*/*"),)
    for entry in entries:
        yaml = entry.type == "application/yaml"
        binary = entry.type == protobuf.MEDIA_TYPE
        if not yaml and not binary and entry.type not in _JSON:
            continue
        wanted = entry.parameters.get("as", "")
        if wanted == "Table" and (binary or not tables):
            continue
        if binary and custom and not wanted:
            continue
        if not wanted:
            return Representation(yaml=yaml, protobuf=binary)
        known = wanted in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
        in_meta = entry.parameters.get("g") == "meta.k8s.io"
        if known and in_meta and entry.parameters.get("v") in ("v1", "v1beta1"):
            return Representation(wanted, entry.parameters["v"], yaml, binary)
    raise status.not_acceptable(ACCEPTED_OUT if custom else (*ACCEPTED_OUT, protobuf.MEDIA_TYPE))


def encode(body: bytes, shape: Representation) -> bytes:
    """An object in the representation's media type, from its JSON."""
    if shape.protobuf:
        # The import is late because only clients of client-go ask for protobuf.
        from kubewire.components.apiserver.http import protobuf_writer

        return protobuf_writer.encode(orjson.loads(body))
    return encode_yaml(body) if shape.yaml else body


def wants_pretty(query: Mapping[str, str], agent: str) -> bool:
    """Whether JSON is indented: as ?pretty= says, or else for browsers, curl and wget."""
    asked = query.get("pretty", "")
    if asked:
        return asked in ("1", "t", "T", "true", "TRUE", "True")
    return agent.startswith(("curl", "Wget", "Mozilla/5.0"))


def media_type_of(content_type: str) -> str:
    """The media type in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def decode_body(body: bytes, content_type: str) -> Any:
    """Decodes the body of a write; raises 400 and 415."""
    media_type = media_type_of(content_type)
    if media_type in ("", "application/json"):
        return decode_json(body)
    if media_type in ("application/yaml", "text/yaml"):
        return decode_yaml(body)
    if media_type == protobuf.MEDIA_TYPE:
        return _decode_protobuf(body)[0]
    raise status.unsupported_media_type(_ACCEPTED_IN)


def decode_object(body: bytes, content_type: str) -> dict[str, Any]:
    """Decodes a body that must be an object; raises 400 and 415."""
    return _checked_object(decode_body(body, content_type))


def decode_strictly(body: bytes, content_type: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Like decode_object, with the texts of what fieldValidation reports about the body itself.

    These are repeated keys, and fields of protobuf that this release does not have.
    """
    media_type = media_type_of(content_type)
    if media_type == protobuf.MEDIA_TYPE:
        decoded, unknown = _decode_protobuf(body)
        return decoded, tuple(f"unknown {text}" for text in unknown)
    if media_type in ("application/yaml", "text/yaml"):
        value, repeated = decode_yaml_strictly(body)
        return _checked_object(value), repeated
    obj = decode_object(body, content_type)
    return obj, duplicate_keys(body, obj)


def _checked_object(decoded: Any) -> dict[str, Any]:
    if not isinstance(decoded, dict):
        raise status.bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value",
        )
    return decoded


def _decode_protobuf(body: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        return protobuf.decode(body)
    except (protobuf.ProtobufError, bodies.TooDeep) as error:
        raise status.bad_request(str(error)) from error


def decode_json(body: bytes) -> Any:
    """Decodes JSON; raises 400 and bodies.TooLarge."""
    try:
        return bodies.load_json(body)
    except (orjson.JSONDecodeError, bodies.TooDeep) as error:
        message = f"couldn't get version/kind; json parse error: {error}"
        raise status.bad_request(message) from error


def decode_yaml(body: bytes) -> Any:
    """Decodes YAML as sigs.k8s.io/yaml does, by converting it to JSON.

    Raises 400 and bodies.TooLarge.
    """
    return decode_yaml_strictly(body)[0]


#: How go-yaml begins its text about repeated keys, of which each line is one.
YAML_ERRORS = "yaml: unmarshal errors:"


def decode_yaml_strictly(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """Like decode_yaml, with go-yaml's text about repeated keys, if there are any."""
    # The import is late because few clients send YAML.
    from kubewire.components.apiserver.http import yamlbody

    try:
        if body.lstrip()[:1] == b"{":
            # Most clients that apply send JSON. It is decoded faster this way, and it may contain
            # characters that YAML 1.1 does not allow.
            try:
                decoded = bodies.load_json(body)
                if not duplicate_keys(body, decoded):
                    return decoded, ()
            except orjson.JSONDecodeError:
                pass
        decoded, repeated = yamlbody.load_strictly(body)
        return decoded, ("\n  ".join((YAML_ERRORS, *repeated)),) if repeated else ()
    except (yamlbody.YamlError, bodies.TooDeep) as error:
        raise status.bad_request(f"error decoding YAML: {error}") from error


def encode_yaml(body: bytes) -> bytes:
    """Converts JSON to YAML."""
    import yaml

    return yaml.safe_dump(orjson.loads(body), sort_keys=True).encode()
