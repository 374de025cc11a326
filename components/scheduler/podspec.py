"""The facts about a pod that scheduling needs, computed once: requests, ports, affinity,
spreading.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kubewire.components.kubeapi.podneeds import HostPort, Requests, host_ports, total_requests
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Pod,
        PodAffinityTerm,
        PodSpec,
        Toleration,
        TopologySpreadConstraint,
        WeightedPodAffinityTerm,
    )

#: Requests that scoring assumes for a container without its own (GetNonzeroRequests).
DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024


@dataclass(frozen=True)
class Term:
    """A pod affinity or anti-affinity term.

    It applies to the namespaces listed by name and to those that namespace_selector matches.
    """

    topology_key: str
    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None = None
    weight: int = 0

    def matches(self, pod: PodInfo, namespace_labels: Mapping[str, Mapping[str, str]]) -> bool:
        return self.covers(pod.namespace, namespace_labels) and self.selector.matches(pod.labels)

    def covers(self, namespace: str, namespace_labels: Mapping[str, Mapping[str, str]]) -> bool:
        if namespace in self.namespaces:
            return True
        chosen = self.namespace_selector
        return chosen is not None and chosen.matches(dict(namespace_labels.get(namespace, {})))


@dataclass(frozen=True)
class Constraint:
    """An entry of topologySpreadConstraints; hard means DoNotSchedule."""

    max_skew: int
    topology_key: str
    hard: bool
    selector: LabelSelector
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(frozen=True, eq=False)
class PodInfo:
    """A pod with its scheduling facts.

    requests holds CPU in millicores and other resources in their base unit; scored is the same
    with defaults for absent requests. affinity and anti_affinity are required terms, preferred and
    avoided the weighted ones.
    """

    obj: Pod
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    requests: Requests
    scored: Requests
    ports: tuple[HostPort, ...]
    priority: int
    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    preferred: tuple[Term, ...] = ()
    avoided: tuple[Term, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    tolerations: tuple[Toleration, ...] = field(default_factory=tuple)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def spec(self) -> PodSpec:
        return self.obj["spec"]

    @classmethod
    def of(cls, pod: Pod) -> PodInfo:
        metadata = pod["metadata"]
        spec = pod["spec"]
        namespace = metadata["namespace"]
        labels = metadata.get("labels") or {}
        affinity = spec.get("affinity") or {}
        near = affinity.get("podAffinity") or {}
        far = affinity.get("podAntiAffinity") or {}
        required: Final = "requiredDuringSchedulingIgnoredDuringExecution"
        preferred: Final = "preferredDuringSchedulingIgnoredDuringExecution"
        constraints = spec.get("topologySpreadConstraints") or ()
        return cls(
            pod,
            namespace,
            metadata["name"],
            metadata["uid"],
            labels,
            total_requests(spec, {}),
            total_requests(spec, {"cpu": DEFAULT_MILLI_CPU, "memory": DEFAULT_MEMORY}),
            host_ports(spec),
            int(spec.get("priority") or 0),
            tuple(_term(item, namespace, labels) for item in near.get(required) or ()),
            tuple(_term(item, namespace, labels) for item in far.get(required) or ()),
            tuple(_weighted(item, namespace, labels) for item in near.get(preferred) or ()),
            tuple(_weighted(item, namespace, labels) for item in far.get(preferred) or ()),
            tuple(_constraint(item, labels) for item in constraints),
            tuple(spec.get("tolerations") or ()),
        )


def _selector(
    item: PodAffinityTerm | TopologySpreadConstraint,
    labels: Mapping[str, str],
    mismatch_keys: Iterable[str] = (),
) -> LabelSelector:
    """labelSelector narrowed by matchLabelKeys and mismatchLabelKeys, with the pod's own values."""
    selector = item.get("labelSelector")
    if selector is None:
        return LabelSelector.from_object(None)
    extra = {key: labels[key] for key in item.get("matchLabelKeys") or () if key in labels}
    differing = [
        {"key": key, "operator": "NotIn", "values": [labels[key]]}
        for key in mismatch_keys
        if key in labels
    ]
    return LabelSelector.from_object(
        {
            "matchLabels": {**(selector.get("matchLabels") or {}), **extra},
            "matchExpressions": [*(selector.get("matchExpressions") or ()), *differing],
        }
    )


def _term(
    item: PodAffinityTerm, namespace: str, labels: Mapping[str, str], weight: int = 0
) -> Term:
    chosen = item.get("namespaceSelector")
    named = frozenset(item.get("namespaces") or ())
    if not named and chosen is None:
        named = frozenset({namespace})
    namespaces = LabelSelector.from_object(chosen) if chosen is not None else None
    return Term(
        item["topologyKey"],
        _selector(item, labels, item.get("mismatchLabelKeys") or ()),
        named,
        namespaces,
        weight,
    )


def _weighted(item: WeightedPodAffinityTerm, namespace: str, labels: Mapping[str, str]) -> Term:
    return _term(item["podAffinityTerm"], namespace, labels, int(item["weight"]))


def _constraint(item: TopologySpreadConstraint, labels: Mapping[str, str]) -> Constraint:
    return Constraint(
        int(item["maxSkew"]),
        item["topologyKey"],
        item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
        _selector(item, labels),
        int(item.get("minDomains") or 1),
        item.get("nodeAffinityPolicy", "Honor") == "Honor",
        item.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def signature(pod: PodInfo) -> str:
    """A key that is equal for pods all filters treat alike, such as the replicas of one
    template.
    """
    ignored = ("hostname", "volumes", "containers")
    spec = {key: item for key, item in pod.spec.items() if key not in ignored}
    parts: list[Any] = [pod.namespace, dict(pod.labels), pod.requests, spec]
    ports = [(port.protocol, port.address, port.port) for port in pod.ports]
    return json.dumps([*parts, ports], sort_keys=True)
