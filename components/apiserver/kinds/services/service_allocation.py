"""Allocates ClusterIPs and node ports.

It follows k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go, ipallocator and
portallocator. Ranges are divided into two bands (KEP-3070 for addresses, KEP-3668 for ports). A
number that no Service asks for comes from the upper band, so that the lower one stays free for
Services that name theirs. When the upper band is full, the lower one is used as well.
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
    """The allocation failed; the message is upstream's."""


class FullError(AllocationError):
    """No free number is left."""


@dataclass
class Pool:
    """A range of numbers, both ends included; those below `upper` are the static band."""

    first: int
    last: int
    upper: int
    used: set[int] = field(default_factory=set)
    rng: random.Random = field(default_factory=random.Random)

    def take(self, number: int) -> bool:
        """Takes a number of the range; returns False when it is in use."""
        if number in self.used:
            return False
        self.used.add(number)
        return True

    def take_next(self, barred: Container[int] = ()) -> int:
        """Takes any free number that is not barred; raises FullError when there is none."""
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
    """The pool of a CIDR; `used` is shared with pools that overlap.

    It has all addresses except the network's own and, for IPv4, the broadcast address. The static
    band is a sixteenth of the range, at least 16 and at most 256 addresses. A tiny range has no
    static band.
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
    """Holds in memory which ClusterIPs and node ports are in use; rebuild() restores it from
    Services.

    cidrs has one Service range for each family of the cluster, the default family first. Addresses
    come from them until use_ranges() names others. port_range is the range of node ports, both
    ends included.
    """

    def __init__(self, cidrs: Sequence[str], port_range: tuple[int, int]) -> None:
        self._cidrs = {IPV4 if ":" not in cidr else IPV6: cidr for cidr in cidrs}
        self._port_range = port_range
        self._used: dict[str, set[int]] = {key: set() for key in self._cidrs}
        self._held: dict[str, set[int]] = {key: set() for key in self._cidrs}
        self._pools: dict[str, list[Pool]] = {}
        for key, cidr in self._cidrs.items():
            self._pools[key] = [address_pool(cidr, self._used[key])]
        self._ports = port_pool(*port_range)

    def use_ranges(self, cidrs: Iterable[str]) -> None:
        """Takes addresses from these ServiceCIDRs, in this order.

        A family without one keeps the range of its flag.
        """
        by_family: dict[str, list[str]] = {}
        for cidr in cidrs:
            by_family.setdefault(IPV6 if ":" in cidr else IPV4, []).append(cidr)
        for key, default in self._cidrs.items():
            used = self._used[key]
            ranges = by_family.get(key) or [default]
            self._pools[key] = [address_pool(cidr, used) for cidr in ranges]

    def hold(self, ip: str) -> None:
        """Bars an address whose IPAddress object was created by a client."""
        for numbers, number in self._numbers([ip], self._held):
            numbers.add(number)

    def let_go(self, ip: str) -> None:
        """Frees a barred address."""
        for numbers, number in self._numbers([ip], self._held):
            numbers.discard(number)

    def allocate(self, new_service: KubeObject, old_service: KubeObject | None) -> list[FieldError]:
        """Fills in and reserves addresses, families and ports of new_service.

        What old_service had and new_service does not need is released. After errors the caller
        must rebuild(), because some of it may be reserved already.
        """
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
        """Frees everything that a deleted Service had."""
        spec = service.get("spec") or {}
        if spec.get("type") != "ExternalName" and not is_headless(spec):
            self._release_addresses(spec.get("clusterIPs") or ())
        self._ports.used.difference_update(_node_ports(spec))
        if needs_health_check(spec):
            self._ports.used.discard(spec.get("healthCheckNodePort", 0))

    def rebuild(self, services: Iterable[KubeObject]) -> None:
        """Forgets everything, then reserves what these Services have."""
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

    def _allocate_addresses(
        self,
        new: dict[str, Any],
        old: dict[str, Any] | None,
    ) -> list[FieldError]:
        """Allocates or releases addresses (cases A to D of upstream's updateClusterIPs).

        A new Service, and one that stops being an ExternalName, gets all addresses. One that
        becomes an ExternalName releases all. A change in the number of families adds or releases
        the second address.
        """
        if keeps_prefer_dual_stack(new, old):
            return []
        if old is None or (old.get("type") == "ExternalName" and new.get("type") != "ExternalName"):
            return self._fill_addresses(new, 0)
        if is_headless(old):
            return []
        if old.get("type") != "ExternalName" and new.get("type") == "ExternalName":
            self._release_addresses(old.get("clusterIPs") or ())
            return []
        before = len(old.get("ipFamilies") or ())
        after = len(new.get("ipFamilies") or ())
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
        for index, ip_family in enumerate(new.get("ipFamilies") or ()):
            if index < start:
                continue
            wanted = ips[index] if index < len(ips) else ""
            try:
                ips[index:] = [self._take_address(ip_family, wanted), *ips[index + 1 :]]
            except FullError as error:
                text = f"failed to allocate a serviceIP: {error}"
                return [FieldError("InternalError", "spec.clusterIPs", ips, text)]
            except AllocationError as error:
                return [
                    invalid("spec.clusterIPs", asked, f"failed to allocate IP {wanted}: {error}"),
                ]
        new["clusterIPs"] = ips
        if ips:
            new["clusterIP"] = ips[0]
        return []

    def _take_address(self, ip_family: str, wanted: str) -> str:
        pools = self._pools[ip_family]
        if not wanted:
            number = self._take_any(pools, self._held[ip_family])
            if ip_family == IPV4:
                return str(ipaddress.IPv4Address(number))
            return str(ipaddress.IPv6Address(number))
        address = parse_ip(wanted)
        # With ServiceCIDRs (KEP-1880) an address outside every range has no allocator.
        matching = (pool for pool in pools if address and pool.first <= int(address) <= pool.last)
        pool = next(matching, None)
        if address is None or pool is None:
            raise AllocationError("the provided network does not match the current range")
        if int(address) in self._held[ip_family] or not pool.take(int(address)):
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

    def _numbers(
        self,
        ips: Iterable[str],
        sets: dict[str, set[int]],
    ) -> Iterable[tuple[set[int], int]]:
        """Yields each address of a configured family with the set of its family."""
        for ip in ips:
            numbers = sets.get(family(ip))
            address = parse_ip(ip)
            if numbers is not None and address is not None:
                yield numbers, int(address)

    def _allocate_ports(self, new: dict[str, Any], old: dict[str, Any] | None) -> list[FieldError]:
        had: set[int] = set()
        if old is not None and old.get("type") in ("NodePort", "LoadBalancer"):
            had = set(_node_ports(old))
        if new.get("type") not in ("NodePort", "LoadBalancer"):
            self._ports.used -= had
            return []
        errors = self._fill_new_ports(new) if old is None else self._fill_ports(new, had)
        self._ports.used -= had - set(_node_ports(new))
        return errors

    def _fill_new_ports(self, new: dict[str, Any]) -> list[FieldError]:
        """Allocates node ports; Service ports with the same number, such as TCP and UDP, share
        one.
        """
        shared: dict[int, int] = {}
        ports = new.get("ports") or []
        for index, port in enumerate(ports):
            if not port.get("nodePort") and not _wants_node_ports(new):
                continue
            number = port.get("port", 0)
            asked = port.get("nodePort") or 0
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
        """Allocates node ports on an update; those that the Service has already need no
        reservation.
        """
        reserved = set(had)
        seen = set[tuple[str, int]]()
        for index, port in enumerate(new.get("ports") or []):
            asked = port.get("nodePort") or 0
            if not asked and not _wants_node_ports(new):
                continue
            if asked not in reserved:
                try:
                    port["nodePort"] = self._take_port(asked)
                except AllocationError as error:
                    return [_port_error(index, asked, error)]
                reserved.add(port["nodePort"])
            own = (port.get("protocol", ""), port["nodePort"])
            if own in seen:
                # This is no error of a field upstream, but one without a reason.
                text = f"duplicate nodePort: {{{own[0]} {own[1]}}}"
                return [FieldError("InternalError", "", asked, text)]
            seen.add(own)
        return []

    def _take_port(self, asked: int) -> int:
        if not asked:
            return self._ports.take_next()
        low, high = self._port_range
        if not low <= asked <= high:
            text = "provided port is not in the valid range. The range of valid ports is"
            raise AllocationError(f"{text} {low}-{high}")
        if not self._ports.take(asked):
            raise AllocationError("provided port is already allocated")
        return asked

    def _allocate_health_check(
        self,
        new: dict[str, Any],
        old: dict[str, Any] | None,
    ) -> list[FieldError]:
        needed = needs_health_check(old or {})
        needs = needs_health_check(new)
        if needed and not needs:
            self._ports.used.discard((old or {}).get("healthCheckNodePort", 0))
        if needed or not needs:
            return []
        asked = new.get("healthCheckNodePort") or 0
        try:
            new["healthCheckNodePort"] = self._take_port(asked)
        except AllocationError as error:
            port = "a HealthCheck NodePort 0"
            if asked:
                port = f"requested HealthCheck NodePort {asked}"
            text = f"failed to allocate {port}: {error}"
            return [FieldError("InternalError", "spec.healthCheckNodePort", asked, text)]
        return []


def _asked_port(ports: Sequence[dict[str, Any]], number: int) -> int:
    """The node port that any Service port of this number asks for, or 0."""
    same = (port for port in ports if port.get("port") == number)
    return next((port["nodePort"] for port in same if port.get("nodePort")), 0)


def _port_error(index: int, asked: int, error: AllocationError) -> FieldError:
    path = f"spec.ports[{index}].nodePort"
    if isinstance(error, FullError):
        return FieldError("InternalError", path, asked, f"failed to allocate a nodePort: {error}")
    return invalid(path, asked, str(error))


def _wants_node_ports(spec: dict[str, Any]) -> bool:
    if spec.get("type") == "NodePort":
        return True
    return spec.get("allocateLoadBalancerNodePorts", True) is not False


def _node_ports(spec: dict[str, Any]) -> list[int]:
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]


def _keep_allocated(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Keeps allocated values when the same manifest is applied again (patchAllocatedValues)."""
    if "ExternalName" not in (new.get("type"), old.get("type")):
        for key in ("clusterIP", "clusterIPs"):
            if not new.get(key) and old.get(key):
                new[key] = old[key]
    if all(spec.get("type") in ("NodePort", "LoadBalancer") for spec in (new, old)):
        _keep_node_ports(new, old)
    if needs_health_check(new) and needs_health_check(old) and not new.get("healthCheckNodePort"):
        new["healthCheckNodePort"] = old.get("healthCheckNodePort", 0)


def _keep_node_ports(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Keeps node ports by the ports' names, unless another port of the new Service has the
    number.
    """
    used = set(_node_ports(old)) & set(_node_ports(new))
    known = {port.get("name", ""): port.get("nodePort", 0) for port in old.get("ports") or ()}
    for port in new.get("ports") or ():
        number = known.get(port.get("name", ""), 0)
        if not port.get("nodePort") and number and number not in used:
            port["nodePort"] = number
            used.add(number)


def _synchronise_cluster_ips(new: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Makes clusterIP and clusterIPs agree for clients that know only one (normalizeClusterIPs)."""
    ip = new.get("clusterIP") or ""
    ips = new.get("clusterIPs") or []
    if old is None:
        if ip and not ips:
            new["clusterIPs"] = [ip]
        return
    old_ip = old.get("clusterIP") or ""
    old_ips = old.get("clusterIPs") or []
    if old_ips and not ips and ip == old_ip:
        new["clusterIPs"] = ips = list(old_ips)
    if ip == old_ip or list(ips) != list(old_ips):
        return
    if old_ip and not ip:
        new.pop("clusterIPs", None)
    elif ip:
        new["clusterIPs"] = [ip]
