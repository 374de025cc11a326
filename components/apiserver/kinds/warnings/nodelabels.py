"""Labels of nodes that have newer names (pkg/api/node/util.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names

DEPRECATED = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": (
        'deprecated since v1.17; use "topology.kubernetes.io/region" instead'
    ),
    "failure-domain.beta.kubernetes.io/zone": (
        'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'
    ),
    "beta.kubernetes.io/instance-type": (
        'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'
    ),
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": (
        "deprecated since v1.22; use Taints and Tolerations instead"
    ),
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}


def selector_warnings(labels: Mapping[str, Any], path: str) -> list[str]:
    """About a map of labels; each text names the label as a key."""
    return [f"{path}[{key}]: {DEPRECATED[key]}" for key in sorted(labels) if key in DEPRECATED]


def term_warnings(term: Mapping[str, Any], path: str, *, values: bool = False) -> list[str]:
    """About a NodeSelectorTerm. With values also about values that no label can have."""
    warnings = []
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        key = expression.get("key", "")
        if key in DEPRECATED:
            warnings.append(f"{at}.key: {key} is {DEPRECATED[key]}")
        if values:
            warnings += _value_warnings(expression.get("values") or (), at)
    return warnings


def _value_warnings(values: Iterable[str], path: str) -> list[str]:
    return [
        f"{path}.values[{index}]: {value} is invalid, {text}"
        for index, value in enumerate(values)
        for text in names.label_value(value)
    ]


def affinity_warnings(affinity: Mapping[str, Any], path: str) -> list[str]:
    """About a NodeAffinity."""
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    at = f"{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    warnings = []
    for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
        warnings += term_warnings(term, f"{at}[{index}]")
    at = f"{path}.preferredDuringSchedulingIgnoredDuringExecution"
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for index, term in enumerate(preferred):
        warnings += term_warnings(
            term.get("preference") or {}, f"{at}[{index}].preference", values=True
        )
    return warnings
