"""Services and endpoints -> virtual servers, addresses of kube-ipvs0, entries of ipsets. Pure and
deterministic.

A Service's port becomes a Block (planner.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kubewire.components.kube_proxy.ipvs import sets
from kubewire.components.kube_proxy.ipvs.chains import Balancer
from kubewire.components.kube_proxy.ipvs.servers import Key, VirtualServer, socket_address
from kubewire.components.kube_proxy.ipvs.sets import address, ip_port, ip_port_ip, ip_port_nets
from kubewire.components.kube_proxy.planner import Blocks, node_ip
from kubewire.components.kube_proxy.state import topology
from kubewire.components.kube_proxy.state.model import (
    Endpoint,
    Endpoints,
    Node,
    ServicePort,
    ServicePortName,
    Services,
)
from kubewire.components.kube_proxy.state.objects import in_range
from kubewire.components.kube_proxy.state.topology import Reachable

DEFAULT_SCHEDULER = "rr"


@dataclass(frozen=True)
class Context:
    """What all Services of a family share. node_addresses: on interfaces other than kube-ipvs0;
    node_port_ips: those of them that take NodePort traffic."""

    node: Node
    family: str
    scheduler: str = DEFAULT_SCHEDULER
    node_addresses: frozenset[str] = frozenset()
    node_port_ips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """What one port of a Service needs. entries: (set, entry), addresses of kube-ipvs0 among them
    (KUBE-IPVS-IPS); closed_to_node: balancers' addresses that the node itself may not reach."""

    servers: Mapping[Key, VirtualServer]
    entries: frozenset[tuple[str, str]]
    closed_to_node: tuple[Balancer, ...]


_NOTHING = Block({}, frozenset(), ())


@dataclass(frozen=True)
class Plan:
    """A whole desired state."""

    servers: Mapping[Key, VirtualServer]
    sets: Mapping[str, frozenset[str]]
    closed_to_node: tuple[Balancer, ...]

    @property
    def bound(self) -> frozenset[str]:
        """Addresses on kube-ipvs0."""
        return self.sets[sets.IPVS_IPS]


@dataclass
class Cache:
    """What the plan before was made of. counts: how many blocks want an entry."""

    blocks: Blocks[Block, _Chosen, Context] = field(default_factory=lambda: Blocks(_choose, _build))
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    plan: Plan = field(default_factory=lambda: Plan({}, dict.fromkeys(sets.SETS, frozenset()), ()))


class _Change(NamedTuple):
    before: Block
    after: Block


def plan(
    services: Services,
    endpoints: Endpoints,
    context: Context,
    cache: Cache | None = None,
    changed: Collection[ServicePortName] | None = None,
) -> Plan:
    """cache is brought up to date; changed are the names that may differ from the call before, None
    any."""
    cache = cache if cache is not None else Cache()
    steps = cache.blocks.update(services, endpoints, context.node, context, changed)
    if changes := [_Change(before or _NOTHING, after or _NOTHING) for _, before, after in steps]:
        cache.plan = Plan(
            _servers(cache, changes), _entries(cache, changes), _closed(cache, changes)
        )
    return cache.plan


def _servers(cache: Cache, changes: Collection[_Change]) -> Mapping[Key, VirtualServer]:
    """Where two Services claim one address and port (externalIPs), the first by name has it."""
    earlier = cache.plan.servers
    if all(before.servers.keys() == after.servers.keys() for before, after in changes):
        mine = (
            (key, server, before)
            for before, after in changes
            for key, server in after.servers.items()
        )
        return {
            **earlier,
            **{key: server for key, server, before in mine if earlier[key] is before.servers[key]},
        }
    merged: dict[Key, VirtualServer] = {}
    for block in cache.blocks.values():
        for key, server in block.servers.items():
            merged.setdefault(key, server)
    return merged


def _entries(cache: Cache, changes: Collection[_Change]) -> Mapping[str, frozenset[str]]:
    moved: dict[str, set[str]] = {}
    for before, after in changes:
        cache.counts.update(after.entries - before.entries)
        cache.counts.subtract(before.entries - after.entries)
        for name, entry in before.entries ^ after.entries:
            moved.setdefault(name, set()).add(entry)
    present = {
        name: {entry for entry in of_it if cache.counts[name, entry]}
        for name, of_it in moved.items()
    }
    for name, of_it in moved.items():
        for entry in of_it - present[name]:
            del cache.counts[name, entry]
    earlier = cache.plan.sets
    return {
        **earlier,
        **{name: (earlier[name] - of_it) | present[name] for name, of_it in moved.items()},
    }


def _closed(cache: Cache, changes: Collection[_Change]) -> tuple[Balancer, ...]:
    if all(before.closed_to_node == after.closed_to_node for before, after in changes):
        return cache.plan.closed_to_node
    return tuple(balancer for block in cache.blocks.values() for balancer in block.closed_to_node)


class _Chosen(NamedTuple):
    """here: all endpoints of this node, ready or not."""

    reachable: Reachable
    here: tuple[Endpoint, ...]


