"""Which of the possible nodes is best: upstream's default score plugins and weights, 0 to 100 each."""

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
#: Weight of a running pod's required affinity towards the pod (hardPodAffinityWeight).
_HARD_WEIGHT = 1

Scores = list[float]


def total_scores(pod: PodInfo, nodes: Sequence[NodeState], cluster: Cluster, spread: LabelSelector | None) -> Scores:
    """Weighted sums, one for each node. spread: selector of the pod's siblings for the default constraints."""
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
    """The largest becomes 100 (or 0 in reverse)."""
    top = max(raw, default=0)
    if top == 0:
        return [100.0 if reverse else 0.0] * len(raw)
    scaled = [100 * number / top for number in raw]
    return [100 - number for number in scaled] if reverse else scaled


def taint_toleration(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    """Fewer untolerated PreferNoSchedule taints are better."""

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
    return normalized(
        [sum(item["weight"] for item in preferred if term_matches(item["preference"], node.obj)) for node in nodes]
    )


def _fractions(pod: PodInfo, node: NodeState, requests: Callable[[str], int]) -> list[float]:
    return [
        min(requests(name) / node.allocatable[name], 1.0) for name in _SCORED_RESOURCES if node.allocatable.get(name)
    ]


def least_allocated(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    """The free share of cpu and memory once the pod runs, containers without requests counted at a default."""

    def free(node: NodeState) -> float:
        used = _fractions(pod, node, lambda name: node.scored.get(name, 0) + pod.scored.get(name, 0))
        return 100 * sum(1 - share for share in used) / len(used) if used else 0.0

    return [math.floor(free(node)) for node in nodes]


def balanced_allocation(pod: PodInfo, nodes: Sequence[NodeState]) -> Scores:
    """cpu and memory used in like proportion; nothing to balance for a pod without requests."""
    if not any(pod.requests.get(name) for name in _SCORED_RESOURCES):
        return [0.0] * len(nodes)

    def balance(node: NodeState) -> float:
        used = _fractions(pod, node, lambda name: node.requested.get(name, 0) + pod.requests.get(name, 0))
        deviation = abs(used[0] - used[1]) / 2 if len(used) == 2 else 0.0
        return 100 * (1 - deviation)

    return [math.floor(balance(node)) for node in nodes]


def default_constraints(spread: LabelSelector) -> tuple[Constraint, ...]:
    """What pods of a Service or an owner get when they say nothing (system defaults)."""
    return (Constraint(3, HOSTNAME, False, spread), Constraint(5, ZONE, False, spread))


def topology_spread(pod: PodInfo, nodes: Sequence[NodeState], cluster: Cluster, spread: LabelSelector | None) -> Scores:
    """ScheduleAnyway constraints: emptier domains are better, the more so the more domains there are."""
    soft = tuple(item for item in pod.constraints if not item.hard)
    by_default = not pod.constraints and spread is not None
    if by_default and spread is not None:
        soft = default_constraints(spread)
    if not soft:
        return [0.0] * len(nodes)
    raw = [0.0] * len(nodes)
    ignored = [not by_default and any(item.topology_key not in node.labels for item in soft) for node in nodes]
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
    counted = {
        name: count
        for name, count in matching.items()
        if count and name in cluster.nodes and counts_for_spread(pod, constraint, cluster.nodes[name])
    }
    return domain_counts(cluster, constraint.topology_key, counted)


def _spread_normalized(raw: Scores, ignored: Sequence[bool]) -> Scores:
    taken = [round(number) for number, out in zip(raw, ignored, strict=True) if not out]
    low, high = min(taken, default=0), max(taken, default=0)
    return [
        0.0 if out else 100.0 if high == 0 else 100.0 * (high + low - round(number)) / high
        for number, out in zip(raw, ignored, strict=True)
    ]


def pod_affinity(pod: PodInfo, nodes: Sequence[NodeState], cluster: Cluster) -> Scores:
    """Preferred (anti-)affinity in both directions; also the required affinity of running pods to this one."""
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
    raw = [sum(weight for (key, domain), weight in domains.items() if node.labels.get(key) == domain) for node in nodes]
    low, high = min(raw), max(raw)
    return [100 * (number - low) / (high - low) if high > low else 0.0 for number in raw]
