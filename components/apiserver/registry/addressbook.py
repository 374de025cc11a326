"""Keeps ServiceCIDR and IPAddress objects consistent with the allocator (KEP-1880).

The ServiceCIDRs say from which ranges ClusterIPs are allocated, and each ClusterIP has an
IPAddress object. Inconsistencies after a crash or a manual change are repaired
(k8s.io/kubernetes/pkg/registry/core/service/{ipallocator,allocator/controller}).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.deletion import DeleteOptions, delete
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import WriteOptions
from kubewire.components.apiserver.status import StatusError
from kubewire.components.apiserver.store import Event, Key
from kubewire.components.kubeapi.resources import IPADDRESSES, SERVICECIDRS, KubeObject

log = logging.getLogger(__name__)

FAMILY = "ipaddress.kubernetes.io/ip-family"
MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"
DEFAULT_RANGE = "kubernetes"
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")
_SERVICES = "services"


class Ranges(Protocol):
    """The part of service_allocation.ServiceAllocator that this module uses."""

    def use_ranges(self, cidrs: list[str]) -> None: ...
    def hold(self, ip: str) -> None: ...
    def let_go(self, ip: str) -> None: ...


def cluster_ips(service: KubeObject) -> list[str]:
    """The Service's ClusterIPs in canonical form, in which IPAddresses are named."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    ips = [ip for ip in spec.get("clusterIPs") or () if ip and ip != "None"]
    return [str(ipaddress.ip_address(ip)) for ip in ips]


def address_object(ip: str, owner: tuple[str, str]) -> KubeObject:
    family = "IPv6" if ":" in ip else "IPv4"
    parent = {"group": "", "resource": _SERVICES, "namespace": owner[0], "name": owner[1]}
    return {
        "metadata": {"name": ip, "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": parent},
    }


def in_force(service_cidr: KubeObject) -> bool:
    """Whether addresses are allocated from it.

    It must not be deleted or marked as not ready. A new one without conditions counts.
    """
    if service_cidr["metadata"].get("deletionTimestamp"):
        return False
    conditions = (service_cidr.get("status") or {}).get("conditions") or ()
    ready = (condition for condition in conditions if condition.get("type") == "Ready")
    return all(condition.get("status") == "True" for condition in ready)


@dataclass
class AddressBook:
    """Repairs everything in start(), and then follows each write.

    It never writes objects inside the write that caused the change.
    """

    registry: Registry
    addresses: Served
    service_cidrs: Served
    allocator: Ranges
    _owners: dict[str, tuple[str, str]] = field(default_factory=dict, init=False)
    _due: set[str] = field(default_factory=set, init=False)

    @classmethod
    def of(cls, registry: Registry, catalog: Catalog, allocator: Ranges) -> AddressBook:
        kinds = (IPADDRESSES, SERVICECIDRS)
        keys = [(kind.group, kind.version, kind.plural) for kind in kinds]
        addresses, ranges = (catalog.builtin[key] for key in keys)
        return cls(registry, addresses, ranges, allocator)

    def start(self) -> None:
        store = self.registry.store
        for stored in store.items(_SERVICES):
            self._owners |= dict.fromkeys(
                cluster_ips(stored.obj),
                (stored.key.namespace, stored.key.name),
            )
        names = {stored.key.name for stored in store.items(self.addresses.storage)}
        for stored in store.items(self.addresses.storage):
            self._hold(stored.obj)
        self._use_ranges()
        self._due = names | self._owners.keys()
        self._repair()
        store.subscribe(_SERVICES, self._service_changed)
        store.subscribe(self.addresses.storage, self._address_changed)
        store.subscribe(self.service_cidrs.storage, lambda _: self._use_ranges())

    def _use_ranges(self) -> None:
        stored_cidrs = self.registry.store.items(self.service_cidrs.storage)
        service_cidrs = [stored for stored in stored_cidrs if in_force(stored.obj)]
        service_cidrs.sort(key=lambda stored: (stored.key.name != DEFAULT_RANGE, stored.key.name))
        self.allocator.use_ranges(
            [cidr for stored in service_cidrs for cidr in stored.obj["spec"]["cidrs"]],
        )

    def _service_changed(self, event: Event) -> None:
        key = event.stored.key
        before = set(cluster_ips(event.previous.obj)) if event.previous else set()
        after = set() if event.type == "DELETED" else set(cluster_ips(event.stored.obj))
        for ip in before - after:
            if self._owners.get(ip) == (key.namespace, key.name):
                del self._owners[ip]
        for ip in after:
            self._owners[ip] = (key.namespace, key.name)
        self._ask(before ^ after)

    def _address_changed(self, event: Event) -> None:
        if event.type == "DELETED":
            self.allocator.let_go(event.stored.key.name)
        else:
            self._hold(event.stored.obj)
        self._ask({event.stored.key.name})

    def _hold(self, address: KubeObject) -> None:
        if not _is_ours(address):
            self.allocator.hold(address["metadata"]["name"])

    def _ask(self, names: set[str]) -> None:
        """Schedules a repair of these addresses."""
        if names and not self._due:
            asyncio.get_running_loop().call_soon(self._repair)
        self._due |= names

    def _repair(self) -> None:
        due = self._due
        self._due = set()
        for name in sorted(due):
            try:
                for step in self._steps(name):
                    step()
            except StatusError as error:
                log.error("cannot repair IPAddress %s: %s", name, error)

    def _steps(self, name: str) -> Iterator[Callable[[], object]]:
        """The steps that make the IPAddress name its owner: nothing, deletion, creation or both."""
        served = self.addresses
        stored = self.registry.store.get(Key(served.storage, "", name))
        owner = self._owners.get(name)
        if stored is not None:
            if not _is_ours(stored.obj) or _owner(stored.obj) == owner:
                return
            log.info("deleting IPAddress %s: its owner does not use the address", name)
            yield lambda: delete(self.registry, served, "", name, DeleteOptions())
        if owner is not None:
            wanted = address_object(name, owner)
            yield lambda: self.registry.create(served, "", wanted, _OPTIONS)


def _is_ours(address: KubeObject) -> bool:
    return (address["metadata"].get("labels") or {}).get(MANAGED_BY) == ALLOCATOR


def _owner(address: KubeObject) -> tuple[str, str] | None:
    parent = (address.get("spec") or {}).get("parentRef") or {}
    if parent.get("resource") != _SERVICES or parent.get("group"):
        return None
    return parent.get("namespace", ""), parent.get("name", "")
