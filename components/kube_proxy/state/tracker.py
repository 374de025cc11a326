"""Services and EndpointSlices as they come from the informers, kept as the model, per IP family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.model import Endpoint, ServicePort, ServicePortName
from kubewire.components.kube_proxy.state.objects import (
    SERVICE_NAME_LABEL,
    TRIGGER_TIME,
    service_ports,
    slice_endpoints,
)

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import EndpointSlice, PartialObjectMetadata, Service

_ServiceKey = tuple[str, str]
_Ports = dict[tuple[str, str], tuple[Endpoint, ...]]


@dataclass
class Pending:
    """What the next successful sync brings into the kernel. trigger_times (unix time, per Service):
    since when what is written has been true; udp: an endpoint of a UDP port came or went."""

    services: set[_ServiceKey] = field(default_factory=set)
    endpoints: set[_ServiceKey] = field(default_factory=set)
    trigger_times: dict[_ServiceKey, list[float]] = field(default_factory=dict)
    udp: bool = False


class Tracker:
    """One family's view. Handlers return whether anything that rules depend on changed."""

    def __init__(self, family: str, metrics: Metrics, started: float = 0.0) -> None:
        """started: changes from before this time say nothing about our own speed."""
        self.family = family
        self.pending = Pending()
        self._started = started
        self.services: dict[ServicePortName, ServicePort] = {}
        self.endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        self._metrics = metrics
        self._changed: set[ServicePortName] = set()
        self._ports_of: dict[_ServiceKey, dict[ServicePortName, ServicePort]] = {}
        self._slices_of: dict[_ServiceKey, dict[str, _Ports]] = {}
        self._names_of: dict[_ServiceKey, frozenset[ServicePortName]] = {}

    def service_changed(self, old: Service | None, new: Service | None) -> bool:
        key = _key(new or old or {})
        self._metrics.service_changes.inc()
        ports = service_ports(new, self.family) if new else {}
        before = self._ports_of.get(key, {})
        if ports == before:
            return False
        for name in before.keys() - ports.keys():
            del self.services[name]
        self.services.update(ports)
        self._changed |= {
            name for name in before.keys() | ports.keys() if before.get(name) != ports.get(name)
        }
        if ports:
            self._ports_of[key] = ports
        else:
            del self._ports_of[key]
        self.pending.services.add(key)
        self._metrics.service_changes_pending.set(len(self.pending.services))
        return True

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> bool:
        """Both sides count: a slice may move to another Service by its label."""
        changed = False
        for obj, gone in ((old, True), (new, False)):
            service = _service_of(obj)
            if obj is None or not service or obj.get("addressType") != self.family:
                continue
            if gone and _service_of(new) == service:
                continue  # Replaced in place, by the second turn.
            key = (obj["metadata"]["namespace"], service)
            self._metrics.endpoint_changes.inc()
            if self._put_slice(
                key, obj["metadata"]["name"], None if gone else slice_endpoints(obj)
            ):
                changed = True
                self._note_change(key, None if gone else obj)
        return changed

    def _note_change(self, key: _ServiceKey, endpoint_slice: EndpointSlice | None) -> None:
        self.pending.endpoints.add(key)
        self._metrics.endpoint_changes_pending.set(len(self.pending.endpoints))
        if endpoint_slice is None:
            self.pending.trigger_times.pop(key, None)
        elif (when := _trigger_time(endpoint_slice)) > self._started:
            self.pending.trigger_times.setdefault(key, []).append(when)

    def _put_slice(self, key: _ServiceKey, name: str, ports: _Ports | None) -> bool:
        slices = self._slices_of.setdefault(key, {})
        if slices.get(name) == ports:
            return False
        self.pending.udp |= _has_udp(slices.get(name) or {}) or _has_udp(ports or {})
        if ports is None:
            del slices[name]
        else:
            slices[name] = ports
        self._merge(key, slices)
        if not slices:
            del self._slices_of[key]
        return True

    def _merge(self, key: _ServiceKey, slices: dict[str, _Ports]) -> None:
        """A Service's slices as one sorted list per port. An endpoint may for a moment stand in two
        slices (moved between them): the one that is ready counts."""
        merged: dict[ServicePortName, dict[str, Endpoint]] = {}
        for _, ports in sorted(slices.items()):
            for (port, protocol), endpoints in ports.items():
                known = merged.setdefault(ServicePortName(*key, port, protocol), {})
                for endpoint in endpoints:
                    if str(endpoint) not in known or (
                        endpoint.ready and not known[str(endpoint)].ready
                    ):
                        known[str(endpoint)] = endpoint
        for name in self._names_of.pop(key, frozenset()) - merged.keys():
            del self.endpoints[name]
            self._changed.add(name)
        if merged:
            self._names_of[key] = frozenset(merged)
        for name, known in merged.items():
            endpoints = tuple(known[text] for text in sorted(known))
            if self.endpoints.get(name) != endpoints:
                self.endpoints[name] = endpoints
                self._changed.add(name)

    def take_changed(self) -> frozenset[ServicePortName]:
        """The names whose ServicePort or endpoints are not what they were at the last call."""
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def take_pending(self) -> Pending:
        """What changed since the last call; a sync that fails gives it back."""
        taken, self.pending = self.pending, Pending()
        return taken

    def give_back(self, taken: Pending) -> None:
        newer = self.pending
        newer.services |= taken.services
        newer.endpoints |= taken.endpoints
        newer.udp |= taken.udp
        for key, times in taken.trigger_times.items():
            newer.trigger_times[key] = times + newer.trigger_times.get(key, [])

    def synced(self) -> None:
        """What was pending is in the rules now."""
        self._metrics.service_changes_pending.set(len(self.pending.services))
        self._metrics.endpoint_changes_pending.set(len(self.pending.endpoints))


def _key(obj: PartialObjectMetadata) -> _ServiceKey:
    metadata = obj["metadata"]
    return metadata["namespace"], metadata["name"]


def _service_of(endpoint_slice: EndpointSlice | None) -> str:
    labels = (endpoint_slice["metadata"].get("labels") or {}) if endpoint_slice else {}
    return labels.get(SERVICE_NAME_LABEL) or ""


def _has_udp(ports: Iterable[tuple[str, str]]) -> bool:
    return any(protocol == "UDP" for _, protocol in ports)


def _trigger_time(endpoint_slice: EndpointSlice) -> float:
    """Unix time; 0 without the annotation or with one that is no time."""
    text = (endpoint_slice["metadata"].get("annotations") or {}).get(TRIGGER_TIME)
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
