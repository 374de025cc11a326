"""The shapes that a lab file can name, as descriptions.

- one-segment: all nodes on one Ethernet segment, and one router to the outside. Its router has no
  routes to pods.
- two-racks: a leaf-spine fabric. Each rack is a subnet behind a top-of-rack router; a spine router
  joins the racks.

These things hold for every shape: a host has a route to every other host; addresses follow from the
order of the hosts, so the same lab file gives the same addresses; switches form no loops; and the
outside (documentation ranges of RFC 5737 and RFC 3849) never overlaps real networks.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kubewire.topologies.description import Description, Host, Port, Switch
from kubewire.topologies.plan import PlanError, ranges
from kubewire.topologies.ranges import Range

OUTSIDE = ipaddress.IPv4Network("203.0.113.0/24")  # TEST-NET-3, RFC 5737
OUTSIDE_IPV6 = ipaddress.IPv6Network("2001:db8:113::/64")  # of the documentation prefix, RFC 3849
_OUTSIDE_OF: dict[int, Range] = {4: OUTSIDE, 6: OUTSIDE_IPV6}
#: The BGP numbers of two-racks' routers, if they speak BGP (private ones of RFC 6996).
SPINE_AS = 65000
FIRST_RACK_AS = 65001


@dataclass
class Pool:
    """Hands out addresses in order, one of each range at a time. users: the machines that need
    them, for the error."""

    ranges: Sequence[Range]
    users: str
    _next: int = field(default=1)

    def take(self) -> tuple[str, ...]:
        """The next address of each range, with its prefix length. Raises PlanError."""
        for network in self.ranges:
            if self._next >= network.num_addresses - 1:
                raise PlanError(
                    f"{network} has too few addresses for {self.users}; take a shorter prefix",
                )
        number = self._next
        self._next = self._next + 1
        return tuple(f"{network[number]}/{network.prefixlen}" for network in self.ranges)


def _outside(nodes: Sequence[Range]) -> tuple[tuple[str, ...], dict[str, Host]]:
    """The router's addresses on the outside, and the hosts there, in the families that the nodes
    have."""
    networks = [_OUTSIDE_OF[network.version] for network in nodes]

    def addresses(number: str) -> tuple[str, ...]:
        # The same digits in both families: ::10 and ::53 are easier to recognize than ::a and ::35.
        return tuple(
            f"{network[int(number, 16 if network.version == 6 else 10)]}/{network.prefixlen}"
            for network in networks
        )

    def machine(number: str) -> Host:
        return Host("outside", interfaces=(("eth0", Port("outside", addresses(number))),))

    return addresses("1"), {"client": machine("10"), "dns": machine("53")}


def one_segment(workers: int, nodes: str) -> Description:
    """One Ethernet segment with all nodes, and a router between it and the outside client and DNS
    server. Raises PlanError."""
    networks = ranges(nodes)
    pool = Pool(networks, f"{workers + 1} nodes and the router")
    gateways = pool.take()
    outside_gateways, outside = _outside(networks)
    router = (("eth0", Port("segment", gateways)), ("eth1", Port("outside", outside_gateways)))

    def node(role: Literal["control-plane", "worker"]) -> Host:
        return Host(role, interfaces=(("eth0", Port("segment", pool.take())),))

    hosts = {
        "control-plane": node("control-plane"),
        **{f"worker-{number}": node("worker") for number in range(1, workers + 1)},
        "router": Host("router", interfaces=router),
        **outside,
    }
    return Description(tuple(hosts.items()), (("segment", Switch()), ("outside", Switch())))


def two_racks(workers: int, nodes: str) -> Description:
    """Two racks, each a segment behind its own top-of-rack router; a spine router joins them and
    the outside. Raises PlanError.

    The node range is cut into quarters: rack-1, rack-2, and in the last one two links from the
    spine to the racks (/30, in IPv6 /126). Workers alternate between the racks; the control plane
    is in rack-1.
    """
    wholes = ranges(nodes)
    for whole in wholes:
        longest = whole.max_prefixlen - 6
        if whole.prefixlen > longest:
            raise PlanError(f"{whole} is too small for two racks; take a /{longest} or shorter")
    first, second, _, last = zip(
        *(whole.subnets(prefixlen_diff=2) for whole in wholes),
        strict=True,
    )
    uplinks = zip(*(_links(quarter) for quarter in last), strict=True)
    outside_gateways, outside = _outside(wholes)
    spine = [("eth0", Port("outside", outside_gateways))]
    pools: dict[str, Pool] = {}
    routers: dict[str, Host] = {}
    for number, (rack, uplink) in enumerate(zip((first, second), uplinks, strict=True), start=1):
        pool = Pool(rack, f"the nodes of rack-{number} (of {workers + 1}) and its router")
        pools[f"rack-{number}"] = pool
        ends = Pool(uplink, f"the two ends of uplink-{number}")
        inside = pool.take()
        above = ends.take()
        below = ends.take()
        ports = (
            ("eth0", Port(f"rack-{number}", inside)),
            ("eth1", Port(f"uplink-{number}", below)),
        )
        routers[f"tor-{number}"] = Host("router", asn=FIRST_RACK_AS + number - 1, interfaces=ports)
        spine.append((f"eth{number}", Port(f"uplink-{number}", above)))

    def node(role: Literal["control-plane", "worker"], rack: str) -> Host:
        return Host(role, zone=rack, interfaces=(("eth0", Port(rack, pools[rack].take())),))

    hosts = {
        "control-plane": node("control-plane", "rack-1"),
        **{
            f"worker-{number}": node("worker", "rack-1" if number % 2 else "rack-2")
            for number in range(1, workers + 1)
        },
        **routers,
        "router": Host("router", asn=SPINE_AS, interfaces=tuple(spine)),
        **outside,
    }
    switches = ("rack-1", "rack-2", "uplink-1", "uplink-2", "outside")
    return Description(tuple(hosts.items()), tuple((name, Switch()) for name in switches))


def _links(quarter: Range) -> list[Range]:
    """The first two subnets of a quarter that have room for both ends of a link."""
    return list(itertools.islice(quarter.subnets(new_prefix=quarter.max_prefixlen - 2), 2))


#: The shapes a lab file can name: functions of the number of workers and the node range.
SHAPES: Mapping[str, Callable[[int, str], Description]] = {
    "one-segment": one_segment,
    "two-racks": two_racks,
}
