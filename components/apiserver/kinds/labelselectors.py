"""metav1.LabelSelector: k8s.io/apimachinery/pkg/apis/meta/v1/validation ValidateLabelSelector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.apiserver.kinds import names
from components.apiserver.kinds.fielderrors import by_rule, forbidden, invalid, labels, required
from components.apiserver.kinds.spec import FieldError


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
