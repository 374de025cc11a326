"""The plugin ValidatingAdmissionPolicy (admission/plugin/policy/validating)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.cel.authorization import Decide
from kubewire.components.apiserver.cel.engine import EvaluationError
from kubewire.components.apiserver.cel.policies import Variables, all_hold
from kubewire.components.apiserver.registry.admission.plugin import Attributes
from kubewire.components.apiserver.registry.admission.policies.definitions import Policies, Policy
from kubewire.components.apiserver.registry.admission.policies.matching import Use, values
from kubewire.components.apiserver.registry.admission.policies.policyplugin import PolicyPlugin
from kubewire.components.apiserver.registry.catalog import Catalog
from kubewire.components.apiserver.store import Store

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_LONGEST_MESSAGE = 5 * 1024
_EXPRESSIONS = {
    "validation": ("validations", "expression"),
    "message": ("validations", "messageExpression"),
    "annotation": ("auditAnnotations", "valueExpression"),
}


@dataclass(frozen=True)
class _Decision:
    """A validation that does not hold, or an expression that fails."""

    message: str
    reason: str = ""


class ValidatingAdmissionPolicy(PolicyPlugin):
    """Evaluates every policy that is bound for a request.

    Auditing does not exist here, so the action Audit and audit annotations have no effect beyond
    their failures.
    """

    name = "ValidatingAdmissionPolicy"

    def __init__(self, store: Store, catalog: Catalog, decide: Decide) -> None:
        super().__init__(store, catalog, Policies(store, "validating", _EXPRESSIONS), decide)

    def validate(self, attributes: Attributes) -> None:
        denied: list[tuple[str, _Decision]] = []
        for policy in self._policies.all():
            for use in self._matcher.uses(policy, attributes):
                if isinstance(use, tuple):
                    if not policy.fails_open:
                        denied.append((_subject(policy.name, use[0]), _Decision(use[1])))
                    continue
                self._apply(use, attributes, denied)
        if denied:
            raise _refusal(attributes, *denied[0])

    def _apply(self, use: Use, attributes: Attributes, denied: list[tuple[str, _Decision]]) -> None:
        name = use.binding["metadata"]["name"]
        actions = use.binding["spec"].get("validationActions") or ()
        seen = values(use, attributes, self.store, self._decide)
        for decision in _decisions(use.policy, seen):
            if "Deny" in actions:
                denied.append((_subject(use.policy.name, name), decision))
            if "Warn" in actions:
                text = f"Validation failed for ValidatingAdmissionPolicy '{use.policy.name}'"
                attributes.warnings.append(f"{text} with binding '{name}': {decision.message}")


def _subject(policy: str, binding: str) -> str:
    return f"ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request"


def _refusal(attributes: Attributes, subject: str, decision: _Decision) -> status.StatusError:
    served = attributes.served
    message = f"{subject}: {decision.message}"
    name = attributes.name
    if attributes.generated_name:
        name = attributes.obj["metadata"]["generateName"]
    error = status.forbidden(served.group, served.plural, name or "Unknown", message)
    reason = decision.reason or "Invalid"
    error.body["reason"] = reason
    error.body["code"] = _CODES.get(reason, 422)
    error.body["details"]["causes"] = [{"message": message}]
    return error


def _decisions(policy: Policy, seen: Mapping[str, Any]) -> Iterator[_Decision]:
    """What the policy objects to; an expression that fails counts unless the policy ignores it."""
    try:
        if not all_hold(policy.conditions, seen):
            return
    except EvaluationError as error:
        if not policy.fails_open:
            yield _Decision(str(error))
        return
    variables = Variables(policy.variables, seen)
    programs = policy.expressions["validation"]
    for index, validation in enumerate(policy.spec.get("validations") or ()):
        program = programs[index]
        assert program is not None
        text = validation["expression"]
        try:
            if variables.evaluate(program, seen) is True:
                continue
        except EvaluationError as error:
            if not policy.fails_open:
                yield _Decision(f"expression '{text}' resulted in error: {error}")
            continue
        message = _message(policy, index, variables, seen)
        yield _Decision(message, validation.get("reason") or "Invalid")
    yield from _annotation_failures(policy, variables, seen)


def _message(policy: Policy, index: int, variables: Variables, seen: Mapping[str, Any]) -> str:
    validation = policy.spec["validations"][index]
    program = policy.expressions["message"][index]
    if program is not None:
        try:
            said = variables.evaluate(program, seen)
        except EvaluationError:
            said = None
        text = said.strip() if isinstance(said, str) else ""
        if text and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE:
            return text
    if message := (validation.get("message") or "").strip():
        return str(message)
    return f"failed expression: {validation['expression'].strip()}"


def _annotation_failures(
    policy: Policy, variables: Variables, seen: Mapping[str, Any]
) -> Iterator[_Decision]:
    for program in policy.expressions["annotation"]:
        assert program is not None
        try:
            variables.evaluate(program, seen)
        except EvaluationError as error:
            if not policy.fails_open:
                yield _Decision(str(error))
