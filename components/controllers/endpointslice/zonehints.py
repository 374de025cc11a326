"""Hints for service.kubernetes.io/topology-mode: Auto.

Each zone gets endpoints in proportion to the CPU of its nodes, or the Service gets no hints at all
(KEP-2433; upstream's k8s.io/endpointslice/topologycache).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kubewire.components.controllers.endpointslice.desired import ZONE
from kubewire.components.controllers.meta import annotations_of, condition, labels_of
from kubewire.components.kubeapi.quantity import parse_quantity

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Endpoint, Node, Service

#: The fraction by which an endpoint's traffic may exceed its fair share.
OVERLOAD = 0.2
ENABLED = "TopologyAwareHintsEnabled"
DISABLED = "TopologyAwareHintsDisabled"
SWITCHED_ON = "Topology Aware Hints has been enabled"
SWITCHED_OFF = "Topology Aware Hints has been disabled"
_NO_ZONE = "One or more endpoints do not have a zone specified"
_NONE_ALLOCATED = "No hints allocated for zones"
_CPU_OR_ZONE = "allocatable CPU or zone not specified on one or more nodes"
_NODE_INFO = f"Insufficient Node information: {_CPU_OR_ZONE}"
_TOO_FEW = "Insufficient number of endpoints"
_THRESHOLD = "without exceeding overload threshold"
_OVERLOADED = f"Unable to allocate minimum required endpoints to each zone {_THRESHOLD}"
_ANNOTATIONS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
_NOT_COUNTED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class Slice(Protocol):
    """A slice being planned.

    endpoints may be replaced; changed says that the slice will be written.
    """

    endpoints: list[Endpoint]
    changed: bool


class NoHints(Exception):
    """The Service cannot have hints; the message is the text of the event."""


def is_auto(service: Service) -> bool:
    annotations = annotations_of(service)
    value = next((annotations[name] for name in _ANNOTATIONS if name in annotations), "")
    return value in ("Auto", "auto")


def cpu_ratios(nodes: Iterable[Node]) -> dict[str, float] | None:
    """Maps each zone to its part of all CPU.

    Returns None when a ready node lacks a zone or CPU, or when there is only one zone.
    """
    cpus: dict[str, float] = {}
    for node in nodes:
        labels = labels_of(node)
        if any(label in labels for label in _NOT_COUNTED) or not _is_ready(node):
            continue
        cpu = float(
            parse_quantity(((node.get("status") or {}).get("allocatable") or {}).get("cpu") or "0"),
        )
        if not labels.get(ZONE) or not cpu:
            return None
        cpus[labels[ZONE]] = cpus.get(labels[ZONE], 0.0) + cpu
    total = sum(cpus.values())
    return {zone: cpu / total for zone, cpu in sorted(cpus.items())} if len(cpus) > 1 else None


def _is_ready(node: Node) -> bool:
    ready = condition(node.get("status"), "Ready")
    return ready is not None and ready.get("status") == "True"


@dataclass(frozen=True)
class Share:
    """The number of endpoints a zone needs at least, may have at most, and should have."""

    minimum: int
    maximum: int
    desired: float


def shares(ratios: Mapping[str, float] | None, count: int) -> dict[str, Share]:
    """Divides count endpoints among the zones.

    Raises NoHints when every division would overload a zone.
    """
    if ratios is None:
        raise NoHints(_NODE_INFO)
    numbers = f"({count} endpoints, {len(ratios)} zones)"
    if len(ratios) > count:
        raise NoHints(f"{_TOO_FEW} {numbers}")
    desired = {zone: ratio * count for zone, ratio in ratios.items()}
    minima = {zone: math.ceil(wanted / (1 + OVERLOAD)) for zone, wanted in desired.items()}
    spare = count - sum(minima.values())
    if spare < 0:
        raise NoHints(f"{_OVERLOADED} {numbers}")
    return {
        zone: Share(
            minimum,
            minimum + spare,
            max(desired[zone], float(minimum)),
        )
        for zone, minimum in minima.items()
    }


def is_overloaded(allocated: Mapping[str, int], ratios: Mapping[str, float] | None) -> bool:
    """Whether hints given earlier leave a zone too few endpoints for its present nodes."""
    if not allocated:
        return False
    if not ratios:
        return True
    total = sum(allocated.values())
    needed = {zone: math.ceil(total * ratio / (1 + OVERLOAD)) for zone, ratio in ratios.items()}
    return any(allocated.get(zone, 0) < minimum for zone, minimum in needed.items())


@dataclass
class AutoHints:
    """The hints of one Service in one sync.

    events are (type, reason, message). allocated holds, for each address type with hints, the
    number of endpoints of each zone.
    """

    ratios: Mapping[str, float] | None
    had_hints: bool
    events: list[tuple[str, str, str]] = field(default_factory=list)
    allocated: dict[str, dict[str, int]] = field(default_factory=dict)

    def assign(self, address_type: str, slices: Sequence[Slice]) -> None:
        """Gives every ready endpoint a hint, or removes all hints and records an event with the
        reason.
        """
        try:
            given = _assign(self.ratios, slices)
        except NoHints as why:
            self.events.append(("Warning", DISABLED, f"{why}, addressType: {address_type}"))
            self.had_hints = False
            for item in slices:
                _replace(item, [_without(endpoint) for endpoint in item.endpoints])
            return
        if not self.had_hints:
            self.events.append(("Normal", ENABLED, f"{SWITCHED_ON}, addressType: {address_type}"))
            self.had_hints = True
        self.allocated[address_type] = given


def _assign(ratios: Mapping[str, float] | None, slices: Sequence[Slice]) -> dict[str, int]:
    wanted = shares(
        ratios,
        sum(_is_usable(endpoint) for item in slices for endpoint in item.endpoints),
    )
    given: Counter[str] = Counter()
    for item in slices:
        if not item.changed:
            standing = _standing(item.endpoints, given, wanted)
            item.changed = standing is None
            given.update(standing or {})
    open_slices = [item for item in slices if item.changed]
    for item in open_slices:
        item.endpoints = [_at_home(endpoint, given) for endpoint in item.endpoints]
    _redistribute(open_slices, *_transfers(wanted, given), given)
    if not given:
        raise NoHints(_NONE_ALLOCATED)
    return dict(given)


def _standing(
    endpoints: Sequence[Endpoint], given: Mapping[str, int], wanted: Mapping[str, Share]
) -> dict[str, int] | None:
    """The hints of a slice that is not written otherwise, or None when they have to change."""
    counts: Counter[str] = Counter()
    for endpoint in filter(_is_usable, endpoints):
        zones = [hint["name"] for hint in (endpoint.get("hints") or {}).get("forZones") or ()]
        if not zones or any(zone not in wanted for zone in zones):
            return None
        counts.update(zones)
    if any(count + given.get(zone, 0) > wanted[zone].maximum for zone, count in counts.items()):
        return None
    return dict(counts)


def _at_home(endpoint: Endpoint, given: Counter[str]) -> Endpoint:
    if not _is_usable(endpoint):
        return _without(endpoint)
    zone = endpoint.get("zone")
    if not zone:
        raise NoHints(_NO_ZONE)
    given[zone] += 1
    return _with_hint(endpoint, zone)


def _transfers(
    wanted: Mapping[str, Share],
    given: Mapping[str, int],
) -> tuple[Counter[str], Counter[str]]:
    """How many endpoints each zone gives to others, and how many each receives.

    A transfer happens only if it gains at least a whole endpoint on one side and half of one on
    the other.
    """
    surplus = {zone: given.get(zone, 0) - share.desired for zone, share in wanted.items()}
    lack = {zone: -more for zone, more in surplus.items() if more < 0}
    giving: Counter[str] = Counter()
    getting: Counter[str] = Counter()
    while True:
        giver, much = _most(surplus)
        getter, little = _most(lack)
        if max(much, little) < 1 or min(much, little) < 0.5:
            return giving, getting
        giving[giver] += 1
        surplus[giver] -= 1
        getting[getter] += 1
        lack[getter] -= 1


def _most(zones: Mapping[str, float]) -> tuple[str, float]:
    return max(sorted(zones.items()), key=lambda pair: pair[1], default=("", 0.0))


def _redistribute(
    slices: Sequence[Slice],
    giving: Counter[str],
    getting: Counter[str],
    given: Counter[str],
) -> None:
    for item in slices:
        for index, endpoint in enumerate(item.endpoints):
            home = endpoint.get("zone") or ""
            getter = next((zone for zone in sorted(getting) if getting[zone] > 0), "")
            if not _is_usable(endpoint) or giving[home] <= 0 or not getter:
                continue
            item.endpoints[index] = _with_hint(endpoint, getter)
            giving.subtract([home])
            getting.subtract([getter])
            given.subtract([home])
            given.update([getter])


def _is_usable(endpoint: Endpoint) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is True


def _with_hint(endpoint: Endpoint, zone: str) -> Endpoint:
    hinted = endpoint.copy()
    hinted["hints"] = {"forZones": [{"name": zone}]}
    return hinted


def _without(endpoint: Endpoint) -> Endpoint:
    bare = endpoint.copy()
    bare.pop("hints", None)
    return bare


def _replace(item: Slice, endpoints: list[Endpoint]) -> None:
    if endpoints != item.endpoints:
        item.endpoints = endpoints
        item.changed = True
