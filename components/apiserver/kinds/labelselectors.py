"""Validates metav1.LabelSelector (ValidateLabelSelector of
k8s.io/apimachinery/pkg/apis/meta/v1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    forbidden,
    invalid,
    labels,
    required,
)
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.selectors import LabelSelector, Requirement, SelectorError


def validate_selector(selector: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    """Validates a selector; None is valid, and the caller decides whether one is required."""
    if selector is None:
        return []
    errors = labels(f"{path}.matchLabels", selector.get("matchLabels"))
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        errors += _requirement(expression, f"{path}.matchExpressions[{index}]")
    return errors


def is_empty(selector: Mapping[str, Any] | None) -> bool:
    return not (selector or {}).get("matchLabels") and not (selector or {}).get("matchExpressions")


def values_fit_operator(operator: str, values: Sequence[Any], path: str) -> list[FieldError]:
    """Checks that an operator has the values it needs; requirements on labels and nodes share
    this.
    """
    if operator in ("In", "NotIn"):
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        return [] if values else [required(f"{path}.values", text)]
    if operator in ("Exists", "DoesNotExist"):
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [forbidden(f"{path}.values", text)] if values else []
    return [invalid(f"{path}.operator", operator, "not a valid selector operator")]


def _requirement(expression: Mapping[str, Any], path: str) -> list[FieldError]:
    operator = expression.get("operator", "")
    values = expression.get("values") or []
    errors = values_fit_operator(operator, values, path)
    errors += by_rule(names.qualified_name, f"{path}.key", expression.get("key", ""))
    for index, value in enumerate(values):
        texts = names.label_value(value)
        errors += [invalid(f"{path}.values[{index}]", value, text) for text in texts]
    return errors


def check_requirements(selector: LabelSelector) -> None:
    """Checks the keys and values of a selector in text form (labels.NewRequirement).

    Raises SelectorError.
    """
    for requirement in selector.requirements:
        for error in _requirement_errors(requirement):
            raise SelectorError(f"unable to parse requirement: {error.message()}")


def _requirement_errors(requirement: Requirement) -> list[FieldError]:
    if wrong := names.qualified_name(requirement.key):
        # In Go the path of a selector from a query is nil.
        return [FieldError("Invalid", "<nil>", requirement.key, "; ".join(wrong))]
    if requirement.operator in ("In", "NotIn") and not requirement.values:
        return [
            FieldError(
                "Invalid",
                "values",
                [],
                "for 'in', 'notin' operators, values set can't be empty",
            )
        ]
    for index, value in enumerate(requirement.values):
        if requirement.operator in ("Gt", "Lt") and not re.fullmatch(r"[+-]?\d+", value):
            text = "for 'Gt', 'Lt' operators, the value must be an integer"
            return [FieldError("Invalid", f"values[{index}]", value, text)]
        if wrong := names.label_value(value):
            return [
                FieldError(
                    "Invalid",
                    f"values[{index}][{requirement.key}]",
                    value,
                    "; ".join(wrong),
                )
            ]
    return []
