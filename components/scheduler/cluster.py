"""The scheduler's view of the cluster: the nodes and the pods on them, updated with every event.

Filters and scores need the same counts for every pod: how many pods on each node match a selector,
and on which nodes pods with a given affinity term run. The first use computes such a count, and
every pod that is placed or removed afterwards adjusts it. Scheduling a pod therefore costs time in
proportion to the number of nodes, not to the number of pods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.podneeds import HostPort, Requests, amount
from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.components.scheduler.podspec import PodInfo, Term

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, Taint

#: How many selectors' counts are kept; the least recently used one is dropped.
_COUNTERS = 512


@dataclass(eq=False)
class NodeState:
    """A node with the sum of what its pods request.

    allocatable, requested and scored hold CPU in millicores and every other resource in its base
    unit. requested sums the pods' requests; scored sums the same with a default for absent
    requests.
    """

    obj: Node
    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    allocatable: Requests
    requested: Requests = field(default_factory=dict)
    scored: Requests = field(default_factory=dict)
    ports: dict[HostPort, int] = field(default_factory=dict)
    pods: dict[tuple[str, str], PodInfo] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node) -> NodeState:
        spec = node.get("spec") or {}
        status = node.get("status") or {}
        allocatable = status.get("allocatable") or status.get("capacity") or {}
        return cls(
            node,
            node["metadata"]["name"],
            node["metadata"].get("labels") or {},
            tuple(spec.get("taints") or ()),
            bool(spec.get("unschedulable")),
            {key: amount(key, quantity) for key, quantity in allocatable.items()},
        )

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.key] = pod
        self._account(pod, 1)

    def remove(self, pod: PodInfo) -> None:
        del self.pods[pod.key]
        self._account(pod, -1)

    def _account(self, pod: PodInfo, sign: int) -> None:
        for totals, amounts in ((self.requested, pod.requests), (self.scored, pod.scored)):
            for key, number in amounts.items():
                totals[key] = totals.get(key, 0) + sign * number
        for port in pod.ports:
            self.ports[port] = self.ports.get(port, 0) + sign
            if not self.ports[port]:
                del self.ports[port]


@dataclass(frozen=True)
class _Counted:
    """The number of pods on each node that a term's selector and namespaces match."""

    term: Term
    by_node: dict[str, int]


class TermGroup:
    """An affinity term of running pods, with the number of pods that have it on each node."""

    def __init__(self, term: Term) -> None:
        self.term = term
        self.by_node: dict[str, int] = {}

    def count(self, node: str, sign: int) -> None:
        total = self.by_node.get(node, 0) + sign
        if total:
            self.by_node[node] = total
        else:
            self.by_node.pop(node, None)


_KINDS = ("affinity", "anti_affinity", "preferred", "avoided")


class Cluster:
    """Nodes, the pods placed on them, and the counts derived from both.

    relief counts the changes that may let a pod fit that did not fit before, such as a removed pod
    or a changed node. A placed pod only takes room, so it does not raise relief. That pod affinity
    may be satisfied by a placed pod is left to the caller.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeState] = {}
        self.namespace_labels: dict[str, Mapping[str, str]] = {}
        self.relief = 0
        self._where: dict[tuple[str, str], tuple[str, PodInfo]] = {}
        self._on_absent_nodes: dict[str, dict[tuple[str, str], PodInfo]] = {}
        self._counters: OrderedDict[Term, _Counted] = OrderedDict()
        self._groups: dict[str, dict[Term, TermGroup]] = {kind: {} for kind in _KINDS}

    def set_node(self, node: Node) -> None:
        fresh = NodeState.of(node)
        old = self.nodes.get(fresh.name)
        for pod in old.pods.values() if old else self._on_absent_nodes.pop(fresh.name, {}).values():
            fresh.add(pod)
        self.nodes[fresh.name] = fresh
        self.relief += 1

    def remove_node(self, name: str) -> None:
        """Removes the node but keeps its pods, because it may register again before they are
        deleted.
        """
        old = self.nodes.pop(name, None)
        if old is not None and old.pods:
            self._on_absent_nodes[name] = dict(old.pods)
        self.relief += 1

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if labels is None:
            self.namespace_labels.pop(name, None)
        elif self.namespace_labels.get(name) != labels:
            self.namespace_labels[name] = labels
            self._counters.clear()
            self.relief += 1

    def place(self, pod: PodInfo, node: str) -> None:
        """Records that the pod runs on this node, or is assumed to; replaces an earlier record."""
        if pod.key in self._where:
            self.remove(pod.key)
        self._where[pod.key] = (node, pod)
        home = self.nodes.get(node)
        if home is not None:
            home.add(pod)
        else:
            self._on_absent_nodes.setdefault(node, {})[pod.key] = pod
        self._count(pod, node, 1)

    def remove(self, key: tuple[str, str]) -> None:
        placed = self._where.pop(key, None)
        if placed is None:
            return
        node, pod = placed
        home = self.nodes.get(node)
        if home is not None and key in home.pods:
            home.remove(home.pods[key])
        self._on_absent_nodes.get(node, {}).pop(key, None)
        self._count(pod, node, -1)
        self.relief += 1

    def node_of(self, key: tuple[str, str]) -> str | None:
        placed = self._where.get(key)
        return placed[0] if placed else None

    def _count(self, pod: PodInfo, node: str, sign: int) -> None:
        for counted in self._counters.values():
            if counted.term.matches(pod, self.namespace_labels):
                counted.by_node[node] = counted.by_node.get(node, 0) + sign
        for kind in _KINDS:
            for term in getattr(pod, kind):
                group = self._groups[kind].setdefault(term, TermGroup(term))
                group.count(node, sign)
                if not group.by_node:
                    del self._groups[kind][term]

    def groups(self, kind: str) -> Iterator[TermGroup]:
        """Yields the term groups of one kind: affinity, anti_affinity, preferred or avoided."""
        yield from self._groups[kind].values()

    def matching(self, term: Term) -> Mapping[str, int]:
        """Returns how many pods the term selects on each node; ignores its topology key and
        weight.
        """
        term = Term("", term.selector, term.namespaces, term.namespace_selector)
        counted = self._counters.get(term)
        if counted is None:
            counted = _Counted(term, {})
            for node, pod in self._where.values():
                if term.matches(pod, self.namespace_labels):
                    counted.by_node[node] = counted.by_node.get(node, 0) + 1
            self._counters[term] = counted
            if len(self._counters) > _COUNTERS:
                self._counters.popitem(last=False)
        self._counters.move_to_end(term)
        return counted.by_node

    def selected(self, namespace: str, selector: LabelSelector) -> Mapping[str, int]:
        """Returns how many pods of one namespace the selector matches on each node."""
        return self.matching(Term("", selector, frozenset({namespace})))
