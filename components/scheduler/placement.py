"""Decides on the best node for one pod, or explains why no node can run it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.components.scheduler.cluster import Cluster, NodeState
from kubewire.components.scheduler.filters import (
    NODE_FILTERS,
    Filter,
    Rejection,
    named_nodes,
    pod_affinity,
    topology_spread,
)
from kubewire.components.scheduler.podspec import PodInfo
from kubewire.components.scheduler.scores import total_scores


@dataclass(frozen=True)
class Placed:
    node: str


@dataclass(frozen=True)
class Unplaced:
    """No node can run the pod; message is the text of the event and of the PodScheduled
    condition.
    """

    message: str


def choose(
    pod: PodInfo,
    cluster: Cluster,
    spread: LabelSelector | None = None,
    volumes: Filter | None = None,
) -> Placed | Unplaced:
    """Chooses a node that passes all filters and has the highest score.

    spread selects the pods of the same Services and owner, which the default constraints spread
    apart. volumes is the filter of the pod's claims, if it has any.
    """
    if not cluster.nodes:
        return Unplaced("no nodes available to schedule pods")
    filters = (
        *NODE_FILTERS,
        *((volumes,) if volumes is not None else ()),
        *_cluster_filters(pod, cluster),
    )
    rejected: dict[str, Rejection] = {}
    possible: list[NodeState] = []
    named = named_nodes(pod)
    for name, node in cluster.nodes.items():
        if named is not None and name not in named:
            rejected[name] = Rejection(("node(s) didn't satisfy plugin(s) [NodeAffinity]",))
            continue
        rejection = _first(filters, pod, node)
        if rejection is None:
            possible.append(node)
        else:
            rejected[name] = rejection
    if not possible:
        return Unplaced(failure(rejected))
    if len(possible) == 1:
        return Placed(possible[0].name)
    scores = total_scores(pod, possible, cluster, spread)
    # Upstream picks at random among nodes with equal scores. The node with the fewest pods, then
    # the first by name, makes a lab's placement reproducible.
    best = min(range(len(possible)), key=lambda index: _order(possible[index], scores[index]))
    return Placed(possible[best].name)


def _order(node: NodeState, score: float) -> tuple[float, int, str]:
    return -score, len(node.pods), node.name


def _cluster_filters(pod: PodInfo, cluster: Cluster) -> tuple[Filter, ...]:
    filters: tuple[Filter, ...] = ()
    if any(item.hard for item in pod.constraints):
        filters += (topology_spread(pod, cluster),)
    if pod.affinity or pod.anti_affinity or any(True for _ in cluster.groups("anti_affinity")):
        filters += (pod_affinity(pod, cluster),)
    return filters


def _first(filters: tuple[Filter, ...], pod: PodInfo, node: NodeState) -> Rejection | None:
    for accept in filters:
        rejection = accept(pod, node)
        if rejection is not None:
            return rejection
    return None


def failure_of_all(total: int, reason: str) -> str:
    """The message when something about the pod itself keeps it from all of the total nodes."""
    preemption = f"0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
    head = f"0/{total} nodes are available: {reason}"
    return f"{head}. no new claims to deallocate, preemption: {preemption}"


def failure(rejected: Mapping[str, Rejection]) -> str:
    """Builds the failure message in upstream's form.

        0/4 nodes are available: 1 node(s) had ..., 3 Insufficient cpu. no new claims to deallocate,
        preemption: ...

    The text before the last comma is what the DynamicResources plugin reports for a pod that has
    no resource claims.
    """
    total = len(rejected)
    reasons = Counter(reason for item in rejected.values() for reason in item.reasons)
    resolvable = sum(item.resolvable for item in rejected.values())
    preemption = Counter(
        {
            "No preemption victims found for incoming pod.": resolvable,
            "Preemption is not helpful for scheduling.": total - resolvable,
        }
    )
    after = f"no new claims to deallocate, preemption: {_summary(total, preemption).rstrip('.')}"
    return f"{_summary(total, reasons)}. {after}."


def _summary(total: int, reasons: Counter[str]) -> str:
    parts = sorted(f"{count} {reason.rstrip('.')}" for reason, count in reasons.items() if count)
    return f"0/{total} nodes are available: {', '.join(parts)}"
