"""The facts about a pod that scheduling needs, computed once: requests, ports, affinity,
spreading.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kubewire.components.kubeapi.quantity import milli_value, value
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Container,
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
_SIDECAR = "Always"

Requests = dict[str, int]


@dataclass(frozen=True)
class HostPort:
    """A port on the node that a container asks for."""

    protocol: str
    address: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        """Whether both need the same port; the address 0.0.0.0 takes it on every address."""
        if (self.protocol, self.port) != (other.protocol, other.port):
            return False
        return self.address == other.address or "0.0.0.0" in (self.address, other.address)


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


def amount(resource: str, quantity: str | int) -> int:
    return milli_value(quantity) if resource == "cpu" else value(quantity)


def total_requests(spec: PodSpec, defaults: Mapping[str, int]) -> Requests:
    """Sums the requests of a pod as the kubelet and upstream's scheduler do.

    The result is the larger of what the containers need together and what any init container needs
    while the sidecars started before it run, plus the overhead. Requests on the level of the pod
    override it (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/).
    """
    running: Requests = {}
    for container in spec.get("containers") or []:
        _add(running, _requests(container, defaults))
    sidecars: Requests = {}
    peak: Requests = {}
    for container in spec.get("initContainers") or []:
        own = _requests(container, defaults)
        if container.get("restartPolicy") == _SIDECAR:
            _add(sidecars, own)
            _add(running, own)
            own = {}
        _raise(peak, {key: own.get(key, 0) + sidecars.get(key, 0) for key in {*own, *sidecars}})
    _raise(running, peak)
    pod_level = (spec.get("resources") or {}).get("requests") or {}
    running |= {key: amount(key, quantity) for key, quantity in pod_level.items()}
    _add(
        running,
        {key: amount(key, quantity) for key, quantity in (spec.get("overhead") or {}).items()},
    )
    return running


def _requests(container: Container, defaults: Mapping[str, int]) -> Requests:
    given = (container.get("resources") or {}).get("requests") or {}
    return {**defaults, **{key: amount(key, quantity) for key, quantity in given.items()}}


def _add(total: Requests, more: Mapping[str, int]) -> None:
    for key, number in more.items():
        total[key] = total.get(key, 0) + number


def _raise(total: Requests, floor: Mapping[str, int]) -> None:
    for key, number in floor.items():
        total[key] = max(total.get(key, 0), number)


def host_ports(spec: PodSpec) -> tuple[HostPort, ...]:
    init = spec.get("initContainers") or []
    sidecars = [item for item in init if item.get("restartPolicy") == _SIDECAR]
    ports = [
        port
        for item in [
            *(spec.get("containers") or []),
            *sidecars,
        ]
        for port in item.get("ports") or []
    ]
    return tuple(
        HostPort(
            port.get("protocol", "TCP"),
            port.get("hostIP") or "0.0.0.0",
            int(port["hostPort"]),
        )
        for port in ports
        if port.get("hostPort")
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
