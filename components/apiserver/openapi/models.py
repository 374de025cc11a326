"""The field schemas of the built-in types, read from models.json on first use.

A field's type is a letter, or a letter and what it contains:
    s string   i int32   l int64   n double   b boolean   t date-time
    u date-time with microseconds   y bytes (base64)   q quantity   x int-or-string   o any JSON
    [T list   {T map from strings   #NAME definition
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from sys import intern
from typing import Any

import orjson

#: The release of Kubernetes whose types models.json and http/protobuf_fields.json have, and which
#: the server says that it is.
RELEASE = "1.36.2"

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
OBJECT_META = META + "ObjectMeta"
LIST_META = META + "ListMeta"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

GroupVersionKind = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Patch:
    """x-kubernetes-patch-strategy and x-kubernetes-patch-merge-key ("" for sets) of a field."""

    strategy: str
    merge_key: str


@dataclass(frozen=True, slots=True)
class Model:
    """A definition; name is its full name, and fields maps JSON names to types.

    list_keys are those of server-side apply, where the patch merge key is not it: () for a set.
    named has the Go types of strings, and of the strings in lists: v1.Protocol. always has the
    fields that JSON has even when they are zero, pointers those whose zero is not their absence.
    """

    name: str
    fields: dict[str, str]
    required: tuple[str, ...] = ()
    patch: Mapping[str, Patch] = field(default_factory=dict)
    list_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    always: tuple[str, ...] = ()
    pointers: frozenset[str] = frozenset()
    kind: GroupVersionKind | None = None

    @property
    def short(self) -> str:
        """The name of the Go type."""
        return self.name.rpartition(".")[2]

    @property
    def go_type(self) -> str:
        """The Go type with its package, which is named after the version: v1.PodSpec."""
        return ".".join(self.name.split(".")[-2:])


@cache
def all_models() -> dict[str, Model]:
    raw = orjson.loads(Path(__file__).with_name("models.json").read_bytes())
    return {name: _model(name, body) for name, body in raw.items()}


#: What most types have of what is rare.
_NOTHING: Mapping[str, Any] = {}


def _model(name: str, body: dict[str, Any]) -> Model:
    return Model(
        name=name,
        # A type is named by many fields, and kept once.
        fields={key: intern(kind) for key, kind in body["fields"].items()},
        required=tuple(body.get("required", ())),
        patch={key: Patch(*pair) for key, pair in body["patch"].items()}
        if "patch" in body
        else _NOTHING,
        list_keys={key: tuple(keys) for key, keys in body["keys"].items()}
        if "keys" in body
        else _NOTHING,
        named=body.get("named", _NOTHING),
        always=tuple(body.get("always", ())),
        pointers=frozenset(body.get("pointers", ())),
        kind=tuple(body["kind"]) if "kind" in body else None,
    )


@cache
def _by_kind() -> dict[GroupVersionKind, Model]:
    return {model.kind: model for model in all_models().values() if model.kind is not None}


def of_kind(group: str, version: str, kind: str) -> Model | None:
    """The definition of a kind, or None for custom resources."""
    return _by_kind().get((group, version, kind))


def referenced(kind: str) -> Model | None:
    """The definition to which a type refers: `#NAME`, `[#NAME` or `{#NAME`."""
    text = kind.lstrip("[{")
    return all_models()[text[1:]] if text.startswith("#") else None
