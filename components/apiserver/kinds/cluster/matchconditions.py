"""Validates matchConditions of webhooks and policies (admissionregistration/validation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, duplicate, invalid, required
from kubewire.components.apiserver.kinds.spec import FieldError

_MOST = 64


def validate(
    conditions: Sequence[Mapping[str, str]], path: str, params: bool = False
) -> list[FieldError]:
    """Nothing of CEL is loaded when there are no conditions."""
    errors: list[FieldError] = []
    if len(conditions) > _MOST:
        detail = f"must have at most {_MOST} items"
        errors.append(FieldError("TooMany", path, len(conditions), detail))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        at = f"{path}[{index}]"
        errors += expression(condition.get("expression") or "", f"{at}.expression", params)
        name = condition.get("name") or ""
        if not name:
            errors.append(required(f"{at}.name"))
            continue
        errors += by_rule(names.qualified_name, f"{at}.name", name)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors


def expression(
    text: str,
    path: str,
    params: bool,
    result: str = "BOOL",
    variables: Mapping[str, str] | None = None,
    missing: str = "",
    authorizer: bool = True,
) -> list[FieldError]:
    """Checks one expression, which must be there."""
    return typed_expression(text, path, params, result, variables, missing, authorizer)[0]


def typed_expression(
    text: str,
    path: str,
    params: bool,
    result: str,
    variables: Mapping[str, str] | None,
    missing: str,
    authorizer: bool = True,
) -> tuple[list[FieldError], str]:
    """Like expression(); returns the type of a correct expression, too."""
    if not text.strip():
        return [required(path, missing)], ""
    from kubewire.components.apiserver.cel import policies
    from kubewire.components.apiserver.cel.engine import CompileError

    try:
        kind = policies.check(
            text, result, params=params, variables=variables, authorizer=authorizer
        )
        return [], kind
    except CompileError as error:
        return [invalid(path, text, str(error))], ""
