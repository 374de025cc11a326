"""What the API server's core knows about one kind: its REST surface, its defaults, its validation, its
columns. The core (registry) calls these; the modules beside this one fill them in.

All functions get objects as decoded JSON and never keep a reference. `default` and the `prepare_*` functions
change the object they are given in place; `validate_*` and `row` only read.
Order of a create: prepare_create, default, (core: metadata, admission), validate_create.
Order of an update: default, prepare_update, (core: metadata), validate_update.
Order of a status update: default, prepare_status_update, validate_status_update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from kubewire.components.kubeapi.resources import KubeObject, Resource

ErrorType = Literal[
    "Required",
    "Invalid",
    "NotSupported",
    "Forbidden",
    "Duplicate",
    "TooLong",
    "TooMany",
    "NotFound",
    "InternalError",
    "TypeInvalid",
]

#: k8s.io/apimachinery/pkg/util/validation/field: the text and the `reason` of a StatusCause per error type.
_TEXTS: dict[str, tuple[str, str]] = {
    "Required": ("Required value", "FieldValueRequired"),
    "Invalid": ("Invalid value", "FieldValueInvalid"),
    "NotSupported": ("Unsupported value", "FieldValueNotSupported"),
    "Forbidden": ("Forbidden", "FieldValueForbidden"),
    "Duplicate": ("Duplicate value", "FieldValueDuplicate"),
    "TooLong": ("Too long", "FieldValueTooLong"),
    "TooMany": ("Too many", "FieldValueTooMany"),
    "NotFound": ("Not found", "FieldValueNotFound"),
    "InternalError": ("Internal error", "InternalError"),
    "TypeInvalid": ("Invalid value", "FieldValueTypeInvalid"),
}
_WITHOUT_VALUE = frozenset({"Required", "Forbidden", "TooLong", "InternalError"})


@dataclass(frozen=True)
class FieldError:
    """One field's complaint, in the wording of field.Error (apimachinery).

    detail follows the value after ": ". For NotSupported pass the whole detail (`supported values: "A", "B"`).
    """

    type: ErrorType
    field: str
    value: Any = None
    detail: str = ""

    @property
    def cause_reason(self) -> str:
        """`reason` of the StatusCause (metav1.CauseType)."""
        return _TEXTS[self.type][1]

    def cause_message(self) -> str:
        """The message without the field: `Invalid value: "x": must be ...`."""
        text = _TEXTS[self.type][0]
        if self.type not in _WITHOUT_VALUE:
            text += ": " + _value_text(_go_order(self.value, self.field.rpartition(".")[2]))
        return f"{text}: {self.detail}" if self.detail else text

    def message(self) -> str:
        """`spec.containers: Required value`, `spec.type: Unsupported value: "x": supported values: "A", "B"`."""
        return f"{self.field}: {self.cause_message()}"


#: Fields that are maps in Go, whose keys its JSON sorts; the fields of a struct keep their order.
_MAPS = frozenset({"labels", "annotations", "matchLabels", "nodeSelector"})


def _go_order(value: Any, field: str) -> Any:
    if isinstance(value, dict):
        items = sorted(value.items()) if field in _MAPS else value.items()
        return {key: _go_order(item, key) for key, item in items}
    return [_go_order(item, field) for item in value] if isinstance(value, list) else value


def _value_text(value: Any) -> str:
    """A value as field.Error prints it: strings quoted, numbers bare, everything else as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode()


@dataclass(frozen=True)
class Column:
    """One column of a Table (metav1.TableColumnDefinition). priority > 0 is shown only with -o wide."""

    name: str
    type: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class ScalePaths:
    """Where the scale subresource finds its fields, as dotted paths: ".spec.replicas" or "spec.replicas".

    label_selector: the path of a metav1.LabelSelector object (apps kinds), of a plain map
    (ReplicationController) or of a selector in text form (CustomResourceDefinitions).
    """

    spec_replicas: str
    status_replicas: str
    label_selector: str = ""


def _nothing(obj: KubeObject) -> None:
    return None


def _nothing_on_update(new: KubeObject, old: KubeObject) -> None:
    return None


def _no_errors(obj: KubeObject) -> list[FieldError]:
    return []


def _no_update_errors(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return []


def _no_fields(obj: KubeObject) -> dict[str, str]:
    return {}


NAME_COLUMNS = (
    Column("Name", "string", "name", "Name must be unique within a namespace."),
    Column("Age", "string", "", "CreationTimestamp is a timestamp representing the server time of creation."),
)


@dataclass(frozen=True)
class KindSpec:
    """A stored kind. The core adds metadata (name, uid, resourceVersion, ...), its validation and its
    `metadata.name`/`metadata.namespace` selectable fields; the functions here see everything else.

    subresources: names among "status", "scale"; "binding", "eviction", "log", "exec", ... are the core's.
    unconditional_update: whether a PUT may come without a resourceVersion (AllowUnconditionalUpdate).
    row: cells for `columns`, in order. now is timezone-aware UTC. None means: name and creation timestamp.
    """

    resource: Resource
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    default: Callable[[KubeObject], None] = _nothing
    prepare_create: Callable[[KubeObject], None] = _nothing
    prepare_update: Callable[[KubeObject, KubeObject], None] = _nothing_on_update
    prepare_status_update: Callable[[KubeObject, KubeObject], None] = _nothing_on_update
    validate_create: Callable[[KubeObject], list[FieldError]] = _no_errors
    validate_update: Callable[[KubeObject, KubeObject], list[FieldError]] = _no_update_errors
    validate_status_update: Callable[[KubeObject, KubeObject], list[FieldError]] = _no_update_errors
    columns: tuple[Column, ...] = NAME_COLUMNS
    row: Callable[[KubeObject, datetime], list[Any]] | None = None
    selectable_fields: Callable[[KubeObject], dict[str, str]] = _no_fields
    scale: ScalePaths | None = None
    unconditional_update: bool = True
