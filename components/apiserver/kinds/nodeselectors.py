"""Validates core/v1 NodeSelector, which pods, volumes and devices have (ValidateNodeSelector of
pkg/apis/core/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, invalid, required
from kubewire.components.apiserver.kinds.labelselectors import values_fit_operator
from kubewire.components.apiserver.kinds.spec import FieldError


def validate_node_selector(selector: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    at = f"{path}.nodeSelectorTerms"
    if not selector.get("nodeSelectorTerms"):
        errors.append(required(at, "must have at least one node selector term"))
    for index, term in enumerate(selector.get("nodeSelectorTerms") or ()):
        errors += validate_node_term(term, f"{at}[{index}]")
    return errors


def validate_node_term(term: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        errors += _node_requirement(requirement, f"{path}.matchExpressions[{index}]")
    for index, requirement in enumerate(term.get("matchFields") or ()):
        if requirement.get("key") != "metadata.name":
            at = f"{path}.matchFields[{index}].key"
            errors.append(invalid(at, requirement.get("key", ""), "not a valid field selector key"))
    return errors


def _node_requirement(requirement: Mapping[str, Any], path: str) -> list[FieldError]:
    operator = requirement.get("operator", "")
    values = requirement.get("values") or []
    if operator in ("Gt", "Lt"):
        text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        errors = [] if len(values) == 1 else [required(f"{path}.values", text)]
    else:
        errors = values_fit_operator(operator, values, path)
    return errors + by_rule(names.qualified_name, f"{path}.key", requirement.get("key") or "")
