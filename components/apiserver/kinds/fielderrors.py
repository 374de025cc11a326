"""Builds FieldErrors in short form (apimachinery's field.Invalid, field.NotSupported and so on)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.names import NameRule
from kubewire.components.apiserver.kinds.spec import FieldError


def required(field: str, detail: str = "") -> FieldError:
    return FieldError("Required", field, "", detail)


def invalid(field: str, value: Any, detail: str) -> FieldError:
    return FieldError("Invalid", field, value, detail)


def forbidden(field: str, detail: str) -> FieldError:
    return FieldError("Forbidden", field, "", detail)


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError("Duplicate", field, value)


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    quoted = ", ".join(f'"{item}"' for item in supported)
    return FieldError("NotSupported", field, value, f"supported values: {quoted}")


def by_rule(rule: NameRule, field: str, value: str) -> list[FieldError]:
    """Returns an Invalid for each complaint of a rule of names.py."""
    return [invalid(field, value, text) for text in rule(value)]


def one_of(field: str, value: Any, supported: Iterable[str]) -> list[FieldError]:
    """Required when the value is absent, NotSupported when it is not one of the values."""
    if value in (None, ""):
        return [required(field)]
    return [] if value in supported else [not_supported(field, value, supported)]


def if_one_of(field: str, value: Any, supported: Iterable[str]) -> list[FieldError]:
    """Like one_of, but the value may be absent."""
    return [] if value in (None, "") else one_of(field, value, supported)


def not_negative(field: str, value: int | None) -> list[FieldError]:
    return [invalid(field, value, names.NOT_NEGATIVE)] if value is not None and value < 0 else []


def in_range(field: str, value: int, low: int, high: int) -> list[FieldError]:
    return [] if low <= value <= high else [invalid(field, value, names.out_of_range(low, high))]


def immutable(field: str, new: Any, old: Any) -> list[FieldError]:
    """Returns `field is immutable` when the value changed; absent and empty are the same."""
    if new == old:
        return []
    is_boolean = isinstance(new, bool) or isinstance(old, bool)
    if not new and not old and not is_boolean:
        return []
    return [invalid(field, new, names.IMMUTABLE)]


def labels(field: str, pairs: Mapping[str, Any] | None) -> list[FieldError]:
    """Validates keys and values of labels (ValidateLabels)."""
    errors = []
    for key, value in (pairs or {}).items():
        errors += by_rule(names.qualified_name, field, key)
        errors += [invalid(field, value, text) for text in names.label_value(str(value))]
    return errors


def port_number_or_name(field: str, value: int | str) -> list[FieldError]:
    """Validates a port that is a number or a name (ValidatePortNumOrName)."""
    if isinstance(value, int):
        return [invalid(field, value, text) for text in names.port_number(value)]
    return by_rule(names.port_name, field, value)
