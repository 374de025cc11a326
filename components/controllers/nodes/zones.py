"""How fast the nodes of a zone may lose their pods
(handleDisruption of k8s.io/kubernetes/pkg/controller/nodelifecycle).

A node that fails loses its pods. When many fail at once, it is rather the network or the control
plane that fails, and moving all their pods would make it worse. Each zone therefore evicts slowly,
more slowly while a great part of it is silent, and not at all when that leaves too few nodes or
when no zone has a node that is ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from kubewire.components.controllers.flags import Options
from kubewire.components.controllers.meta import labels_of
from kubewire.components.controllers.nodes.health import ready_status

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node

Zone = tuple[str, str]
_REGION = "topology.kubernetes.io/region"
_ZONE = "topology.kubernetes.io/zone"
#: So few nodes that fail are no sign of anything larger.
_FEW = 2


class ZoneState(Enum):
    NORMAL = "most nodes are ready"
    PARTIAL = "many nodes are not ready"
    FULL = "no node is ready"


def zone_of(node: Node) -> Zone:
    """Region and zone; nodes without these labels are one zone."""
    labels = labels_of(node)
    return labels.get(_REGION, ""), labels.get(_ZONE, "")


@dataclass(frozen=True)
class Zones:
    """The states of all zones and the number of nodes in each."""

    states: dict[Zone, ZoneState]
    sizes: dict[Zone, int]

    @classmethod
    def of(cls, nodes: Iterable[Node], threshold: float) -> Zones:
        ready: dict[Zone, list[bool]] = {}
        for node in nodes:
            ready.setdefault(zone_of(node), []).append(ready_status(node) == "True")
        states = {zone: _state(members, threshold) for zone, members in ready.items()}
        return cls(states, {zone: len(members) for zone, members in ready.items()})

    @property
    def all_fail(self) -> bool:
        return all(state is ZoneState.FULL for state in self.states.values())

    def rate(self, zone: Zone, options: Options) -> float:
        """Nodes that may be tainted in a second; 0 stops the zone."""
        if self.all_fail:
            return 0.0
        if self.states.get(zone) is not ZoneState.PARTIAL:
            return options.node_eviction_rate
        if self.sizes[zone] > options.large_cluster_size_threshold:
            return options.secondary_node_eviction_rate
        return 0.0


def _state(ready: list[bool], threshold: float) -> ZoneState:
    silent = ready.count(False)
    if silent and silent == len(ready):
        return ZoneState.FULL
    if silent > _FEW and silent / len(ready) >= threshold:
        return ZoneState.PARTIAL
    return ZoneState.NORMAL


@dataclass
class Pace:
    """When each zone tainted its last node."""

    last: dict[Zone, datetime] = field(default_factory=dict)

    def wait(self, zone: Zone, rate: float, now: datetime) -> float:
        """Seconds until the next node of the zone may be tainted; the rate is not 0."""
        last = self.last.get(zone)
        if last is None:
            return 0.0
        return max((last + timedelta(seconds=1 / rate) - now).total_seconds(), 0.0)

    def taken(self, zone: Zone, now: datetime) -> None:
        self.last[zone] = now
