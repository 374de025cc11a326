"""Reads an object anew after something outside the server changed it."""

from __future__ import annotations

from typing import Protocol

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.metadata import drop_empty
from kubewire.components.kubeapi.resources import KubeObject


class Types(Protocol):
    """The knowledge of the openapi package about the built-in types."""

    def decode(self, obj: KubeObject, group: str, version: str, kind: str) -> Decoded: ...
    def decode_metadata(self, metadata: object) -> Decoded: ...


class Decoded(Protocol):
    """Why Go could not decode an object, "" if it can."""

    @property
    def error(self) -> str: ...


class Decoder:
    """decoder(served, obj) brings it into its canonical form and fills in defaults, in place.

    What does not fit is the fault of the server's own configuration: it raises 500.
    """

    def __init__(self, types: Types) -> None:
        self._types = types

    def __call__(self, served: Served, obj: KubeObject) -> None:
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}
        if served.custom:
            text = self._types.decode_metadata(obj["metadata"]).error
        else:
            text = self._types.decode(obj, served.group, served.version, served.kind).error
        if text:
            raise status.internal_error(text)
        obj["kind"], obj["apiVersion"] = served.kind, served.api_version
        served.prune(obj)
        served.spec.default(obj)
        drop_empty(obj["metadata"])
