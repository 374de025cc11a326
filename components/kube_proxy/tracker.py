"""Services and EndpointSlices as they come from the informers, kept as the model, per IP family."""

from __future__ import annotations

from typing import Any

from components.kube_proxy.metrics import Metrics
from components.kube_proxy.model import Endpoint, ServicePort, ServicePortName
from components.kube_proxy.objects import SERVICE_NAME_LABEL, service_ports, slice_endpoints

KubeObject = dict[str, Any]
_ServiceKey = tuple[str, str]
_Ports = dict[tuple[str, str], tuple[Endpoint, ...]]


class Tracker:
    """One family's view. Handlers return whether anything that rules depend on changed."""

    def __init__(self, family: str, metrics: Metrics) -> None:
        self.family = family
        self.services: dict[ServicePortName, ServicePort] = {}
        self.endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        self._metrics = metrics
        self._changed: set[ServicePortName] = set()
        self._ports_of: dict[_ServiceKey, dict[ServicePortName, ServicePort]] = {}
        self._slices_of: dict[_ServiceKey, dict[str, _Ports]] = {}
        self._names_of: dict[_ServiceKey, frozenset[ServicePortName]] = {}

    def service_changed(self, old: KubeObject | None, new: KubeObject | None) -> bool:
        key = _key(new or old or {})
        ports = service_ports(new, self.family) if new else {}
        before = self._ports_of.get(key, {})
        if ports == before:
            return False
        for name in before.keys() - ports.keys():
            del self.services[name]
        self.services.update(ports)
        self._changed |= {name for name in before.keys() | ports.keys() if before.get(name) != ports.get(name)}
        if ports:
            self._ports_of[key] = ports
        else:
            del self._ports_of[key]
        self._metrics.service_changes.inc(self.family)
        self._metrics.service_changes_pending.inc(self.family)
        return True

    def slice_changed(self, old: KubeObject | None, new: KubeObject | None) -> bool:
        """Both sides count: a slice may move to another Service by its label."""
        changed = False
        for obj, gone in ((old, True), (new, False)):
            service = _service_of(obj)
            if obj is None or not service or obj.get("addressType") != self.family:
                continue
            if gone and _service_of(new) == service:
                continue  # Replaced in place, by the second turn.
            key = (obj["metadata"]["namespace"], service)
            changed |= self._put_slice(key, obj["metadata"]["name"], None if gone else slice_endpoints(obj))
        return changed

    def _put_slice(self, key: _ServiceKey, name: str, ports: _Ports | None) -> bool:
        slices = self._slices_of.setdefault(key, {})
        if slices.get(name) == ports:
            return False
        if ports is None:
            del slices[name]
        else:
            slices[name] = ports
        self._merge(key, slices)
        if not slices:
            del self._slices_of[key]
        self._metrics.endpoint_changes.inc(self.family)
        self._metrics.endpoint_changes_pending.inc(self.family)
        return True

    def _merge(self, key: _ServiceKey, slices: dict[str, _Ports]) -> None:
        """A Service's slices as one sorted list per port. An endpoint may for a moment stand in two slices
        (moved between them): the one that is ready counts."""
        merged: dict[ServicePortName, dict[str, Endpoint]] = {}
        for _, ports in sorted(slices.items()):
            for (port, protocol), endpoints in ports.items():
                known = merged.setdefault(ServicePortName(*key, port, protocol), {})
                for endpoint in endpoints:
                    if str(endpoint) not in known or (endpoint.ready and not known[str(endpoint)].ready):
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

    def synced(self) -> None:
        """What was pending is in the rules now."""
        self._metrics.service_changes_pending.set(0, self.family)
        self._metrics.endpoint_changes_pending.set(0, self.family)


def _key(obj: KubeObject) -> _ServiceKey:
    metadata = obj["metadata"]
    return metadata["namespace"], metadata["name"]


def _service_of(endpoint_slice: KubeObject | None) -> str:
    labels = (endpoint_slice["metadata"].get("labels") or {}) if endpoint_slice else {}
    return labels.get(SERVICE_NAME_LABEL) or ""
