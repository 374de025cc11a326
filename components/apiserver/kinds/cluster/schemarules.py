"""Checks the rules of x-kubernetes-validations when a definition is written
(apiextensions/validation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.components.apiserver.cel.engine import CompileError
from kubewire.components.apiserver.cel.schematypes import Types, with_resource
from kubewire.components.apiserver.cel.selfrules import MessageError, compile_rule, typed
from kubewire.components.apiserver.kinds.fielderrors import invalid, not_supported, required
from kubewire.components.apiserver.kinds.spec import FieldError

Schema = Mapping[str, Any]

RULES = "x-kubernetes-validations"
_REASONS = (
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
)


def errors(schema: Schema, path: str) -> list[FieldError]:
    """The errors of all rules of a version's schema, which is structural."""
    places = list(_with_rules(with_resource(schema), path, ""))
    if not places:
        return []
    found = [error for place, inner, _ in places for error in _form_errors(inner, place)]
    return found or _compile_errors(places)


def _with_rules(schema: Schema, path: str, loose: str) -> Iterator[tuple[str, Schema, str]]:
    """The schemas that have rules, with their path and the list around them whose items have no
    identity.
    """
    if schema.get(RULES):
        yield path, schema, loose
    for name, inner in (schema.get("properties") or {}).items():
        yield from _with_rules(inner, f"{path}.properties[{name}]", loose)
    if isinstance(inner := schema.get("additionalProperties"), Mapping):
        yield from _with_rules(inner, f"{path}.additionalProperties", loose)
    if isinstance(inner := schema.get("items"), Mapping):
        identified = schema.get("x-kubernetes-list-type") == "map"
        yield from _with_rules(inner, f"{path}.items", loose if identified else loose or path)


def _form_errors(schema: Schema, path: str) -> Iterator[FieldError]:
    for index, rule in enumerate(schema[RULES]):
        at = f"{path}.{RULES}[{index}]"
        text, message = rule.get("rule") or "", rule.get("message") or ""
        if not text.strip():
            yield required(f"{at}.rule", "rule is not specified")
        elif message and not message.strip():
            yield invalid(f"{at}.message", message, "must be non-empty if specified")
        elif "\n" in message.strip():
            yield invalid(f"{at}.message", message, "must not contain line breaks")
        elif "\n" in text.strip() and not message:
            detail = "message must be specified if rule contains line breaks"
            yield required(f"{at}.message", detail)
        if rule.get("messageExpression") and not rule["messageExpression"].strip():
            yield required(f"{at}.messageExpression", "must be non-empty if specified")
        if (reason := rule.get("reason")) is not None and reason not in _REASONS:
            yield not_supported(f"{at}.reason", reason, _REASONS)
        if where := rule.get("fieldPath"):
            yield from _path_errors(where, schema, f"{at}.fieldPath")


def _path_errors(where: str, schema: Schema, at: str) -> Iterator[FieldError]:
    if not where.strip():
        yield invalid(at, where, "must be non-empty if specified")
    elif not _leads_somewhere(where, schema):
        yield invalid(at, where, "must be a valid path")


def _leads_somewhere(where: str, schema: Schema) -> bool:
    if not where.startswith((".", "[")):
        return False
    node: Any = schema
    for name in where.replace("['", ".").replace("']", "").split(".")[1:]:
        properties = node.get("properties") or {}
        additional = node.get("additionalProperties")
        node = properties.get(name) or (additional if isinstance(additional, Mapping) else None)
        if node is None:
            return False
    return True


def _compile_errors(places: list[tuple[str, Schema, str]]) -> list[FieldError]:
    types = Types()
    named = [(path, schema, loose, types.name(schema)) for path, schema, loose in places]
    pool = types.pool()
    found: list[FieldError] = []
    for path, schema, loose, name in named:
        environment = typed(name, pool)
        for index, rule in enumerate(schema[RULES]):
            at = f"{path}.{RULES}[{index}]"
            try:
                compiled = compile_rule(rule, environment)
            except MessageError as error:
                found.append(invalid(f"{at}.messageExpression", _shown(rule), str(error)))
            except CompileError as error:
                found.append(invalid(f"{at}.rule", _shown(rule), str(error)))
            else:
                found += _transition_errors(rule, compiled.uses_old, loose, at)
    return found


def _transition_errors(rule: Schema, uses_old: bool, loose: str, at: str) -> Iterator[FieldError]:
    if uses_old and loose:
        text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {loose}"
        yield invalid(f"{at}.rule", rule["rule"], text)
    if not uses_old and rule.get("optionalOldSelf") is not None:
        text = "may not be set if oldSelf is not used in rule"
        yield invalid(f"{at}.optionalOldSelf", rule["optionalOldSelf"], text)


def _shown(rule: Schema) -> dict[str, Any]:
    """The rule as upstream's errors print it: a Go struct without JSON names."""
    return {
        "Rule": rule.get("rule", ""),
        "Message": rule.get("message", ""),
        "MessageExpression": rule.get("messageExpression", ""),
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
