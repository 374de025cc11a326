"""Which endpoints a node uses for a Service's Cluster and Local traffic policies.

Ready ones, else (separately for each policy) those that are serving and terminating (KEP-1669);
hints narrow the Cluster ones to the node or zone when every ready endpoint carries them (KEP-2433,
KEP-3015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.kube_proxy.state.model import Endpoint, Node, ServicePort

_NO_TOPOLOGY, _SAME_NODE, _SAME_ZONE = "", "PreferSameNode", "PreferSameZone"


@dataclass(frozen=True)
class Reachable:
    """cluster and local are empty when the Service does not use that policy. anywhere says whether
    some node of the cluster has a usable endpoint; reachable is the union of the two."""

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    reachable: tuple[Endpoint, ...]
    anywhere: bool


def choose(endpoints: Sequence[Endpoint], service: ServicePort, node: Node) -> Reachable:
    cluster = _cluster(endpoints, node) if service.uses_cluster_endpoints else ()
    anywhere = bool(cluster)
    if not service.uses_local_endpoints:
        return Reachable(cluster, (), cluster, anywhere)
    anywhere = anywhere or any(ep.ready or _draining(ep) for ep in endpoints)
    local = _ready_else_draining(
        [ep for ep in endpoints if node.name and ep.node_name == node.name]
    )
    merged = {str(ep): ep for ep in (*cluster, *local)}
    return Reachable(cluster, local, tuple(merged[name] for name in sorted(merged)), anywhere)


def _cluster(endpoints: Sequence[Endpoint], node: Node) -> tuple[Endpoint, ...]:
    usable = _ready_else_draining(endpoints)
    if usable and usable[0].ready:
        mode = _mode(usable, node)
        if mode == _SAME_NODE:
            return tuple(ep for ep in usable if node.name in ep.node_hints)
        if mode == _SAME_ZONE:
            return tuple(ep for ep in usable if node.zone in ep.zone_hints)
    return usable


def _ready_else_draining(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(ep for ep in endpoints if ep.ready) or tuple(
        ep for ep in endpoints if _draining(ep)
    )


def _draining(endpoint: Endpoint) -> bool:
    return endpoint.serving and endpoint.terminating


def _mode(ready: Sequence[Endpoint], node: Node) -> str:
    """Hints count only when all ready endpoints have them and one is meant for us: a stale or
    half-written set of hints must not concentrate the traffic."""
    if all(ep.node_hints for ep in ready) and any(node.name in ep.node_hints for ep in ready):
        return _SAME_NODE
    if all(ep.zone_hints for ep in ready) and any(node.zone in ep.zone_hints for ep in ready):
        return _SAME_ZONE
    return _NO_TOPOLOGY
