"""ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings
(admissionregistration.k8s.io/v1).

The registry's admission evaluates them; this module has what the objects must look like
(admissionregistration/validation).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.cluster import admissionrules, matchconditions
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.labelselectors import validate_selector
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import KubeObject, Resource

GROUP = "admissionregistration.k8s.io"


def _resource(plural: str, kind: str) -> Resource[KubeObject]:
    return Resource(GROUP, "v1", plural, kind, namespaced=False)


VALIDATING = _resource("validatingadmissionpolicies", "ValidatingAdmissionPolicy")
VALIDATING_BINDING = _resource(
    "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"
)
MUTATING = _resource("mutatingadmissionpolicies", "MutatingAdmissionPolicy")
MUTATING_BINDING = _resource("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding")

_ACTIONS = ("Audit", "Deny", "Warn")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_MOST_ANNOTATIONS = 20
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


def default_policy(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    _default_match(spec.get("matchConstraints"))


def default_binding(obj: KubeObject) -> None:
    _default_match((obj.get("spec") or {}).get("matchResources"))


def _default_match(match: dict[str, Any] | None) -> None:
    if match is None:
        return
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for key in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(key) or ():
            rule.setdefault("scope", "*")


def validate_validating(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    params = spec.get("paramKind") is not None
    errors, known = _common(spec, params)
    validations = spec.get("validations") or ()
    annotations = spec.get("auditAnnotations") or ()
    if not validations and not annotations:
        text = "validations or auditAnnotations must contain at least one item"
        errors += [required(f"spec.{key}", text) for key in ("validations", "auditAnnotations")]
    for index, validation in enumerate(validations):
        errors += _validation(validation, f"spec.validations[{index}]", params, known)
    return errors + _annotations(obj, annotations, params, known)


def validate_mutating(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    params = spec.get("paramKind") is not None
    errors, known = _common(spec, params)
    mutations = spec.get("mutations") or ()
    if not mutations:
        errors.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, mutation in enumerate(mutations):
        errors += _mutation(mutation, f"spec.mutations[{index}]", params, known)
    policy = spec.get("reinvocationPolicy")
    return errors + one_of("spec.reinvocationPolicy", policy, ("IfNeeded", "Never"))


def _common(spec: Mapping[str, Any], params: bool) -> tuple[list[FieldError], dict[str, str]]:
    """The errors of what both kinds have, and the types of the variables."""
    errors = one_of("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    if params:
        errors += _param_kind(spec["paramKind"], "spec.paramKind")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        errors.append(required("spec.matchConstraints"))
    else:
        errors += _match_resources(constraints, "spec.matchConstraints")
        if not constraints.get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
    conditions = spec.get("matchConditions") or ()
    errors += matchconditions.validate(conditions, "spec.matchConditions", params)
    known: dict[str, str] = {}
    for index, variable in enumerate(spec.get("variables") or ()):
        errors += _variable(variable, f"spec.variables[{index}]", params, known)
    return errors, known


def _param_kind(kind: Mapping[str, str], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    version = kind.get("apiVersion") or ""
    group, _, name = version.rpartition("/")
    if not version:
        errors.append(required(f"{path}.apiVersion"))
    elif group:
        errors += by_rule(names.dns1123_subdomain, f"{path}.apiVersion", group)
    if version:
        errors += by_rule(names.dns1035_label, f"{path}.apiVersion", name)
    if not kind.get("kind"):
        errors.append(required(f"{path}.kind"))
    elif texts := names.dns1035_label(kind["kind"].lower()):
        text = "may have mixed case, but should otherwise match: " + ",".join(texts)
        errors.append(invalid(f"{path}.kind", kind["kind"], text))
    return errors


def _match_resources(match: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = one_of(f"{path}.matchPolicy", match.get("matchPolicy"), ("Equivalent", "Exact"))
    for key in ("namespaceSelector", "objectSelector"):
        errors += validate_selector(match.get(key) or {}, f"{path}.{key}")
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(key) or ()):
            errors += _named_rule(rule, f"{path}.{key}[{index}]")
    return errors


def _named_rule(rule: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    listed = rule.get("resourceNames") or []
    for index, name in enumerate(listed):
        errors += by_rule(names.path_segment, f"{path}.resourceNames[{index}]", name)
        if name in listed[:index]:
            errors.append(duplicate(f"{path}.resourceNames[{index}]", name))
    return errors + admissionrules.validate(rule, path)


def _variable(
    variable: Mapping[str, str], path: str, params: bool, known: dict[str, str]
) -> list[FieldError]:
    """Validates a variable and adds its type to those that are known."""
    name = variable.get("name") or ""
    errors: list[FieldError] = []
    if not name.strip():
        errors.append(required(f"{path}.name", "name is not specified"))
    elif not _IDENTIFIER.fullmatch(name):
        errors.append(invalid(f"{path}.name", name, "name is not a valid CEL identifier"))
    text = variable.get("expression") or ""
    missing = "expression is not specified"
    wrong, kind = matchconditions.typed_expression(
        text, f"{path}.expression", params, "", known, missing
    )
    if not errors:
        known[name] = kind
    return errors + wrong


def _validation(
    validation: Mapping[str, Any], path: str, params: bool, known: Mapping[str, str]
) -> list[FieldError]:
    missing = "expression is not specified"
    text = validation.get("expression") or ""
    at = f"{path}.expression"
    errors = matchconditions.expression(text, at, params, "BOOL", known, missing)
    said = validation.get("messageExpression") or ""
    at = f"{path}.messageExpression"
    if said and not said.strip():
        errors.append(invalid(at, said, "must be non-empty if specified"))
    elif said:
        errors += matchconditions.expression(said, at, params, "STRING", known, authorizer=False)
    message = validation.get("message") or ""
    if message and not message.strip():
        text = "message must be non-empty if specified"
        errors.append(invalid(f"{path}.message", message, text))
    elif "\n" in message.strip():
        errors.append(invalid(f"{path}.message", message, "message must not contain line breaks"))
    reason = validation.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.append(not_supported(f"{path}.reason", reason, _REASONS))
    return errors


def _annotations(
    obj: KubeObject,
    annotations: Sequence[Mapping[str, str]],
    params: bool,
    known: Mapping[str, str],
) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(annotations) > _MOST_ANNOTATIONS:
        text = f"must not have more than {_MOST_ANNOTATIONS} auditAnnotations"
        errors.append(invalid("spec.auditAnnotations", list(annotations), text))
    keys: list[str] = []
    for index, annotation in enumerate(annotations):
        path = f"spec.auditAnnotations[{index}]"
        key = annotation.get("key") or ""
        full = f"{obj['metadata'].get('name', '')}/{key}"
        errors += by_rule(names.qualified_name, f"{path}.key", full)
        errors += matchconditions.expression(
            annotation.get("valueExpression") or "",
            f"{path}.valueExpression",
            params,
            "STRING|NULL",
            known,
            "valueExpression is not specified",
        )
        if key in keys:
            errors.append(duplicate(f"{path}.key", key))
        keys.append(key)
    return errors


_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}


def _mutation(
    mutation: Mapping[str, Any], path: str, params: bool, known: Mapping[str, str]
) -> list[FieldError]:
    kind = mutation.get("patchType")
    field = _PATCHES.get(kind or "")
    if not kind:
        return [required(f"{path}.patchType")]
    if field is None:
        return [not_supported(f"{path}.patchType", kind, sorted(_PATCHES))]
    errors: list[FieldError] = []
    for other in set(_PATCHES.values()) - {field}:
        if mutation.get(other) is not None:
            text = f"must not be specified when patchType is {kind}"
            errors.append(forbidden(f"{path}.{other}", text))
    if mutation.get(field) is None:
        text = f"must be specified when patchType is {kind}"
        return [*errors, required(f"{path}.{field}", text)]
    expression = mutation[field].get("expression") or ""
    return errors + _patch(expression, f"{path}.{field}.expression", kind, params, known)


def _patch(
    text: str, path: str, kind: str, params: bool, known: Mapping[str, str]
) -> list[FieldError]:
    if not text.strip():
        return [required(path, "expression is not specified")]
    from kubewire.components.apiserver.cel import mutations
    from kubewire.components.apiserver.cel.engine import CompileError

    try:
        mutations.check(text, kind, params=params, variables=known)
    except CompileError as error:
        return [invalid(path, text, str(error))]
    return []


def validate_validating_binding(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _binding(spec)
    actions = spec.get("validationActions") or []
    for index, action in enumerate(actions):
        at = f"spec.validationActions[{index}]"
        if action not in _ACTIONS:
            errors.append(not_supported(at, action, _ACTIONS))
        if action in actions[:index]:
            errors.append(duplicate(at, action))
    if "Deny" in actions and "Warn" in actions:
        text = "must not contain both Deny and Warn (repeating the same validation failure"
        text += " information in the API response and headers serves no purpose)"
        errors.append(invalid("spec.validationActions", actions, text))
    if not actions:
        text = "at least one validation action is required"
        errors.append(required("spec.validationActions", text))
    return errors


def validate_mutating_binding(obj: KubeObject) -> list[FieldError]:
    return _binding(obj.get("spec") or {})


def _binding(spec: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    if not spec.get("policyName"):
        errors.append(required("spec.policyName"))
    else:
        errors += by_rule(names.dns1123_subdomain, "spec.policyName", spec["policyName"])
    if spec.get("paramRef") is not None:
        errors += _param_ref(spec["paramRef"], "spec.paramRef")
    if spec.get("matchResources") is not None:
        # The path is misspelt upstream.
        errors += _match_resources(spec["matchResources"], "spec.matchResouces")
    return errors


def _param_ref(reference: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name, selector = reference.get("name"), reference.get("selector")
    both = "name and selector are mutually exclusive"
    if name:
        errors += by_rule(names.path_segment, f"{path}.name", name)
        if selector is not None:
            errors += [forbidden(f"{path}.{key}", both) for key in ("name", "selector")]
    if selector is not None:
        errors += validate_selector(selector, f"{path}.selector")
    if not name and selector is None:
        errors.append(required(path, "one of name or selector must be specified"))
    action = reference.get("parameterNotFoundAction")
    return errors + one_of(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow"))


def _param_kind_cell(obj: KubeObject) -> str:
    kind = cells.at(obj, "spec", "paramKind")
    return f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else "<unset>"


def _validating_row(obj: KubeObject, now: datetime) -> list[Any]:
    number = len(cells.at(obj, "spec", "validations") or ())
    return [cells.name(obj), number, _param_kind_cell(obj), cells.age(obj, now)]


def _mutating_row(obj: KubeObject, now: datetime) -> list[Any]:
    number = len(cells.at(obj, "spec", "mutations") or ())
    return [cells.name(obj), number, _param_kind_cell(obj), cells.age(obj, now)]


def _binding_row(obj: KubeObject, now: datetime) -> list[Any]:
    reference = cells.at(obj, "spec", "paramRef")
    shown = "<unset>"
    if reference:
        place = reference.get("name") or "*"
        shown = f"{reference['namespace']}/{place}" if reference.get("namespace") else place
    return [cells.name(obj), cells.at(obj, "spec", "policyName") or "", shown, cells.age(obj, now)]


_KIND_COLUMN = Column("ParamKind", "string", "", "The kind of its parameters")
_BINDING_COLUMNS = (
    cells.NAME,
    Column("PolicyName", "string", "", "The policy that it binds"),
    Column("ParamRef", "string", "", "The parameters that it uses"),
    cells.AGE,
)

VALIDATING_KIND = KindSpec(
    resource=VALIDATING,
    singular="validatingadmissionpolicy",
    categories=("api-extensions",),
    subresources=("status",),
    default=default_policy,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_validating,
    validate_update=lambda new, old: validate_validating(new),
    columns=(
        cells.NAME,
        Column("Validations", "integer", "", "Number of its validations"),
        _KIND_COLUMN,
        cells.AGE,
    ),
    row=_validating_row,
    unconditional_update=False,
    generation=True,
)
VALIDATING_BINDING_KIND = KindSpec(
    resource=VALIDATING_BINDING,
    singular="validatingadmissionpolicybinding",
    categories=("api-extensions",),
    default=default_binding,
    validate_create=validate_validating_binding,
    validate_update=lambda new, old: validate_validating_binding(new),
    columns=_BINDING_COLUMNS,
    row=_binding_row,
    unconditional_update=False,
    generation=True,
)
MUTATING_KIND = KindSpec(
    resource=MUTATING,
    singular="mutatingadmissionpolicy",
    categories=("api-extensions",),
    default=default_policy,
    validate_create=validate_mutating,
    validate_update=lambda new, old: validate_mutating(new),
    columns=(
        cells.NAME,
        Column("Mutations", "integer", "", "Number of its mutations"),
        _KIND_COLUMN,
        cells.AGE,
    ),
    row=_mutating_row,
    unconditional_update=False,
    generation=True,
)
MUTATING_BINDING_KIND = KindSpec(
    resource=MUTATING_BINDING,
    singular="mutatingadmissionpolicybinding",
    categories=("api-extensions",),
    default=default_binding,
    validate_create=validate_mutating_binding,
    validate_update=lambda new, old: validate_mutating_binding(new),
    columns=_BINDING_COLUMNS,
    row=_binding_row,
    unconditional_update=False,
    generation=True,
)
