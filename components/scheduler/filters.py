"""Filters decide on which nodes a pod can run.

Each filter is a function of the pod and one node. They run in upstream's order and return
upstream's reasons, because people and tools read these reasons in FailedScheduling events
(https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.nodeaffinity import pod_admits_node, required_terms
from kubewire.components.kubeapi.taints import NO_EXECUTE, NO_SCHEDULE, is_tolerated, untolerated
from kubewire.components.scheduler.cluster import Cluster, NodeState
from kubewire.components.scheduler.podspec import Constraint, PodInfo, Term

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Taint

_UNSCHEDULABLE_TAINT: Taint = {"key": "node.kubernetes.io/unschedulable", "effect": NO_SCHEDULE}
_SPREAD = "node(s) didn't match pod topology spread constraints"


@dataclass(frozen=True)
class Rejection:
    """Why a node cannot run the pod.

    resolvable is true when removing pods from the node could help, so that preemption is worth
    trying.
    """

    reasons: tuple[str, ...]
    resolvable: bool = False


Filter = Callable[[PodInfo, NodeState], Rejection | None]


def node_unschedulable(pod: PodInfo, node: NodeState) -> Rejection | None:
    if node.unschedulable and not is_tolerated(_UNSCHEDULABLE_TAINT, pod.tolerations):
        return Rejection(("node(s) were unschedulable",))
    return None


def node_name(pod: PodInfo, node: NodeState) -> Rejection | None:
    wanted = pod.spec.get("nodeName")
    if wanted in (None, "", node.name):
        return None
    return Rejection(("node(s) didn't match the requested node name",))


def taint_toleration(pod: PodInfo, node: NodeState) -> Rejection | None:
    taint = untolerated(node.taints, pod.tolerations, (NO_SCHEDULE, NO_EXECUTE))
    return Rejection(("node(s) had untolerated taint(s)",)) if taint else None


def node_affinity(pod: PodInfo, node: NodeState) -> Rejection | None:
    if pod_admits_node(pod.spec, node.obj):
        return None
    return Rejection(("node(s) didn't match Pod's node affinity/selector",))


def node_ports(pod: PodInfo, node: NodeState) -> Rejection | None:
    if any(port.conflicts(used) for port in pod.ports for used in node.ports):
        return Rejection(
            ("node(s) didn't have free ports for the requested pod ports",),
            resolvable=True,
        )
    return None


def node_resources_fit(pod: PodInfo, node: NodeState) -> Rejection | None:
    """Names every resource that does not fit.

    The rejection is not resolvable when even the empty node offers less than the pod requests.
    """
    reasons: list[str] = []
    resolvable = True
    if len(node.pods) + 1 > node.allocatable.get("pods", 0):
        reasons.append("Too many pods")
    for name, wanted in pod.requests.items():
        offered = node.allocatable.get(name, 0)
        if wanted > 0 and wanted > offered - node.requested.get(name, 0):
            reasons.append(f"Insufficient {name}")
            resolvable = resolvable and wanted <= offered
    return Rejection(tuple(reasons), resolvable) if reasons else None


#: The filters in upstream's order; a node's first rejection is the one reported.
NODE_FILTERS: tuple[Filter, ...] = (
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
)


@dataclass(frozen=True)
class _HardSpread:
    constraint: Constraint
    self_match: int
    counts: Mapping[str, int]
    minimum: int


def topology_spread(pod: PodInfo, cluster: Cluster) -> Filter:
    """Enforces the pod's DoNotSchedule constraints.

    The skew is the number of matching pods in the node's domain, this pod included, minus the
    number in the domain with the fewest.
    """
    spreads = [_hard_spread(pod, item, cluster) for item in pod.constraints if item.hard]

    def accept(_: PodInfo, node: NodeState) -> Rejection | None:
        for spread in spreads:
            domain = node.labels.get(spread.constraint.topology_key)
            if domain is None:
                return Rejection((f"{_SPREAD} (missing required label)",))
            skew = spread.counts.get(domain, 0) + spread.self_match - spread.minimum
            if skew > spread.constraint.max_skew:
                return Rejection((_SPREAD,), resolvable=True)
        return None

    return accept


def _hard_spread(pod: PodInfo, constraint: Constraint, cluster: Cluster) -> _HardSpread:
    matching = cluster.selected(pod.namespace, constraint.selector)
    keys = [item.topology_key for item in pod.constraints if item.hard]
    counts: dict[str, int] = {}
    for node in cluster.nodes.values():
        if all(key in node.labels for key in keys) and counts_for_spread(pod, constraint, node):
            domain = node.labels[constraint.topology_key]
            counts[domain] = counts.get(domain, 0) + matching.get(node.name, 0)
    too_few = len(counts) < constraint.min_domains
    minimum = 0 if too_few else min(counts.values(), default=0)
    return _HardSpread(
        constraint,
        int(constraint.selector.matches(dict(pod.labels))),
        counts,
        minimum,
    )


def counts_for_spread(pod: PodInfo, constraint: Constraint, node: NodeState) -> bool:
    """Whether the node's domain counts for the pod under nodeAffinityPolicy and
    nodeTaintsPolicy.
    """
    if constraint.honor_affinity and not pod_admits_node(pod.spec, node.obj):
        return False
    if not constraint.honor_taints:
        return True
    return untolerated(node.taints, pod.tolerations, (NO_SCHEDULE, NO_EXECUTE)) is None


def domain_counts(cluster: Cluster, key: str, by_node: Mapping[str, int]) -> dict[str, int]:
    """Sums counts per node into counts per value of a node label."""
    counts: dict[str, int] = {}
    for name, count in by_node.items():
        node = cluster.nodes.get(name)
        domain = node.labels.get(key) if node else None
        if domain is not None and count:
            counts[domain] = counts.get(domain, 0) + count
    return counts


def pod_affinity(pod: PodInfo, cluster: Cluster) -> Filter:
    """Checks the pod's required affinity and anti-affinity, and running pods' anti-affinity to
    it.
    """
    near = [
        (
            term,
            domain_counts(cluster, term.topology_key, _matching_all(pod, cluster)),
        )
        for term in pod.affinity
    ]
    far = [
        (
            term,
            domain_counts(cluster, term.topology_key, cluster.matching(term)),
        )
        for term in pod.anti_affinity
    ]
    forbidden = [
        (group.term.topology_key, domain_counts(cluster, group.term.topology_key, group.by_node))
        for group in cluster.groups("anti_affinity")
        if group.term.matches(pod, cluster.namespace_labels)
    ]
    # A pod that matches its own affinity and finds no other match may go anywhere. Otherwise the
    # first pod of a set that wants to run together would never start.
    is_first = not any(counts for _, counts in near) and all(
        term.matches(pod, cluster.namespace_labels) for term in pod.affinity
    )

    def accept(_: PodInfo, node: NodeState) -> Rejection | None:
        if not _is_near(near, node, is_first):
            return Rejection(("node(s) didn't match pod affinity rules",))
        if any(counts.get(node.labels.get(term.topology_key, "")) for term, counts in far):
            return Rejection(("node(s) didn't match pod anti-affinity rules",), resolvable=True)
        if any(counts.get(node.labels.get(key, "")) for key, counts in forbidden):
            return Rejection(
                ("node(s) didn't satisfy existing pods anti-affinity rules",),
                resolvable=True,
            )
        return None

    return accept


def _matching_all(pod: PodInfo, cluster: Cluster) -> dict[str, int]:
    """Counts, on each node, the pods that match all affinity terms at once, as upstream
    requires.
    """
    terms = list(pod.affinity)
    if len(terms) == 1:
        return dict(cluster.matching(terms[0]))
    counts: dict[str, int] = {}
    candidates = set.intersection(
        *({name for name, n in cluster.matching(term).items() if n} for term in terms),
    )
    for name in candidates:
        node = cluster.nodes.get(name)
        for other in node.pods.values() if node else ():
            if all(term.matches(other, cluster.namespace_labels) for term in terms):
                counts[name] = counts.get(name, 0) + 1
    return counts


def _is_near(near: list[tuple[Term, dict[str, int]]], node: NodeState, is_first: bool) -> bool:
    if any(term.topology_key not in node.labels for term, _ in near):
        return False
    return is_first or all(counts.get(node.labels[term.topology_key]) for term, counts in near)


def named_nodes(pod: PodInfo) -> frozenset[str] | None:
    """Returns the nodes that every term of the node affinity selects by metadata.name, or None.

    The pods of DaemonSets have such an affinity, so that the filters need not look at other nodes.
    """
    terms = required_terms(pod.spec)
    if not terms:
        return None
    names: set[str] = set()
    for term in terms:
        fields = [
            item
            for item in term.get("matchFields") or []
            if item["key"] == "metadata.name" and item["operator"] == "In"
        ]
        if not fields:
            return None
        names |= set.intersection(*(set(item.get("values") or ()) for item in fields))
    return frozenset(names)
