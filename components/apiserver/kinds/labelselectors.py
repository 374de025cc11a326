"""metav1.LabelSelector: k8s.io/apimachinery/pkg/apis/meta/v1/validation ValidateLabelSelector."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, forbidden, invalid, labels, required
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.selectors import LabelSelector, Requirement, SelectorError


def validate_selector(selector: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    """None is fine; whether a selector must be there is the field's business."""
    if selector is None:
        return []
    errors = labels(f"{path}.matchLabels", selector.get("matchLabels"))
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        errors += _requirement(expression, f"{path}.matchExpressions[{index}]")
    return errors


def is_empty(selector: Mapping[str, Any] | None) -> bool:
    return not (selector or {}).get("matchLabels") and not (selector or {}).get("matchExpressions")


def values_fit_operator(operator: str, values: Sequence[Any], path: str) -> list[FieldError]:
    """What requirements on labels and on nodes have in common: which operator goes with values."""
    if operator in ("In", "NotIn"):
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        return [] if values else [required(f"{path}.values", text)]
    if operator in ("Exists", "DoesNotExist"):
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [forbidden(f"{path}.values", text)] if values else []
    return [invalid(f"{path}.operator", operator, "not a valid selector operator")]


def _requirement(expression: Mapping[str, Any], path: str) -> list[FieldError]:
    operator, values = expression.get("operator", ""), expression.get("values") or []
    errors = values_fit_operator(operator, values, path)
    errors += by_rule(names.qualified_name, f"{path}.key", expression.get("key", ""))
    for index, value in enumerate(values):
        errors += [invalid(f"{path}.values[{index}]", value, text) for text in names.label_value(value)]
    return errors


def check_requirements(selector: LabelSelector) -> None:
    """Keys and values of a selector in text form (labels.NewRequirement). Raises SelectorError."""
    for one in selector.requirements:
        for error in _requirement_errors(one):
            raise SelectorError(f"unable to parse requirement: {error.message()}")


def _requirement_errors(one: Requirement) -> list[FieldError]:
    if wrong := names.qualified_name(one.key):
        # The path of a selector that came in a query is nil in Go.
        return [FieldError("Invalid", "<nil>", one.key, "; ".join(wrong))]
    if one.operator in ("In", "NotIn") and not one.values:
        return [FieldError("Invalid", "values", [], "for 'in', 'notin' operators, values set can't be empty")]
    for index, value in enumerate(one.values):
        if one.operator in ("Gt", "Lt") and not re.fullmatch(r"[+-]?\d+", value):
            text = "for 'Gt', 'Lt' operators, the value must be an integer"
            return [FieldError("Invalid", f"values[{index}]", value, text)]
        if wrong := names.label_value(value):
            return [FieldError("Invalid", f"values[{index}][{one.key}]", value, "; ".join(wrong))]
    return []
