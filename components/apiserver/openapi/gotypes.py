"""Reads the declarations of types from Go source, as far as the Kubernetes API uses the language.

A type of the API is a struct whose fields carry all that JSON and protobuf need in their tags:

    // +optional
    // +listType=map
    Ports []ServicePort `json:"ports,omitempty" patchStrategy:"merge" protobuf:"bytes,1,rep,name=ports"`

or a name for another type (`type Protocol string`). Constants, functions and comments about them
are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: `import (... name "path" ...)` and `import "path"`.
_IMPORTS = re.compile(r"^import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
_IMPORT = re.compile(r'([\w.]+)?\s*"([^"]+)"')
_STRUCT = re.compile(r"^type (\w+) struct ?\{(?:\}|\n(.*?)^\})", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^type (\w+) (?:= )?((?!struct\b|interface\b|func\b)[^\n{/]+)$", re.MULTILINE)
#: A field: its name, unless it is embedded, its type and its tag.
_FIELD = re.compile(r"^(?:(\w+)\s+)?(\S+)\s+`([^`]*)`$")
_TAG = re.compile(r'(\w+):"([^"]*)"')
_MARKER = re.compile(r"^//\s*\+(\w+)(?:=(.*))?$")


@dataclass(frozen=True)
class Field:
    """A field of a struct; `type` is the Go type with whole package paths, such as
    `[]*k8s.io/api/core/v1.ServicePort`.

    `tags` are the parts of the field's tag, `markers` the comments with a plus sign above it.
    """

    type: str
    tags: Mapping[str, str]
    markers: Mapping[str, tuple[str, ...]]

    @property
    def json(self) -> str:
        """The name in JSON; "" for a struct whose fields JSON has in the enclosing object."""
        return self.tags.get("json", "").partition(",")[0]

    def omits(self, option: str) -> bool:
        """Whether the tag has omitempty or omitzero."""
        return option in self.tags.get("json", "").split(",")[1:]

    @property
    def is_required(self) -> bool:
        """As kube-openapi decides it: by the comment, otherwise by the tag."""
        if "required" in self.markers or "optional" in self.markers:
            return "required" in self.markers
        return not (self.omits("omitempty") or self.omits("omitzero"))

    @property
    def number(self) -> int:
        """The field's number in protobuf, 0 if it is not encoded."""
        parts = self.tags.get("protobuf", "").split(",")
        return int(parts[1]) if len(parts) > 1 else 0

    @property
    def message_name(self) -> str:
        """The field's name in protobuf."""
        parts = self.tags.get("protobuf", "").split(",")
        return next((part[5:] for part in parts if part.startswith("name=")), "")


@dataclass(frozen=True)
class Struct:
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Named:
    """A name for another type."""

    type: str


Declaration = Struct | Named


def declarations(package: str, source: str) -> Iterator[tuple[str, Declaration]]:
    """Yields the types of a file of a package with their whole names."""
    imports = _imports(source)
    for match in _STRUCT.finditer(source):
        yield f"{package}.{match[1]}", Struct(tuple(_fields(match[2] or "", package, imports)))
    for match in _NAMED.finditer(source):
        yield f"{package}.{match[1]}", Named(_whole(match[2].strip(), package, imports))


def _imports(source: str) -> dict[str, str]:
    found = {}
    for block in _IMPORTS.finditer(source):
        for name, path in _IMPORT.findall(block[1] or block[2]):
            found[name or path.rpartition("/")[2]] = path
    return found


def _fields(body: str, package: str, imports: Mapping[str, str]) -> Iterator[Field]:
    markers: dict[str, tuple[str, ...]] = {}
    for line in body.splitlines():
        text = line.strip()
        if marker := _MARKER.match(text):
            markers[marker[1]] = (*markers.get(marker[1], ()), marker[2] or "")
        elif field := _FIELD.match(text):
            yield Field(_whole(field[2], package, imports), dict(_TAG.findall(field[3])), markers)
            markers = {}
        elif text and not text.startswith("//"):
            # A field without a tag, which no encoding has.
            markers = {}


_BUILT_IN = frozenset(
    "string bool byte int int32 int64 float64 uint8 interface error any".split()  # what the API uses
)


def _whole(text: str, package: str, imports: Mapping[str, str]) -> str:
    """The type with whole package paths."""

    def name(match: re.Match[str]) -> str:
        qualifier, own = match[1], match[2]
        if qualifier:
            return f"{imports.get(qualifier[:-1], qualifier[:-1])}.{own}"
        return own if own in _BUILT_IN or own == "map" else f"{package}.{own}"

    return re.sub(r"(\w+\.)?(\w+)", name, text)
