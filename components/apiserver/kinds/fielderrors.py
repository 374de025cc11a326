"""Short ways to build FieldErrors (apimachinery's field.Invalid, field.NotSupported, ...)."""

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
    quoted = ", ".join(f'"{one}"' for one in supported)
    return FieldError("NotSupported", field, value, f"supported values: {quoted}")


def by_rule(rule: NameRule, field: str, value: str) -> list[FieldError]:
    """One Invalid per complaint of a rule of names.py."""
    return [invalid(field, value, text) for text in rule(value)]


def one_of(field: str, value: Any, supported: Iterable[str]) -> list[FieldError]:
    """Required when absent, Unsupported when it is none of the values."""
    if value in (None, ""):
        return [required(field)]
    return [] if value in supported else [not_supported(field, value, supported)]


def if_one_of(field: str, value: Any, supported: Iterable[str]) -> list[FieldError]:
    """As one_of, and absent is fine."""
    return [] if value in (None, "") else one_of(field, value, supported)


def not_negative(field: str, value: int | None) -> list[FieldError]:
    return [invalid(field, value, names.NOT_NEGATIVE)] if value is not None and value < 0 else []


def in_range(field: str, value: int, low: int, high: int) -> list[FieldError]:
    return [] if low <= value <= high else [invalid(field, value, names.out_of_range(low, high))]


def immutable(field: str, new: Any, old: Any) -> list[FieldError]:
    """`field is immutable` when it changed; absent and empty are the same."""
    if new == old or (not new and not old and not isinstance(new, bool) and not isinstance(old, bool)):
        return []
    return [invalid(field, new, names.IMMUTABLE)]


def labels(field: str, pairs: Mapping[str, Any] | None) -> list[FieldError]:
    """ValidateLabels: the keys are label keys, the values label values."""
    errors = []
    for key, value in (pairs or {}).items():
        errors += by_rule(names.qualified_name, field, key)
        errors += [invalid(field, value, text) for text in names.label_value(str(value))]
    return errors


def port_number_or_name(field: str, value: int | str) -> list[FieldError]:
    """An int-or-string port: ValidatePortNumOrName."""
    if isinstance(value, int):
        return [invalid(field, value, text) for text in names.port_number(value)]
    return by_rule(names.port_name, field, value)
