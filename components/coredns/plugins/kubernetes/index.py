"""The Kubernetes objects that DNS needs, by (namespace, name) and by address. No I/O.

The index holds one entry per Service and per EndpointSlice and updates it when an informer reports
a change. Several Services may have the same endpoint address, so `services_of_endpoint` counts the
slices of each Service that contain the address: a Service is removed there with its last slice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KubeObject = dict[str, Any]
Key = tuple[str, str]
SERVICE_NAME_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Port:
    """A port of a Service or EndpointSlice. protocol: in lower case. number: -1 for no port."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True)
class Service:
    """cluster_ips: ("None",) for a headless Service. external_name: for ExternalName."""

    namespace: str
    name: str
    cluster_ips: tuple[str, ...]
    ports: tuple[Port, ...]
    external_name: str = ""

    @property
    def headless(self) -> bool:
        return not self.external_name and self.cluster_ips == ("None",)


@dataclass(frozen=True)
class Address:
    """An endpoint's address."""

    ip: str
    hostname: str = ""
    pod_name: str = ""


@dataclass(frozen=True)
class Subset:
    """The ready addresses of an EndpointSlice, and its ports: a single port -1 if it has none."""

    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]


class Index:
    """Its *_changed methods are informer handlers: old is None for a new object, new for a deleted.

    changed: the Unix time of the last change, which is the serial of the SOA.
    """

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.services: dict[Key, Service] = {}
        self.services_by_ip: dict[str, Key] = {}
        self.subsets: dict[Key, dict[str, Subset]] = {}
        self.services_of_endpoint: dict[str, dict[Key, int]] = {}
        self.pods_by_ip: dict[str, set[str]] = {}
        self.changed = int(time.time())

    def namespace_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        (self.namespaces.add if new else self.namespaces.discard)(name)

    def service_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        key = _key(new or old or {})
        before = self.services.pop(key, None)
        after = service_from(new) if new else None
        for ip in before.cluster_ips if before else ():
            if self.services_by_ip.get(ip) == key:
                del self.services_by_ip[ip]
        if after is not None:
            self.services[key] = after
            self.services_by_ip |= {ip: key for ip in after.cluster_ips if ip != "None"}
        if before != after:
            self.changed = int(time.time())

    def slice_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None:
            self._drop_slice(old)
        if new is None or not _service_of(new):
            return
        key = (new["metadata"]["namespace"], _service_of(new))
        subset = subset_from(new)
        self.subsets.setdefault(key, {})[new["metadata"]["name"]] = subset
        for address in subset.addresses:
            owners = self.services_of_endpoint.setdefault(address.ip, {})
            owners[key] = owners.get(key, 0) + 1
        self.changed = int(time.time())

    def _drop_slice(self, old: KubeObject) -> None:
        key = (old["metadata"]["namespace"], _service_of(old))
        subset = self.subsets.get(key, {}).pop(old["metadata"]["name"], None)
        if subset is None:
            return
        self.changed = int(time.time())
        if not self.subsets[key]:
            del self.subsets[key]
        for address in subset.addresses:
            owners = self.services_of_endpoint[address.ip]
            owners[key] -= 1
            if not owners[key]:
                del owners[key]
            if not owners:
                del self.services_of_endpoint[address.ip]

    def pod_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        for obj, change in ((old, set.discard), (new, set.add)):
            ip = obj and (obj.get("status") or {}).get("podIP")
            if obj and ip:
                change(self.pods_by_ip.setdefault(ip, set()), obj["metadata"]["namespace"])
                if not self.pods_by_ip[ip]:
                    del self.pods_by_ip[ip]

    def addresses(self, key: Key) -> Iterable[tuple[Address, Port]]:
        """Yields each ready address of a Service with each port of its slice."""
        for _, subset in sorted(self.subsets.get(key, {}).items()):
            for address in subset.addresses:
                for port in subset.ports:
                    yield address, port


def service_from(obj: KubeObject) -> Service:
    spec = obj["spec"]
    external = spec.get("externalName") or "" if spec.get("type") == "ExternalName" else ""
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return Service(
        *_key(obj),
        cluster_ips=tuple(addresses),
        ports=tuple(_port(port) for port in spec.get("ports") or ()),
        external_name=external,
    )


def subset_from(endpoint_slice: KubeObject) -> Subset:
    """Takes the ready endpoints; one without the condition counts as ready.

    publishNotReadyAddresses needs no code here: it makes the EndpointSlice controller mark all
    endpoints as ready.
    """
    ports = tuple(_port(port) for port in endpoint_slice.get("ports") or ())
    return Subset(
        addresses=tuple(
            Address(ip, endpoint.get("hostname") or "", _pod_name(endpoint))
            for endpoint in endpoint_slice.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
            for ip in endpoint.get("addresses") or ()
        ),
        ports=ports or (Port("", "", -1),),
    )


def trim(obj: KubeObject) -> KubeObject:
    """Keeps the fields that the index or the informer reads, to save memory in the informer."""
    metadata = obj["metadata"]
    keys = ("name", "namespace", "uid", "resourceVersion", "labels")
    kept = {key: metadata[key] for key in keys if key in metadata}
    out: KubeObject = {"metadata": kept}
    for key in ("endpoints", "ports", "addressType"):
        if key in obj:
            out[key] = obj[key]
    if "spec" in obj and obj.get("kind") == "Service":
        out["spec"] = obj["spec"]
    if obj.get("kind") == "Pod":
        out["status"] = {"podIP": (obj.get("status") or {}).get("podIP")}
    return out


def _pod_name(endpoint: KubeObject) -> str:
    target = endpoint.get("targetRef") or {}
    return target.get("name") or "" if target.get("kind") == "Pod" else ""


def _port(port: KubeObject) -> Port:
    protocol = (port.get("protocol") or "TCP").lower()
    return Port(port.get("name") or "", protocol, port.get("port") or -1)


def _service_of(endpoint_slice: KubeObject) -> str:
    return (endpoint_slice["metadata"].get("labels") or {}).get(SERVICE_NAME_LABEL) or ""


def _key(obj: KubeObject) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
