"""The truth tables: what holds with which policies, for the evaluator and for packets.

A test of an engine makes the nine pods of matrix.py, and for each case takes its steps one after
another: it applies and deletes (`take` does both to a compiler), then sends one packet for each pair
of pods and each port, and compares with `allowed`. After a case it removes what the steps have made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.model import ObjectKey
from tests.components.policy import objects
from tests.components.policy.matrix import (
    NAMESPACE_LABELS,
    NAMESPACES,
    POD_LABELS,
    PODS,
    PORT_NAMES,
    Case,
    Step,
)
from tests.components.policy.tables import changes, cluster, egress, ingress, ports

__all__ = ["CASES", "Case", "Step", "namespace_object", "pod_object", "take", "world"]

CASES: tuple[Case, ...] = (
    *ingress.CASES,
    *ports.CASES,
    *egress.CASES,
    *changes.CASES,
    *cluster.CASES,
)


def namespace_object(name: str, labels: Mapping[str, str] | None = None) -> objects.Object:
    return objects.namespace(name, NAMESPACE_LABELS[name] if labels is None else labels)


def pod_object(pod: str, address: str, labels: Mapping[str, str] | None = None) -> objects.Object:
    """One of PODS as the API server has it when it runs."""
    where, _, name = pod.partition("/")
    return objects.pod(
        name,
        where,
        addresses=[address],
        labels=POD_LABELS[pod] if labels is None else labels,
        ports=[(text, protocol, number) for (number, protocol), text in PORT_NAMES[where].items()],
        node=f"worker-{PODS.index(pod) % 3 + 1}",
    )


def world(addresses: Mapping[str, str]) -> Iterator[objects.Object]:
    """The namespaces and pods before the first step. addresses: of each of PODS."""
    yield from map(namespace_object, NAMESPACES)
    for pod in PODS:
        yield pod_object(pod, addresses[pod])


def take(compiler: Compiler, step: Step, addresses: Mapping[str, str]) -> None:
    """What a step does, done to a compiler."""
    for policy in step.policies(addresses):
        compiler.apply(policy)
    for text in step.delete:
        kind, _, place = text.partition(" ")
        namespace, _, name = place.rpartition("/")
        compiler.delete(ObjectKey(kind, namespace, name))
    for pod, labels in step.pod_labels.items():
        compiler.apply(pod_object(pod, addresses[pod], labels))
    for namespace, labels in step.namespace_labels.items():
        compiler.apply(namespace_object(namespace, labels))
