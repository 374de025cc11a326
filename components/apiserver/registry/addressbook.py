"""ServiceCIDR and IPAddress objects around the allocator (KEP-1880): the ranges in force come from the former, each
ClusterIP is one of the latter, and what does not fit together after a crash or by somebody's hand is put right
(k8s.io/kubernetes/pkg/registry/core/service/{ipallocator,allocator/controller})."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from kubewire.components.apiserver.kinds.services.servicecidr import IPADDRESSES
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.deletion import DeleteOptions, delete
from kubewire.components.apiserver.registry.registry import Registry, WriteOptions
from kubewire.components.apiserver.status import StatusError
from kubewire.components.apiserver.store import Event, Key
from kubewire.components.kubeapi.resources import SERVICECIDRS, KubeObject

log = logging.getLogger(__name__)

FAMILY, MANAGED_BY, ALLOCATOR = (
    "ipaddress.kubernetes.io/ip-family",
    "ipaddress.kubernetes.io/managed-by",
    "ipallocator.k8s.io",
)
DEFAULT_RANGE = "kubernetes"
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")
_SERVICES = "services"


class Ranges(Protocol):
    """kinds.service_allocation.ServiceAllocator."""

    def use_ranges(self, cidrs: list[str]) -> None: ...
    def hold(self, ip: str) -> None: ...
    def let_go(self, ip: str) -> None: ...


def cluster_ips(service: KubeObject) -> list[str]:
    """In canonical form, as IPAddresses are named."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    return [str(ipaddress.ip_address(ip)) for ip in spec.get("clusterIPs") or () if ip and ip != "None"]


def address_object(ip: str, owner: tuple[str, str]) -> KubeObject:
    family = "IPv6" if ":" in ip else "IPv4"
    parent = {"group": "", "resource": _SERVICES, "namespace": owner[0], "name": owner[1]}
    return {"metadata": {"name": ip, "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}}, "spec": {"parentRef": parent}}


def in_force(service_cidr: KubeObject) -> bool:
    """Neither on its way out nor said to be unready; a new one counts at once."""
    if service_cidr["metadata"].get("deletionTimestamp"):
        return False
    conditions = (service_cidr.get("status") or {}).get("conditions") or ()
    return all(one.get("status") == "True" for one in conditions if one.get("type") == "Ready")


@dataclass
class AddressBook:
    """start() puts everything right and then follows each write. Objects are written outside the write that
    asked for it."""

    registry: Registry
    addresses: Served
    service_cidrs: Served
    allocator: Ranges
    _owners: dict[str, tuple[str, str]] = field(default_factory=dict, init=False)
    _due: set[str] = field(default_factory=set, init=False)

    @classmethod
    def of(cls, registry: Registry, catalog: Catalog, allocator: Ranges) -> AddressBook:
        kinds = (IPADDRESSES, SERVICECIDRS)
        addresses, ranges = (catalog.builtin[kind.group, kind.version, kind.plural] for kind in kinds)
        return cls(registry, addresses, ranges, allocator)

    def start(self) -> None:
        store = self.registry.store
        for stored in store.items(_SERVICES):
            self._owners |= dict.fromkeys(cluster_ips(stored.obj), (stored.key.namespace, stored.key.name))
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
        found = [stored for stored in self.registry.store.items(self.service_cidrs.storage) if in_force(stored.obj)]
        found.sort(key=lambda stored: (stored.key.name != DEFAULT_RANGE, stored.key.name))
        self.allocator.use_ranges([cidr for stored in found for cidr in stored.obj["spec"]["cidrs"]])

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
        if names and not self._due:
            asyncio.get_running_loop().call_soon(self._repair)
        self._due |= names

    def _repair(self) -> None:
        due, self._due = self._due, set()
        for name in sorted(due):
            try:
                for step in self._steps(name):
                    step()
            except StatusError as error:
                log.error("ipaddresses %s: %s", name, error)

    def _steps(self, name: str) -> Iterator[Callable[[], object]]:
        """What makes the object say whose the address is: nothing, deleting, creating or both."""
        served = self.addresses
        stored = self.registry.store.get(Key(served.storage, "", name))
        owner = self._owners.get(name)
        if stored is not None:
            if not _is_ours(stored.obj) or _owner(stored.obj) == owner:
                return
            log.info("IPAddress %s belongs to nobody who has it: deleting", name)
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
