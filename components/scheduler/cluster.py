"""The scheduler's view of the cluster: nodes with the pods on them, kept up to date step by step.

Counts that filters and scores ask for again and again (pods that match a selector, by node; affinity terms
of running pods, by node) are made once and then follow each pod that comes or goes: scheduling one pod costs
time in proportion to the nodes, not to the pods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.components.scheduler.podspec import HostPort, PodInfo, Requests, Term, amount

#: Selectors whose counts are kept.
_COUNTERS = 512


@dataclass(eq=False)
class NodeState:
    """allocatable, requested, scored: cpu in thousandths, everything else in units."""

    obj: KubeObject
    name: str
    labels: Mapping[str, str]
    taints: tuple[KubeObject, ...]
    unschedulable: bool
    allocatable: Requests
    requested: Requests = field(default_factory=dict)
    scored: Requests = field(default_factory=dict)
    ports: dict[HostPort, int] = field(default_factory=dict)
    pods: dict[tuple[str, str], PodInfo] = field(default_factory=dict)

    @classmethod
    def of(cls, node: KubeObject) -> NodeState:
        spec, status = node.get("spec") or {}, node.get("status") or {}
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
    """Pods of some namespaces that a selector matches, by node."""

    term: Term
    by_node: dict[str, int]


class TermGroup:
    """Equal affinity terms of running pods, counted by the nodes they run on."""

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
    """relief grows with every change that can let a pod fit that did not fit before: more room, other nodes.
    A pod that comes takes room, so it does not count (affinity to it is the caller's business)."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeState] = {}
        self.namespace_labels: dict[str, Mapping[str, str]] = {}
        self.relief = 0
        self._where: dict[tuple[str, str], tuple[str, PodInfo]] = {}
        self._homeless: dict[str, dict[tuple[str, str], PodInfo]] = {}
        self._counters: OrderedDict[Term, _Counted] = OrderedDict()
        self._groups: dict[str, dict[Term, TermGroup]] = {kind: {} for kind in _KINDS}

    def set_node(self, node: KubeObject) -> None:
        fresh = NodeState.of(node)
        old = self.nodes.get(fresh.name)
        for pod in old.pods.values() if old else self._homeless.pop(fresh.name, {}).values():
            fresh.add(pod)
        self.nodes[fresh.name] = fresh
        self.relief += 1

    def remove_node(self, name: str) -> None:
        """Its pods are remembered: the node may register again before they are deleted."""
        old = self.nodes.pop(name, None)
        if old is not None and old.pods:
            self._homeless[name] = dict(old.pods)
        self.relief += 1

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if labels is None:
            self.namespace_labels.pop(name, None)
        elif self.namespace_labels.get(name) != labels:
            self.namespace_labels[name] = labels
            self._counters.clear()
            self.relief += 1

    def place(self, pod: PodInfo, node: str) -> None:
        """The pod is (or is assumed to be) on this node. Replaces what was known of it."""
        if pod.key in self._where:
            self.remove(pod.key)
        self._where[pod.key] = (node, pod)
        home = self.nodes.get(node)
        if home is not None:
            home.add(pod)
        else:
            self._homeless.setdefault(node, {})[pod.key] = pod
        self._count(pod, node, 1)

    def remove(self, key: tuple[str, str]) -> None:
        found = self._where.pop(key, None)
        if found is None:
            return
        node, pod = found
        home = self.nodes.get(node)
        if home is not None and key in home.pods:
            home.remove(home.pods[key])
        self._homeless.get(node, {}).pop(key, None)
        self._count(pod, node, -1)
        self.relief += 1

    def node_of(self, key: tuple[str, str]) -> str | None:
        found = self._where.get(key)
        return found[0] if found else None

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
        """kind: affinity, anti_affinity, preferred or avoided."""
        yield from self._groups[kind].values()

    def matching(self, term: Term) -> Mapping[str, int]:
        """How many pods the term selects on each node; its topology key and weight do not count."""
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
        """matching() for pods of one namespace."""
        return self.matching(Term("", selector, frozenset({namespace})))
