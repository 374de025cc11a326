"""Reads an object anew after something outside the server changed it."""

from __future__ import annotations

from typing import Protocol

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.metadata import drop_empty
from kubewire.components.kubeapi.resources import KubeObject


class Types(Protocol):
    """The knowledge of the openapi package about the built-in types."""

    def metadata_error(self, metadata: object) -> str: ...
    def type_errors(self, obj: KubeObject, group: str, version: str, kind: str) -> list[str]: ...
    def prune(self, obj: KubeObject, group: str, version: str, kind: str) -> list[str]: ...


class Decoder:
    """decoder(served, obj) checks the types, drops unknown fields and fills in defaults, in place.

    What does not fit is the fault of the server's own configuration: it raises 500.
    """

    def __init__(self, types: Types) -> None:
        self._types = types

    def __call__(self, served: Served, obj: KubeObject) -> None:
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}
        address = (served.group, served.version, served.kind)
        if served.custom:
            text = self._types.metadata_error(obj["metadata"])
        else:
            text = next(iter(self._types.type_errors(obj, *address)), "")
        if text:
            raise status.internal_error(text)
        obj["kind"], obj["apiVersion"] = served.kind, served.api_version
        if served.custom:
            served.prune(obj)
        else:
            self._types.prune(obj, *address)
        served.spec.default(obj)
        drop_empty(obj["metadata"])
