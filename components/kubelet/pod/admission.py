"""Decides whether this node can take a pod that was bound to it. Pure.

The scheduler has checked the same, but a pod may be bound without it (spec.nodeName, static pods),
or two of its decisions may meet. A pod that is rejected fails for good, with the reason that
upstream's kubelet gives (pkg/kubelet/lifecycle/predicate.go). A critical pod is only rejected when
other pods cannot make room for it (preemption.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.nodeaffinity import pod_admits_node
from kubewire.components.kubeapi.podneeds import amount, host_ports, total_requests
from kubewire.components.kubeapi.taints import NO_EXECUTE, untolerated
from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, Pod


@dataclass(frozen=True)
class Rejection:
    """Why a pod is rejected. of_node: it depends on the Node object, which may have changed since
    it was read. missing: the resource that is short, and by how much."""

    reason: str
    message: str
    of_node: bool = False
    missing: tuple[str, int] | None = None


def rejections(
    pod: Pod,
    others: Iterable[Pod],
    node: Node,
    allocatable: Mapping[str, str],
) -> list[Rejection]:
    """All reasons against the pod, in upstream's order. others: the pods that the node has admitted
    and that have not ended."""
    admitted = list(others)
    return [*_resources(pod, admitted, allocatable), *_placement(pod, admitted, node)]


def _resources(pod: Pod, others: list[Pod], allocatable: Mapping[str, str]) -> Iterator[Rejection]:
    capacity = {name: amount(name, quantity) for name, quantity in allocatable.items()}
    if len(others) + 1 > capacity.get("pods", 0):
        yield _out_of("pods", 1, len(others), capacity.get("pods", 0))
    used: dict[str, int] = {}
    for other in others:
        for name, number in total_requests(other["spec"], {}).items():
            used[name] = used.get(name, 0) + number
    for name, wanted in total_requests(pod["spec"], {}).items():
        # As upstream, a resource that the node does not know is left to the scheduler.
        if name in capacity and wanted > 0 and wanted > capacity[name] - used.get(name, 0):
            yield _out_of(name, wanted, used.get(name, 0), capacity[name])


def _out_of(name: str, wanted: int, used: int, capacity: int) -> Rejection:
    text = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}"
    missing = (name, wanted - (capacity - used))
    return Rejection(f"OutOf{name}", f"{text}, capacity: {capacity}", missing=missing)


def _placement(pod: Pod, others: list[Pod], node: Node) -> Iterator[Rejection]:
    spec = pod["spec"]
    if not pod_admits_node(spec, node):
        text = "node(s) didn't match Pod's node affinity/selector"
        yield _predicate("NodeAffinity", text, of_node=True)
    taken = [port for other in others for port in host_ports(other["spec"])]
    if any(port.conflicts(used) for port in host_ports(spec) for used in taken):
        text = "node(s) didn't have free ports for the requested pod ports"
        yield _predicate("NodePorts", text)
    taints = (node.get("spec") or {}).get("taints") or ()
    tolerations = spec.get("tolerations") or ()
    if not pods.is_static(pod) and untolerated(taints, tolerations, (NO_EXECUTE,)):
        text = "node(s) had taints that the pod didn't tolerate"
        yield _predicate("TaintToleration", text, of_node=True)


def _predicate(name: str, text: str, *, of_node: bool = False) -> Rejection:
    return Rejection(name, f"Predicate {name} failed: {text}", of_node)
