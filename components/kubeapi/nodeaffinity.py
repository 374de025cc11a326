"""Tests whether a pod's nodeSelector and required node affinity admit a node
(https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/).

The scheduler and the DaemonSet controller share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Node,
        NodeSelectorRequirement,
        NodeSelectorTerm,
        PodSpec,
    )


def pod_admits_node(pod_spec: PodSpec, node: Node) -> bool:
    """Tests nodeSelector and requiredDuringSchedulingIgnoredDuringExecution; both must admit the
    node."""
    labels = node["metadata"].get("labels") or {}
    selector = pod_spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    required = required_terms(pod_spec)
    return required is None or any(term_matches(term, node) for term in required)


def required_terms(pod_spec: PodSpec) -> list[NodeSelectorTerm] | None:
    """The nodeSelectorTerms, which are ORed; None if there is no requirement, which admits every
    node."""
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else list(required.get("nodeSelectorTerms") or [])


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    """True if all expressions and fields of a term match. An empty term matches nothing."""
    expressions = term.get("matchExpressions") or []
    fields = term.get("matchFields") or []
    if not expressions and not fields:
        return False
    labels = node["metadata"].get("labels") or {}
    names = {"metadata.name": node["metadata"]["name"]}
    return all(requirement_matches(item, labels) for item in expressions) and all(
        requirement_matches(item, names) for item in fields
    )


def requirement_matches(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    key = requirement["key"]
    operator = requirement["operator"]
    values = requirement.get("values") or []
    present = key in labels
    match operator:
        case "In":
            return present and labels[key] in values
        case "NotIn":
            return not present or labels[key] not in values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case "Gt" | "Lt":
            return present and _compares(str(labels[key]), operator, values)
    return False


def _compares(label: str, operator: str, values: list[str]) -> bool:
    try:
        left = int(label)
        right = int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right
