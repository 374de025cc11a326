"""Decides whether this node can take a pod that was bound to it. Pure.

The scheduler has checked the same, but a pod may be bound without it (spec.nodeName, static pods),
or two of its decisions may meet. A pod that is rejected fails for good, with the reason that
upstream's kubelet gives (pkg/kubelet/lifecycle/predicate.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    it was read."""

    reason: str
    message: str
    of_node: bool = False


def reject(
    pod: Pod,
    others: Iterable[Pod],
    node: Node,
    allocatable: Mapping[str, str],
) -> Rejection | None:
    """The first reason against the pod, in upstream's order. others: the pods that the node has
    admitted and that have not ended."""
    admitted = list(others)
    return _resources(pod, admitted, allocatable) or _placement(pod, admitted, node)


def _resources(pod: Pod, others: list[Pod], allocatable: Mapping[str, str]) -> Rejection | None:
    capacity = {name: amount(name, quantity) for name, quantity in allocatable.items()}
    if len(others) + 1 > capacity.get("pods", 0):
        return _out_of("pods", 1, len(others), capacity.get("pods", 0))
    used: dict[str, int] = {}
    for other in others:
        for name, number in total_requests(other["spec"], {}).items():
            used[name] = used.get(name, 0) + number
    for name, wanted in total_requests(pod["spec"], {}).items():
        # As upstream, a resource that the node does not know is left to the scheduler.
        if name in capacity and wanted > 0 and wanted > capacity[name] - used.get(name, 0):
            return _out_of(name, wanted, used.get(name, 0), capacity[name])
    return None


def _out_of(name: str, wanted: int, used: int, capacity: int) -> Rejection:
    text = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}"
    return Rejection(f"OutOf{name}", f"{text}, capacity: {capacity}")


def _placement(pod: Pod, others: list[Pod], node: Node) -> Rejection | None:
    spec = pod["spec"]
    if not pod_admits_node(spec, node):
        text = "node(s) didn't match Pod's node affinity/selector"
        return _predicate("NodeAffinity", text, of_node=True)
    taken = [port for other in others for port in host_ports(other["spec"])]
    if any(port.conflicts(used) for port in host_ports(spec) for used in taken):
        text = "node(s) didn't have free ports for the requested pod ports"
        return _predicate("NodePorts", text)
    taints = (node.get("spec") or {}).get("taints") or ()
    tolerations = spec.get("tolerations") or ()
    if not pods.is_static(pod) and untolerated(taints, tolerations, (NO_EXECUTE,)):
        text = "node(s) had taints that the pod didn't tolerate"
        return _predicate("TaintToleration", text, of_node=True)
    return None


def _predicate(name: str, text: str, *, of_node: bool = False) -> Rejection:
    return Rejection(name, f"Predicate {name} failed: {text}", of_node)
