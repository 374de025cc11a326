"""Validation that Deployment, ReplicaSet, DaemonSet, StatefulSet and Job share: selector and
template (pkg/apis/apps/validation, pkg/apis/batch/validation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds.fielderrors import (
    forbidden,
    immutable,
    invalid,
    not_negative,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.labelselectors import is_empty, validate_selector
from kubewire.components.apiserver.kinds.names import percent
from kubewire.components.apiserver.kinds.pods.pod_validation import (
    validate_pod_template,
    validate_template_metadata,
)
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector, SelectorError

Spec = Mapping[str, Any]

_MISMATCH = "`selector` does not match template `labels`"


def validate_selector_and_template(
    spec: Spec,
    kind: str,
    restart_policies: Sequence[str] = ("Always",),
    *,
    empty_text: str = "",
    whole: bool = True,
) -> list[FieldError]:
    """Validates the selector, the template and that they match.

    kind is the kind's name in the error texts. whole validates the template's pod too.
    """
    selector = spec.get("selector")
    template = spec.get("template") or {}
    if selector is None:
        errors = [required("spec.selector")]
    else:
        errors = validate_selector(selector, "spec.selector")
        if is_empty(selector):
            text = empty_text or f"empty selector is invalid for {kind}"
            errors.append(invalid("spec.selector", selector, text))
    errors += _match(selector, template)
    return errors + validate_template(template, kind, restart_policies, whole=whole)


def validate_template(
    template: Spec,
    kind: str,
    restart_policies: Sequence[str] = ("Always",),
    *,
    whole: bool = True,
) -> list[FieldError]:
    """Validates spec.template; whole validates its pod too."""
    validate = validate_pod_template if whole else validate_template_metadata
    errors = validate(template, "spec.template")
    return errors + _template_pod(template.get("spec") or {}, kind, restart_policies)


def _match(selector: Spec | None, template: Spec) -> list[FieldError]:
    # An absent selector is labels.Nothing(), which matches no template.
    if selector is not None and is_empty(selector):
        return []
    labels = (template.get("metadata") or {}).get("labels")
    try:
        if LabelSelector.from_object(selector).matches(labels or {}):
            return []
    except (SelectorError, KeyError, TypeError):
        # The selector's own errors are reported already.
        return []
    return [invalid("spec.template.metadata.labels", labels, _MISMATCH)]


def _template_pod(pod: Spec, kind: str, restart_policies: Sequence[str]) -> list[FieldError]:
    errors = []
    policy = pod.get("restartPolicy")
    if policy in ("Always", "OnFailure", "Never") and policy not in restart_policies:
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, restart_policies))
    if pod.get("activeDeadlineSeconds") is not None and "Always" in restart_policies:
        text = f"activeDeadlineSeconds in {kind} is not Supported"
        errors.append(forbidden("spec.template.spec.activeDeadlineSeconds", text))
    return errors


def not_negative_fields(spec: Spec, path: str, *fields: str) -> list[FieldError]:
    return [error for key in fields for error in not_negative(f"{path}.{key}", spec.get(key))]


def selector_is_immutable(new: KubeObject, old: KubeObject) -> list[FieldError]:
    after = new.get("spec") or {}
    before = old.get("spec") or {}
    return immutable("spec.selector", after.get("selector"), before.get("selector"))


def int_or_percent(path: str, value: int | str | None) -> list[FieldError]:
    """Validates a non-negative number or a percentage.

    Upstream's names are ValidatePositiveIntOrPercent and IsNotMoreThan100Percent.
    """
    if value is None:
        return []
    if isinstance(value, int):
        return not_negative(path, value)
    wrong = percent(value)
    return [invalid(path, value, text) for text in wrong]


def as_number(value: int | str | None) -> int:
    """The number of an amount or a percentage, which is enough to compare it with 0 and 100."""
    if isinstance(value, int):
        return value
    text = (value or "").removesuffix("%")
    return int(text) if text.isdecimal() else 0


def at_most_all(path: str, value: int | str | None) -> list[FieldError]:
    if isinstance(value, str) and not percent(value) and as_number(value) > 100:
        return [invalid(path, value, "must not be greater than 100%")]
    return []


def replica_status(new: KubeObject) -> list[FieldError]:
    """Validates status.*Replicas of ReplicaSets and Deployments."""
    status = new.get("status") or {}
    fields = (
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
    )
    errors = not_negative_fields(status, "status", *fields)
    total = status.get("replicas", 0)
    for key in fields[1:]:
        if status.get(key, 0) > total:
            errors.append(
                invalid(
                    f"status.{key}",
                    status.get(key, 0),
                    "cannot be greater than status.replicas",
                )
            )
    if status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
        text = "cannot be greater than readyReplicas"
        errors.append(invalid("status.availableReplicas", status.get("availableReplicas", 0), text))
    return errors
