"""From a description to a plan: chooses the addresses and routes that the description leaves out.

A segment is what an Ethernet frame reaches without a router: switches that are linked to each
other, or one cable. All interfaces of a segment share a subnet. A segment on which no interface has
an address gets a part of the node range; parts are equal, in the order in which the hosts mention
the segments. Inside it routers come first, so that a gateway has the lowest address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from kubewire.topologies import routes
from kubewire.topologies.description import PLAIN, Description, Host, Link, Port
from kubewire.topologies.plan import Interface, Machine, PlanError, TopologyPlan, Trunk, ranges
from kubewire.topologies.ranges import Range

#: The longest name of a network device (IFNAMSIZ of linux/if.h).
_DEVICE = 15


@dataclass
class _Segment:
    """Interfaces by (host, interface), in the order of the description."""

    members: list[tuple[str, str]] = field(default_factory=list)


def planned(
    description: Description,
    nodes: str,
    shape: str = "free",
    link: Link = PLAIN,
    *,
    static: bool = True,
) -> TopologyPlan:
    """The plan of a description that has no problems().

    nodes: the range of the nodes. link: properties of links that do not have their own. static:
    without it, routers learn their routes, and only the description's own are written down. Raises
    PlanError if an address range is too small.
    """
    joined = _Joined()
    open_links = [
        joined.join(name, other) for name, switch in description.switches for other in switch.to
    ]
    segments = _segments(description, joined)
    whole = _addressed(description, segments, ranges(nodes))
    ports: set[str] = set()
    machines = _machines(whole, link, ports)
    adjacent = {
        member: number for number, segment in enumerate(segments) for member in segment.members
    }
    found = []
    for machine, (_, host) in zip(machines, whole.hosts, strict=True):
        own = host.routes
        if own is None and (static or machine.role != "router"):
            own = routes.computed(machine, machines, adjacent)
        found.append(replace(machine, routes=own or ()))
    trunks = tuple(
        Trunk(
            name,
            other,
            (_port(f"{other}@{name}", ports), _port(f"{name}@{other}", ports)),
            switch.over(link),
        )
        for name, switch in whole.switches
        for other in switch.to
    )
    switches = tuple(switch for switch, _ in whole.switches)
    return TopologyPlan(shape, tuple(found), switches, trunks, spanning_tree=not all(open_links))


class _Joined:
    """Switches that are joined to each other: a disjoint-set forest."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, switch: str) -> str:
        """The same one for all switches that are joined."""
        while (above := self._above.setdefault(switch, switch)) != switch:
            switch = above
        return switch

    def join(self, one: str, other: str) -> bool:
        """Returns False if they are joined already, so that the new link closes a loop."""
        first = self.root(one)
        second = self.root(other)
        self._above[first] = second
        return first != second


def _segments(description: Description, joined: _Joined) -> list[_Segment]:
    """In the order in which hosts mention them."""
    found: dict[str, _Segment] = {}
    for host, of in description.hosts:
        for interface, port in of.interfaces:
            # Both ends of a cable find the same segment.
            ends = min(port.to, f"{host}:{interface}")
            key = ends if ":" in port.to else joined.root(port.to)
            found.setdefault(key, _Segment()).members.append((host, interface))
    return list(found.values())


def _addressed(
    description: Description, segments: Sequence[_Segment], nodes: Sequence[Range]
) -> Description:
    """The description with an address of each interface."""
    hosts = dict(description.hosts)
    given = {
        (name, own): port.addresses for name, host in hosts.items() for own, port in host.interfaces
    }
    taken = {address.partition("/")[0] for addresses in given.values() for address in addresses}
    without = [
        segment for segment in segments if not any(given[member] for member in segment.members)
    ]
    parts = iter(_parts(nodes, len(without)))
    for segment in segments:
        explicit = [address for member in segment.members for address in given[member]]
        subnets = _subnets(explicit) if explicit else next(parts)
        missing = [member for member in segment.members if not given[member]]
        missing.sort(key=lambda member: hosts[member[0]].role != "router")
        for member in missing:
            given[member] = tuple(_free(subnet, taken, ":".join(member)) for subnet in subnets)

    def addressed(name: str, host: Host) -> Host:
        interfaces = tuple(
            (own, replace(port, addresses=given[name, own])) for own, port in host.interfaces
        )
        return replace(host, interfaces=interfaces)

    return replace(
        description, hosts=tuple((name, addressed(name, host)) for name, host in hosts.items())
    )


def _parts(nodes: Sequence[Range], number: int) -> list[tuple[Range, ...]]:
    """The node ranges cut into so many equal parts, of each family."""
    bits = max(number - 1, 0).bit_length()
    for whole in nodes:
        if whole.prefixlen + bits > whole.max_prefixlen - 2:
            raise PlanError(f"{whole} is too small for {number} segments; take a shorter prefix")
    cut = [[*whole.subnets(prefixlen_diff=bits)][:number] for whole in nodes]
    return list(zip(*cut, strict=True))


def _subnets(addresses: Iterable[str]) -> tuple[Range, ...]:
    """The subnets of a segment's addresses, the first one of each family."""
    found: dict[int, Range] = {}
    for address in addresses:
        network = ipaddress.ip_interface(address).network
        found.setdefault(network.version, network)
    return tuple(found.values())


def _free(subnet: Range, taken: set[str], who: str) -> str:
    for address in subnet.hosts():
        if str(address) not in taken:
            taken.add(str(address))
            return f"{address}/{subnet.prefixlen}"
    raise PlanError(f"{subnet} has no address left for {who}; take a shorter prefix")


def _machines(whole: Description, link: Link, ports: set[str]) -> list[Machine]:
    """Without routes. The names of the switches' ports are added to ports."""
    hosts = dict(whole.hosts)

    def interface(host: str, name: str, port: Port) -> Interface:
        if ":" not in port.to:
            own = _port(f"{_short(host)}@{port.to}", ports)
            return Interface(name, port.addresses, port.to, own, link=port.over(link))
        peer, _, other = port.to.partition(":")
        both = port.over(dict(hosts[peer].interfaces)[other])
        return Interface(name, port.addresses, peer=port.to, link=both.over(link))

    return [
        Machine(
            name,
            host.role,
            tuple(interface(name, own, port) for own, port in host.interfaces),
            zone=host.zone,
            asn=host.asn or 0,
        )
        for name, host in hosts.items()
    ]


def _short(host: str) -> str:
    return host.replace("control-plane", "cp").replace("worker-", "w")


def _port(name: str, taken: set[str]) -> str:
    """A name for a switch's port that is at most 15 bytes long (IFNAMSIZ) and not taken; it is
    taken then."""
    found = name[:_DEVICE]
    number = 1
    while found in taken:
        number += 1
        found = f"{name[: _DEVICE - 1 - len(str(number))]}~{number}"
    taken.add(found)
    return found
