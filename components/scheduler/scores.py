"""Scores rank the nodes that can run a pod, with upstream's default plugins and weights.

Each function returns a score of 0 to 100 for each node, and the weighted sum decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from kubewire.components.kubeapi.nodeaffinity import term_matches
from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.components.kubeapi.taints import PREFER_NO_SCHEDULE, is_tolerated
from kubewire.components.scheduler.cluster import Cluster, NodeState
from kubewire.components.scheduler.filters import counts_for_spread, domain_counts
from kubewire.components.scheduler.podspec import Constraint, PodInfo, Term

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
_SCORED_RESOURCES = ("cpu", "memory")
#: Weight of a running pod's required affinity to the pod (hardPodAffinityWeight).
_HARD_WEIGHT = 1

Scores = list[float]


def total_scores(
    pod: PodInfo,
    nodes: Sequence[NodeState],
    cluster: Cluster,
    spread: LabelSelector | None,
) -> Scores:
    """Returns the weighted sum of all scores for each node.

    spread selects the pods of the same Services and owner for the default spread constraints.
    """
    parts = (
        (3, taint_toleration(pod, nodes)),
        (2, node_affinity(pod, nodes)),
        (2, topology_spread(pod, nodes, cluster, spread)),
        (2, pod_affinity(pod, nodes, cluster)),
        (1, least_allocated(pod, nodes)),
        (1, balanced_allocation(pod, nodes)),
    )
    return [sum(weight * scores[index] for weight, scores in parts) for index in range(len(nodes))]


def normalized(raw: Sequence[float], *, reverse: bool = False) -> Scores:
    """Scales so that the largest number becomes 100, or 0 with reverse."""
    top = max(raw, default=0)
    if top == 0:
        return [100.0 if reverse else 0.0] * len(raw)
    scaled = [100 * number / top for number in raw]
    return [100 - number for number in scaled] if reverse else scaled


def taint_toleration(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    """Prefers nodes with fewer PreferNoSchedule taints that the pod does not tolerate."""

    def untolerated(node: NodeState) -> int:
        return sum(
            taint.get("effect") == PREFER_NO_SCHEDULE and not is_tolerated(taint, pod.tolerations)
            for taint in node.taints
        )

    return normalized([untolerated(node) for node in nodes], reverse=True)


def node_affinity(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    if not preferred:
        return [0.0] * len(nodes)
    weights: list[float] = []
    for node in nodes:
        matching = (item for item in preferred if term_matches(item["preference"], node.obj))
        weights.append(sum(item["weight"] for item in matching))
    return normalized(weights)


def _fractions(pod: PodInfo, node: NodeState, requests: Callable[[str], int]) -> list[float]:
    offered = [name for name in _SCORED_RESOURCES if node.allocatable.get(name)]
    return [min(requests(name) / node.allocatable[name], 1.0) for name in offered]


def least_allocated(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    """The free share of CPU and memory once the pod runs; absent requests count with a default."""

    def free(node: NodeState) -> float:
        used = _fractions(
            pod,
            node,
            lambda name: node.scored.get(name, 0) + pod.scored.get(name, 0),
        )
        return 100 * sum(1 - share for share in used) / len(used) if used else 0.0

    return [math.floor(free(node)) for node in nodes]


def balanced_allocation(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    """Prefers nodes that would use CPU and memory in similar proportion; 0 without requests."""
    if not any(pod.requests.get(name) for name in _SCORED_RESOURCES):
        return [0.0] * len(nodes)

    def balance(node: NodeState) -> float:
        used = _fractions(
            pod,
            node,
            lambda name: node.requested.get(name, 0) + pod.requests.get(name, 0),
        )
        deviation = abs(used[0] - used[1]) / 2 if len(used) == 2 else 0.0
        return 100 * (1 - deviation)

    return [math.floor(balance(node)) for node in nodes]


def default_constraints(spread: LabelSelector) -> tuple[Constraint, ...]:
    """Upstream's system defaults for pods without constraints that have a Service or an owner."""
    return (Constraint(3, HOSTNAME, False, spread), Constraint(5, ZONE, False, spread))


def topology_spread(
    pod: PodInfo,
    nodes: Sequence[NodeState],
    cluster: Cluster,
    spread: LabelSelector | None,
) -> Scores:
    """Prefers domains with fewer pods under the ScheduleAnyway constraints.

    A constraint weighs more the more domains it has.
    """
    soft = tuple(item for item in pod.constraints if not item.hard)
    by_default = not pod.constraints and spread is not None
    if by_default and spread is not None:
        soft = default_constraints(spread)
    if not soft:
        return [0.0] * len(nodes)
    raw = [0.0] * len(nodes)
    keys = [item.topology_key for item in soft]
    ignored = [not by_default and any(key not in node.labels for key in keys) for node in nodes]
    for item in soft:
        counts = _soft_counts(pod, item, nodes, cluster)
        weight = math.log(len({node.labels.get(item.topology_key) for node in nodes} - {None}) + 2)
        for index, node in enumerate(nodes):
            domain = node.labels.get(item.topology_key)
            if domain is not None:
                raw[index] += counts.get(domain, 0) * weight + item.max_skew - 1
    return _spread_normalized(raw, ignored)


def _soft_counts(
    pod: PodInfo, constraint: Constraint, nodes: Sequence[NodeState], cluster: Cluster
) -> Mapping[str, int]:
    matching = cluster.selected(pod.namespace, constraint.selector)
    counted = {}
    for name, count in matching.items():
        node = cluster.nodes.get(name) if count else None
        if node is not None and counts_for_spread(pod, constraint, node):
            counted[name] = count
    return domain_counts(cluster, constraint.topology_key, counted)


def _spread_normalized(raw: Scores, ignored: Sequence[bool]) -> Scores:
    taken = [round(number) for number, out in zip(raw, ignored, strict=True) if not out]
    low = min(taken, default=0)
    high = max(taken, default=0)
    return [
        0.0 if out else 100.0 if high == 0 else 100.0 * (high + low - round(number)) / high
        for number, out in zip(raw, ignored, strict=True)
    ]


def pod_affinity(pod: PodInfo, nodes: Sequence[NodeState], cluster: Cluster) -> Scores:
    """Weighs preferred affinity and anti-affinity in both directions.

    The required affinity of running pods to this pod counts too.
    """
    domains: dict[tuple[str, str], float] = {}

    def add(term: Term, by_node: Mapping[str, int], weight: float) -> None:
        for domain, count in domain_counts(cluster, term.topology_key, by_node).items():
            key = (term.topology_key, domain)
            domains[key] = domains.get(key, 0) + weight * count

    for terms, sign in ((pod.preferred, 1), (pod.avoided, -1)):
        for term in terms:
            add(term, cluster.matching(term), sign * term.weight)
    for kind, sign in (("preferred", 1), ("avoided", -1), ("affinity", 1)):
        for group in cluster.groups(kind):
            if group.term.matches(pod, cluster.namespace_labels):
                add(group.term, group.by_node, sign * (group.term.weight or _HARD_WEIGHT))
    if not domains:
        return [0.0] * len(nodes)
    raw: list[float] = []
    for node in nodes:
        on_node = (pair for pair in domains if node.labels.get(pair[0]) == pair[1])
        raw.append(sum(domains[pair] for pair in on_node))
    low = min(raw)
    high = max(raw)
    return [100 * (number - low) / (high - low) if high > low else 0.0 for number in raw]
