"""The contract between the registry and a kind: REST surface, defaults, validation, table columns.

The registry calls the functions of a KindSpec, which the modules of this folder define. They get
objects as decoded JSON and keep no reference to them. default and the prepare functions change the
object in place; the validate functions and row only read it. They are called in this order:

- create: prepare_create, default, (registry: metadata, admission), validate_create
- update: default, prepare_update, (registry: metadata), validate_update
- status update: default, prepare_status_update, validate_status_update
- the first delete: prepare_delete
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

#: The text and the StatusCause's `reason` for each error type, as in
#: k8s.io/apimachinery/pkg/util/validation/field.
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


class _Omitted:
    """field.OmitValueType: a value that an error does not print."""


OMITTED = _Omitted()


@dataclass(frozen=True)
class FieldError:
    """An error about one field, in the wording of apimachinery's field.Error.

    detail follows the value after ": ". For NotSupported it is the whole detail, `supported
    values: "A", "B"`.
    """

    type: ErrorType
    field: str
    value: Any = None
    detail: str = ""

    @property
    def cause_reason(self) -> str:
        """The `reason` of the StatusCause (metav1.CauseType)."""
        return _TEXTS[self.type][1]

    def cause_message(self) -> str:
        """The message without the field, as in `Invalid value: "x": must be ...`."""
        text = _TEXTS[self.type][0]
        if self.type not in _WITHOUT_VALUE and self.value is not OMITTED:
            text += ": " + _value_text(_go_order(self.value, self.field.rpartition(".")[2]))
        return f"{text}: {self.detail}" if self.detail else text

    def message(self) -> str:
        """The whole message, as in `spec.containers: Required value`."""
        return f"{self.field}: {self.cause_message()}"


#: Fields that are maps in Go. Its JSON sorts the keys of maps, and keeps the order of struct
#: fields.
_MAPS = frozenset({"labels", "annotations", "matchLabels", "nodeSelector"})


def _go_order(value: Any, field: str) -> Any:
    if isinstance(value, dict):
        items = sorted(value.items()) if field in _MAPS else value.items()
        return {key: _go_order(item, key) for key, item in items}
    return [_go_order(item, field) for item in value] if isinstance(value, list) else value


def _value_text(value: Any) -> str:
    """A value as field.Error prints it: quoted strings, bare numbers, everything else as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode()


@dataclass(frozen=True)
class Column:
    """A column of a Table (metav1.TableColumnDefinition); priority > 0 shows only with -o wide."""

    name: str
    type: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class ScalePaths:
    """The fields of the scale subresource, as dotted paths with or without a leading dot.

    label_selector is the path of a metav1.LabelSelector (apps kinds), of a plain map
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


def _same(obj: KubeObject) -> KubeObject:
    return obj


@dataclass(frozen=True)
class Storage:
    """How a kind is stored that shares the objects of another one, at another version.

    resource is the name of the other kind's resource, as it is in API errors (`events`,
    `horizontalpodautoscalers.autoscaling`), version its apiVersion. write and read convert, and may
    return the object they were given.
    """

    resource: str
    version: str
    write: Callable[[KubeObject], KubeObject] = _same
    read: Callable[[KubeObject], KubeObject] = _same


#: The verbs of a subresource whose requests are passed on.
CONNECT_VERBS = ("create", "delete", "get", "patch", "update")


@dataclass(frozen=True)
class Subresource:
    """A subresource other than status and scale; kind, group and version are those of its body."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


NAME_COLUMNS = (
    Column("Name", "string", "name", "Name must be unique within a namespace."),
    Column(
        "Age",
        "string",
        "",
        "CreationTimestamp is a timestamp representing the server time of creation.",
    ),
)


@dataclass(frozen=True)
class KindSpec:
    """A stored kind.

    The registry sets and validates metadata, and adds metadata.name and metadata.namespace to the
    selectable fields. The functions here handle everything else.

    subresources has "status" and "scale"; the others, such as "binding" and "exec", are in
    more_subresources. unconditional_update says whether a PUT may omit the resourceVersion
    (AllowUnconditionalUpdate). row returns the cells for columns in order, given the time in UTC;
    without it the cells are the name and the creation timestamp.
    """

    resource: Resource[Any]
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    default: Callable[[KubeObject], None] = _nothing
    prepare_create: Callable[[KubeObject], None] = _nothing
    prepare_update: Callable[[KubeObject, KubeObject], None] = _nothing_on_update
    prepare_status_update: Callable[[KubeObject, KubeObject], None] = _nothing_on_update
    #: For the subresource approval of certificate signing requests.
    prepare_approval: Callable[[KubeObject, KubeObject], None] = _nothing_on_update
    prepare_delete: Callable[[KubeObject], None] = _nothing
    validate_create: Callable[[KubeObject], list[FieldError]] = _no_errors
    validate_update: Callable[[KubeObject, KubeObject], list[FieldError]] = _no_update_errors
    validate_status_update: Callable[[KubeObject, KubeObject], list[FieldError]] = _no_update_errors
    columns: tuple[Column, ...] = NAME_COLUMNS
    row: Callable[[KubeObject, datetime], list[Any]] | None = None
    selectable_fields: Callable[[KubeObject], dict[str, str]] = _no_fields
    scale: ScalePaths | None = None
    unconditional_update: bool = True
    #: Whether metadata.generation counts changes of the spec.
    generation: bool = False
    #: The text of the warning with which requests are answered, for a deprecated kind.
    deprecation: str = ""
    more_subresources: tuple[Subresource, ...] = ()
    storage: Storage | None = None
