"""What a body must be to be an object of its resource: kind, types, no unknown fields.

The texts are those of apimachinery's codecs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.kinds.strategy import without_nulls
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.requests import WriteOptions
from kubewire.components.kubeapi.resources import KubeObject


class Types(Protocol):
    """The knowledge of the openapi package about the built-in types."""

    def metadata_error(self, metadata: object) -> str: ...
    def type_errors(self, obj: KubeObject, group: str, version: str, kind: str) -> list[str]: ...
    def decode(self, obj: KubeObject, group: str, version: str, kind: str) -> Decoded: ...
    def decode_metadata(self, metadata: object) -> Decoded: ...
    def is_registered(self, api_version: str, kind: str) -> bool: ...
    def complete(self, obj: KubeObject, group: str, version: str, kind: str) -> None: ...


class Decoded(Protocol):
    """Why Go could not decode an object ("" if it can), and the fields that its type lacks."""

    @property
    def error(self) -> str: ...
    @property
    def unknown(self) -> tuple[str, ...]: ...


class Undecodable(status.StatusError):
    """The 400 for a body that is not an object of the kind; text says why."""

    def __init__(self, served: Served, text: str) -> None:
        super().__init__(status.bad_request(f"{handled_as(served)}: {text}").body)
        self.text = text


@dataclass
class Decoding:
    """Checks bodies with what types knows about the built-in kinds."""

    types: Types

    def decode(self, served: Served, obj: KubeObject, options: WriteOptions) -> tuple[str, ...]:
        """Checks kind, apiVersion and types, and brings the object into its canonical form
        without unknown fields; returns warnings about them.

        fieldValidation decides whether an unknown field is ignored, a warning or an error. Raises
        400.
        """
        self.check_kind(served, obj)
        if obj.get("metadata") is None:
            obj["metadata"] = {}
        # Fields that the type does not have are dropped, whatever fieldValidation says.
        if served.custom:
            decoded = self.types.decode_metadata(obj["metadata"])
        else:
            decoded = self.types.decode(obj, served.group, served.version, served.kind)
        if decoded.error:
            raise Undecodable(served, decoded.error)
        unknown = [f'unknown field "{path}"' for path in (*decoded.unknown, *served.prune(obj))]
        found = [*options.findings, *unknown]
        if options.field_validation == "Ignore":
            return ()
        if found and options.field_validation == "Strict":
            raise Undecodable(served, f"strict decoding error: {', '.join(found)}")
        return tuple(line for text in found for line in _lines(text))

    def check_kind(self, served: Served, obj: KubeObject) -> None:
        """Checks that a body is of the resource's kind, which it gets if it has none.

        Raises 400 with the texts of apimachinery's codecs, and 422 for custom resources.
        """
        kind = obj.get("kind")
        api_version = obj.get("apiVersion")
        if served.custom:
            _check_custom_kind(served, obj)
        elif (kind or api_version) and (kind, api_version) != (served.kind, served.api_version):
            self._check_other_kind(served, kind or served.kind, api_version or served.api_version)
        obj["kind"] = served.kind
        obj["apiVersion"] = served.api_version

    def _check_other_kind(self, served: Served, kind: object, api_version: object) -> None:
        if (kind, api_version) == (served.kind, served.api_version):
            return
        version = str(api_version).rpartition("/")[2]
        refused = f'{kind} in version "{version}" cannot be handled as a {served.kind}'
        if not self.types.is_registered(str(api_version), str(kind)):
            text = f'no kind "{kind}" is registered for version "{api_version}" in scheme'
            raise status.bad_request(f'{refused}: {text} "{_SCHEME}"')
        if kind != served.kind:
            text = f"converting ({version}.{kind}) to ({served.group or 'core'}.{served.kind})"
            raise status.bad_request(f"{refused}: {text}: unknown conversion")
        raise status.bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({served.api_version})"
        )

    def check_types(self, served: Served, obj: KubeObject) -> None:
        """Raises 400 when Go could not decode the object; absent metadata becomes empty."""
        if obj.get("metadata") is None:
            obj["metadata"] = {}
        if served.custom:
            text = self.types.metadata_error(obj["metadata"])
        else:
            text = next(
                iter(self.types.type_errors(obj, served.group, served.version, served.kind)),
                "",
            )
        if text:
            raise status.bad_request(f"{handled_as(served)}: {text}")

    def typed(self, obj: KubeObject, group: str, version: str, kind: str) -> KubeObject:
        """Checks a body that is not stored (DeleteOptions, Scale, a review) and drops its nulls.

        Raises 400.
        """
        if errors := self.types.type_errors(obj, group, version, kind):
            text = f'{kind} in version "{version}" cannot be handled as a {kind}'
            raise status.bad_request(f"{text}: {errors[0]}")
        without_nulls(obj)
        return obj


def _lines(text: str) -> list[str]:
    """A finding as warnings: of go-yaml's text every line but the first is one."""
    first, *rest = text.split("\n")
    return [line.strip() for line in rest] or [first]


def handled_as(served: Served) -> str:
    return f'{served.kind} in version "{served.version}" cannot be handled as a {served.kind}'


#: Where upstream's scheme is made, which its errors name.
_SCHEME = "pkg/api/legacyscheme/scheme.go:30"


def _check_custom_kind(served: Served, obj: KubeObject) -> None:
    kind = obj.get("kind")
    api_version = obj.get("apiVersion")
    if not kind:
        raise status.bad_request("Object 'Kind' is missing in 'unstructured object has no kind'")
    if api_version and api_version != served.api_version:
        raise status.bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({served.api_version})"
        )
    if kind != served.kind:
        name = (obj.get("metadata") or {}).get("name", "")
        error = FieldError("Invalid", "kind", kind, f"must be {served.kind}")
        raise status.invalid(served.group, served.kind, name, [error])