def _choose(endpoints: tuple[Endpoint, ...], service: ServicePort, node: Node) -> _Chosen:
    here = tuple(
        endpoint for endpoint in endpoints if node.name and endpoint.node_name == node.name
    )
    return _Chosen(topology.choose(endpoints, service, node), here)


def _build(_: ServicePortName, service: ServicePort, chosen: _Chosen, context: Context) -> Block:
    return _Builder(service, chosen, context).block()


class _Builder:
    def __init__(self, service: ServicePort, chosen: _Chosen, context: Context) -> None:
        self._service, self._context = service, context
        self._chosen, self._here = chosen
        self._servers: dict[Key, VirtualServer] = {}
        self._entries: set[tuple[str, str]] = set()
        self._closed: list[Balancer] = []

    def block(self) -> Block:
        self._hairpin()
        self._cluster_ip()
        self._external_ips()
        for ip in self._service.load_balancer_ips:
            self._load_balancer(address(ip))
        if self._service.node_port and self._context.node_port_ips:
            self._node_port()
        if self._service.health_check_node_port:
            self._entries.add(
                (sets.HEALTH_CHECK_NODE_PORT, str(self._service.health_check_node_port))
            )
        return Block(self._servers, frozenset(self._entries), tuple(self._closed))

    def _hairpin(self) -> None:
        """A pod that is led back to itself must see another address: ready or not, if it is on this
        node."""
        for endpoint in self._here:
            entry = ip_port_ip(endpoint.ip, self._service.protocol, endpoint.port, endpoint.ip)
            self._entries.add((sets.LOOP_BACK, entry))

    def _cluster_ip(self) -> None:
        ip = address(self._service.cluster_ip)
        self._entries.add((sets.CLUSTER_IP, self._entry(ip)))
        self._serve(ip, self._service.port, local=self._service.internal_local)
        self._entries.add((sets.IPVS_IPS, ip))

    def _external_ips(self) -> None:
        into = sets.EXTERNAL_IP_LOCAL if self._service.external_local else sets.EXTERNAL_IP
        for ip in map(address, self._service.external_ips):
            self._entries.add((into, self._entry(ip)))
            self._serve(ip, self._service.port, local=self._service.external_local)
            self._bind(ip)

    def _load_balancer(self, ip: str) -> None:
        self._entries.add((sets.LOAD_BALANCER, self._entry(ip)))
        if self._service.external_local:
            self._entries.add((sets.LOAD_BALANCER_LOCAL, self._entry(ip)))
        if self._service.load_balancer_source_ranges:
            self._source_ranges(ip)
        self._serve(ip, self._service.port, local=self._service.external_local)
        self._bind(ip)

    def _source_ranges(self, ip: str) -> None:
        service, own = self._service, node_ip(self._context.node, self._context.family)
        ranges = service.load_balancer_source_ranges
        self._entries.add((sets.LOAD_BALANCER_FW, self._entry(ip)))
        for cidr in ranges:
            for entry in ip_port_nets(ip, service.protocol, service.port, cidr):
                self._entries.add((sets.LOAD_BALANCER_SOURCE_CIDR, entry))
        # A process of the node comes with the balancer's address as its own: the address is on
        # kube-ipvs0.
        if own and any(in_range(own, cidr) for cidr in ranges):
            entry = ip_port_ip(ip, service.protocol, service.port, ip)
            self._entries.add((sets.LOAD_BALANCER_SOURCE_IP, entry))
        else:
            self._closed.append(Balancer(ip, service.protocol, service.port))

    def _node_port(self) -> None:
        service, ips = self._service, self._context.node_port_ips
        # There is no bitmap of SCTP ports, so these are kept with each address.
        by_address = service.protocol == "sctp"
        entries = (
            [ip_port(ip, "sctp", service.node_port) for ip in ips]
            if by_address
            else [str(service.node_port)]
        )
        names = [sets.NODE_PORT[service.protocol]]
        if service.external_local:
            names.append(sets.NODE_PORT_LOCAL[service.protocol])
        self._entries |= {(name, entry) for name in names for entry in entries}
        for ip in map(address, ips):
            self._serve(ip, service.node_port, local=service.external_local)

    def _entry(self, ip: str) -> str:
        return ip_port(ip, self._service.protocol, self._service.port)

    def _bind(self, ip: str) -> None:
        """An address that another interface has must not be on kube-ipvs0 too."""
        if ip not in self._context.node_addresses:
            self._entries.add((sets.IPVS_IPS, ip))

    def _serve(self, ip: str, port: int, *, local: bool) -> None:
        """Policy Local without a pod here falls back to all: then pods of the node are served, and
        who comes from outside gets its answer from a pod it never asked (kubernetes pull request
        97081)."""
        chosen = (local and self._chosen.local) or self._chosen.cluster
        reals = {socket_address(endpoint.ip, endpoint.port): 1 for endpoint in chosen}
        key = Key(self._service.protocol, ip, port)
        self._servers[key] = VirtualServer(
            self._context.scheduler, self._service.sticky_seconds, reals
        )
