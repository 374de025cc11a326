"""Gives out ClusterIPs and node ports: k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go,
ipallocator and portallocator; the bands are those of KEP-3070 (addresses) and KEP-3668 (ports).

What nobody asked for by number comes from the upper band, so that the lower one stays free for Services that
name their address or port; when the upper band is used up the lower one is taken as well.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubewire.components.apiserver.kinds.addresses import IPV4, IPV6, family, parse_ip
from kubewire.components.apiserver.kinds.fielderrors import invalid
from kubewire.components.apiserver.kinds.services.service_families import (
    HEADLESS,
    fill_families,
    is_headless,
    keeps_prefer_dual_stack,
)
from kubewire.components.apiserver.kinds.services.service_validation import needs_health_check
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject

_FULL = "range is full"


class AllocationError(Exception):
    """What cannot be given out; the text is upstream's."""


class FullError(AllocationError):
    """Nothing is left."""


@dataclass
class Pool:
    """A range of numbers, both ends included. Numbers below `upper` are the static band."""

    first: int
    last: int
    upper: int
    used: set[int] = field(default_factory=set)
    rng: random.Random = field(default_factory=random.Random)

    def take(self, number: int) -> bool:
        """False when it is taken already. The caller has checked the range."""
        if number in self.used:
            return False
        self.used.add(number)
        return True

    def take_next(self, barred: Container[int] = ()) -> int:
        """Any free number. Raises FullError."""
        for low, high in ((self.upper, self.last), (self.first, self.upper - 1)):
            for number in self._from_random(low, high):
                if number not in barred and self.take(number):
                    return number
        raise FullError(_FULL)

    def _from_random(self, low: int, high: int) -> Iterable[int]:
        if low > high:
            return
        start = self.rng.randint(low, high)
        yield from range(start, high + 1)
        yield from range(low, start)


