"""The truth tables: what holds with which policies, for the evaluator and for packets.

A test of an engine makes the nine pods of matrix.py, and for each case takes its steps one after
another: `policies`, `delete` and the labels, then one packet for each pair of pods and each port,
compared with `allowed`. After a case it removes what the steps have made.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.components.policy import objects
from tests.components.policy.matrix import NAMESPACE_LABELS, POD_LABELS, PODS, PORT_NAMES, Case, Step
from tests.components.policy.tables import changes, cluster, egress, ingress, ports

__all__ = ["CASES", "Case", "Step", "namespace_object", "pod_object"]

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