def address_pool(cidr: str, used: set[int] | None = None) -> Pool:
    """used: shared with pools that overlap. All addresses but the network's own and, for IPv4, the broadcast address.

    The static band is a sixteenth of the range, at least 16 and at most 256 addresses; none in a tiny range.
    """
    network = ipaddress.ip_network(cidr)
    first = int(network.network_address) + 1
    last = int(network.broadcast_address) - (1 if network.version == 4 else 0)
    size = min(network.num_addresses, 2**63 - 1)
    band = 0 if size <= 16 else min(max(16, size // 16), 256)
    return Pool(first, last, first + band, set() if used is None else used)


def port_pool(low: int, high: int) -> Pool:
    """The static band is a thirty-second of the range, at least 16 and at most 128 ports."""
    size = high - low + 1
    band = 0 if size <= 16 else min(max(16, size // 32), 128)
    return Pool(low, high, low + band)


class ServiceAllocator:
    """The ClusterIPs and node ports in use, in memory; `rebuild` restores it from stored Services.

    cidrs: one Service range per family, the default family first; they say which families the cluster has, and
    addresses come from them until use_ranges() names others. port_range: node ports, both ends included.
    """

    def __init__(self, cidrs: Sequence[str], port_range: tuple[int, int]) -> None:
        self._cidrs = {IPV4 if ":" not in cidr else IPV6: cidr for cidr in cidrs}
        self._port_range = port_range
        self._used: dict[str, set[int]] = {key: set() for key in self._cidrs}
        self._held: dict[str, set[int]] = {key: set() for key in self._cidrs}
        self._pools = {key: [address_pool(cidr, self._used[key])] for key, cidr in self._cidrs.items()}
        self._ports = port_pool(*port_range)

    def use_ranges(self, cidrs: Iterable[str]) -> None:
        """The ServiceCIDRs in force, the one to take from first first. A family without one keeps its flag's."""
        by_family: dict[str, list[str]] = {}
        for cidr in cidrs:
            by_family.setdefault(IPV6 if ":" in cidr else IPV4, []).append(cidr)
        for key, default in self._cidrs.items():
            self._pools[key] = [address_pool(cidr, self._used[key]) for cidr in by_family.get(key) or [default]]

    def hold(self, ip: str) -> None:
        """An IPAddress that somebody else made: no Service may have it."""
        for numbers, number in self._numbers([ip], self._held):
            numbers.add(number)

    def let_go(self, ip: str) -> None:
        for numbers, number in self._numbers([ip], self._held):
            numbers.discard(number)

    # --- what the registry calls

    def allocate(self, new_service: KubeObject, old_service: KubeObject | None) -> list[FieldError]:
        """Fills addresses, families and ports of new_service in, reserves them, and releases what old_service
        no longer needs. On errors the caller must `rebuild`: part of it may be reserved already."""
        new = new_service.setdefault("spec", {})
        old = (old_service.get("spec") or {}) if old_service is not None else None
        if old is not None:
            _keep_allocated(new, old)
        _synchronise_cluster_ips(new, old)
        return (
            fill_families(new, old, tuple(self._cidrs))
            or self._allocate_addresses(new, old)
            or self._allocate_ports(new, old)
            or self._allocate_health_check(new, old)
        )

    def release(self, service: KubeObject) -> None:
        """Frees everything a deleted Service had."""
        spec = service.get("spec") or {}
        if spec.get("type") != "ExternalName" and not is_headless(spec):
            self._release_addresses(spec.get("clusterIPs") or ())
        self._ports.used.difference_update(_node_ports(spec))
        if needs_health_check(spec):
            self._ports.used.discard(spec.get("healthCheckNodePort", 0))

    def rebuild(self, services: Iterable[KubeObject]) -> None:
        """Forgets everything and takes what these Services have."""
        for numbers in (*self._used.values(), self._ports.used):
            numbers.clear()
        for service in services:
            spec = service.get("spec") or {}
            if spec.get("type") != "ExternalName" and not is_headless(spec):
                for numbers, number in self._numbers(spec.get("clusterIPs") or (), self._used):
                    numbers.add(number)
            self._ports.used.update(_node_ports(spec))
            if needs_health_check(spec) and spec.get("healthCheckNodePort"):
                self._ports.used.add(spec["healthCheckNodePort"])

    # --- addresses

    def _allocate_addresses(self, new: dict[str, Any], old: dict[str, Any] | None) -> list[FieldError]:
        """Creation and ExternalName -> other types allocate all, the way back releases all; a second family
        brings or takes the second address (the cases A to D of upstream's updateClusterIPs)."""
        if keeps_prefer_dual_stack(new, old):
            return []
        if old is None or (old.get("type") == "ExternalName" and new.get("type") != "ExternalName"):
            return self._fill_addresses(new, 0)
        if is_headless(old):
            return []
        if old.get("type") != "ExternalName" and new.get("type") == "ExternalName":
            self._release_addresses(old.get("clusterIPs") or ())
            return []
        before, after = len(old.get("ipFamilies") or ()), len(new.get("ipFamilies") or ())
        if (before, after) == (1, 2):
            return self._fill_addresses(new, 1)
        if (before, after) == (2, 1):
            self._release_addresses((old.get("clusterIPs") or ())[1:])
        return []

    def _fill_addresses(self, new: dict[str, Any], start: int) -> list[FieldError]:
        ips = list(new.get("clusterIPs") or ())
        if new.get("type") == "ExternalName" or ips[:1] == [HEADLESS]:
            return []
        asked = list(ips)
        for index, one in enumerate(new.get("ipFamilies") or ()):
            if index < start:
                continue
            wanted = ips[index] if index < len(ips) else ""
            try:
                ips[index:] = [self._take_address(one, wanted), *ips[index + 1 :]]
            except FullError as error:
                return [FieldError("InternalError", "spec.clusterIPs", ips, f"failed to allocate a serviceIP: {error}")]
            except AllocationError as error:
                return [invalid("spec.clusterIPs", asked, f"failed to allocate IP {wanted}: {error}")]
        new["clusterIPs"] = ips
        if ips:
            new["clusterIP"] = ips[0]
        return []

    def _take_address(self, one: str, wanted: str) -> str:
        pools = self._pools[one]
        if not wanted:
            number = self._take_any(pools, self._held[one])
            return str(ipaddress.IPv4Address(number) if one == IPV4 else ipaddress.IPv6Address(number))
        address = parse_ip(wanted)
        # With ServiceCIDRs (KEP-1880) an address outside every range has no allocator to ask.
        pool = next((pool for pool in pools if address and pool.first <= int(address) <= pool.last), None)
        if address is None or pool is None:
            raise AllocationError("the provided network does not match the current range")
        if int(address) in self._held[one] or not pool.take(int(address)):
            raise AllocationError("provided IP is already allocated")
        return wanted

    def _take_any(self, pools: Sequence[Pool], held: set[int]) -> int:
        for pool in pools:
            try:
                return pool.take_next(held)
            except FullError:
                continue
        raise FullError(_FULL)

    def _release_addresses(self, ips: Iterable[str]) -> None:
        for numbers, number in self._numbers(ips, self._used):
            numbers.discard(number)

    def _numbers(self, ips: Iterable[str], sets: dict[str, set[int]]) -> Iterable[tuple[set[int], int]]:
        """Each address of a configured family, with the set of its family."""
        for ip in ips:
            numbers, address = sets.get(family(ip)), parse_ip(ip)
            if numbers is not None and address is not None:
                yield numbers, int(address)

    # --- node ports

    def _allocate_ports(self, new: dict[str, Any], old: dict[str, Any] | None) -> list[FieldError]:
        had = set(_node_ports(old or {})) if (old or {}).get("type") in ("NodePort", "LoadBalancer") else set()
        if new.get("type") not in ("NodePort", "LoadBalancer"):
            self._ports.used -= had
            return []
        errors = self._fill_new_ports(new) if old is None else self._fill_ports(new, had)
        self._ports.used -= had - set(_node_ports(new))
        return errors

    def _fill_new_ports(self, new: dict[str, Any]) -> list[FieldError]:
        """Service ports with the same number (TCP and UDP, say) share one node port."""
        shared: dict[int, int] = {}
        ports = new.get("ports") or []
        for index, port in enumerate(ports):
            if not port.get("nodePort") and not _wants_node_ports(new):
                continue
            number, asked = port.get("port", 0), port.get("nodePort") or 0
            try:
                if number not in shared:
                    asked = _asked_port(ports, number)
                    shared[number] = port["nodePort"] = self._take_port(asked)
                elif not port.get("nodePort"):
                    port["nodePort"] = shared[number]
                elif port["nodePort"] != shared[number]:
                    self._take_port(asked)
            except AllocationError as error:
                return [_port_error(index, asked, error)]
        return []

    def _fill_ports(self, new: dict[str, Any], had: set[int]) -> list[FieldError]:
        """On update: ports the Service has already need no reservation."""
        mine = set(had)
        for index, port in enumerate(new.get("ports") or []):
            asked = port.get("nodePort") or 0
            if asked in mine or (not asked and not _wants_node_ports(new)):
                continue
            try:
                port["nodePort"] = self._take_port(asked)
            except AllocationError as error:
                return [_port_error(index, asked, error)]
            mine.add(port["nodePort"])
        return []

    def _take_port(self, asked: int) -> int:
        if not asked:
            return self._ports.take_next()
        low, high = self._port_range
        if not low <= asked <= high:
            text = f"provided port is not in the valid range. The range of valid ports is {low}-{high}"
            raise AllocationError(text)
        if not self._ports.take(asked):
            raise AllocationError("provided port is already allocated")
        return asked

    def _allocate_health_check(self, new: dict[str, Any], old: dict[str, Any] | None) -> list[FieldError]:
        needed, needs = needs_health_check(old or {}), needs_health_check(new)
        if needed and not needs:
            self._ports.used.discard((old or {}).get("healthCheckNodePort", 0))
        if needed or not needs:
            return []
        asked = new.get("healthCheckNodePort") or 0
        try:
            new["healthCheckNodePort"] = self._take_port(asked)
        except AllocationError as error:
            what = f"requested HealthCheck NodePort {asked}" if asked else "a HealthCheck NodePort 0"
            return [
                FieldError("InternalError", "spec.healthCheckNodePort", asked, f"failed to allocate {what}: {error}")
            ]
        return []


def _asked_port(ports: Sequence[dict[str, Any]], number: int) -> int:
    """The node port that any of the Service's ports of this number asks for, 0 for none."""
    return next((port["nodePort"] for port in ports if port.get("port") == number and port.get("nodePort")), 0)


def _port_error(index: int, asked: int, error: AllocationError) -> FieldError:
    path = f"spec.ports[{index}].nodePort"
    if isinstance(error, FullError):
        return FieldError("InternalError", path, asked, f"failed to allocate a nodePort: {error}")
    return invalid(path, asked, str(error))


def _wants_node_ports(spec: dict[str, Any]) -> bool:
    return spec.get("type") == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True) is not False


def _node_ports(spec: dict[str, Any]) -> list[int]:
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]


def _keep_allocated(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Applying the same manifest again must not lose what was allocated (patchAllocatedValues)."""
    if "ExternalName" not in (new.get("type"), old.get("type")):
        for key in ("clusterIP", "clusterIPs"):
            if not new.get(key) and old.get(key):
                new[key] = old[key]
    if all(spec.get("type") in ("NodePort", "LoadBalancer") for spec in (new, old)):
        _keep_node_ports(new, old)
    if needs_health_check(new) and needs_health_check(old) and not new.get("healthCheckNodePort"):
        new["healthCheckNodePort"] = old.get("healthCheckNodePort", 0)


def _keep_node_ports(new: dict[str, Any], old: dict[str, Any]) -> None:
    """By port name; a number that another port of the new Service already has is not given twice."""
    used = set(_node_ports(old)) & set(_node_ports(new))
    known = {port.get("name", ""): port.get("nodePort", 0) for port in old.get("ports") or ()}
    for port in new.get("ports") or ():
        number = known.get(port.get("name", ""), 0)
        if not port.get("nodePort") and number and number not in used:
            port["nodePort"] = number
            used.add(number)


def _synchronise_cluster_ips(new: dict[str, Any], old: dict[str, Any] | None) -> None:
    """clusterIP and clusterIPs for clients that know only one of them (normalizeClusterIPs)."""
    one, ips = new.get("clusterIP") or "", new.get("clusterIPs") or []
    if old is None:
        if one and not ips:
            new["clusterIPs"] = [one]
        return
    was, were = old.get("clusterIP") or "", old.get("clusterIPs") or []
    if were and not ips and one == was:
        new["clusterIPs"] = ips = list(were)
    if one == was or list(ips) != list(were):
        return
    if was and not one:
        new.pop("clusterIPs", None)
    elif one:
        new["clusterIPs"] = [one]
