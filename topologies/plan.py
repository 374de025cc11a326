"""The machines of a topology with their addresses and routes: pure data, before anything is built.

A lab's nodes are ordinary machines on an ordinary network, which knows nothing of pods. That is
what CNI plugins are made for, and what makes their differences visible: on one segment a node can
be the next hop of another (host-gw), across racks a router in between would have to know the pods'
ranges, or packets must be tunnelled.

- one-segment: all nodes on one Ethernet segment, and one router to the outside. Its router has no
  routes to pods.
- two-racks: a leaf-spine fabric. Each rack is a subnet behind a top-of-rack router; a spine router
  joins the racks.

These things hold for every plan: a host has a route to every other host; addresses follow from the
order of the hosts, so the same lab file gives the same addresses; switches form no loops, because
bridges run no spanning tree; and the outside (documentation ranges of RFC 5737 and RFC 3849) never
overlaps real networks.

A node range is one CIDR, or an IPv4 and an IPv6 one separated by a comma; then every host has an
address of each family, in that order, and the outside has the same families.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kubewire.topologies.ranges import Range

OUTSIDE = ipaddress.IPv4Network("203.0.113.0/24")  # TEST-NET-3, RFC 5737
OUTSIDE_IPV6 = ipaddress.IPv6Network("2001:db8:113::/64")  # of the documentation prefix, RFC 3849
_OUTSIDE_OF: dict[int, Range] = {4: OUTSIDE, 6: OUTSIDE_IPV6}
#: Directories that differ between two real nodes, and therefore must not be shared by two Mininet
#: hosts. network.build() adds the directories of the pod networks.
PRIVATE_DIRECTORIES = (
    "/run",
    "/tmp",
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/cni",
    "/var/lib/cni",
    "/var/lib/etcd",
    "/var/lib/kube-proxy",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
)


class PlanError(ValueError):
    """The address range is too small for the topology; the text says which range, and what would be
    enough."""


@dataclass(frozen=True)
class Interface:
    """name: as seen inside the host. address: with prefix length. switch: where it is plugged in.

    secondary: the address of the other family, or "".
    """

    name: str
    address: str
    switch: str
    secondary: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses with prefix lengths, the primary family's first."""
        return (self.address, self.secondary) if self.secondary else (self.address,)


@dataclass(frozen=True)
class Machine:
    """One Mininet host. role is "control-plane", "worker", "router" or "outside".

    routes are (destination CIDR or "default", gateway address). rack is the
    topology.kubernetes.io/zone of a node.
    """

    name: str
    role: str
    interfaces: tuple[Interface, ...]
    routes: tuple[tuple[str, str], ...] = ()
    rack: str = ""

    @property
    def address(self) -> str:
        """The first interface's address without its prefix length."""
        return _bare(self.interfaces[0].address)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The first interface's addresses, one of each family, without prefix lengths."""
        return tuple(_bare(address) for address in self.interfaces[0].addresses)

    @property
    def is_node(self) -> bool:
        return self.role in ("control-plane", "worker")


@dataclass(frozen=True)
class TopologyPlan:
    """machines and switches of a topology; bandwidth in Mbit/s on every link, None for no limit."""

    shape: str
    machines: tuple[Machine, ...]
    switches: tuple[str, ...]
    bandwidth: float | None = None

    def machine(self, name: str) -> Machine:
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise KeyError(f"no host {name!r}; there are {', '.join(m.name for m in self.machines)}")

    @property
    def nodes(self) -> tuple[Machine, ...]:
        return tuple(machine for machine in self.machines if machine.is_node)


def ranges(text: str) -> tuple[Range, ...]:
    """Parses one CIDR, or two separated by a comma. Raises ValueError."""
    return tuple(ipaddress.ip_network(part) for part in text.split(","))


def bracketed(address: str) -> str:
    """The address as a URL's host (RFC 3986 section 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def port_name(switch: str, machine: str) -> str:
    """The name of a switch's port: at most 15 bytes (IFNAMSIZ), unique per switch and machine."""
    short = machine.replace("control-plane", "cp").replace("worker-", "w")
    return f"{short}@{switch}"[:15]


@dataclass
class _Pool:
    """Hands out addresses in order, one of each range at a time. users: the machines that need
    them, for the error."""

    ranges: Sequence[Range]
    users: str
    _next: int = field(default=1)

    def take(self) -> tuple[str, ...]:
        """The next address of each range, with its prefix length."""
        for network in self.ranges:
            if self._next >= network.num_addresses - 1:
                raise PlanError(
                    f"{network} has too few addresses for {self.users}; take a shorter prefix",
                )
        number = self._next
        self._next = self._next + 1
        return tuple(f"{network[number]}/{network.prefixlen}" for network in self.ranges)


def _bare(address: str) -> str:
    return address.split("/")[0]


def _interface(name: str, addresses: Sequence[str], switch: str) -> Interface:
    return Interface(name, addresses[0], switch, addresses[1] if len(addresses) > 1 else "")


def _default_routes(gateways: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple(("default", _bare(gateway)) for gateway in gateways)


def _outside(nodes: Sequence[Range]) -> tuple[tuple[str, ...], tuple[Machine, Machine]]:
    """The router's addresses on the outside, and the hosts there, in the families that the nodes
    have."""
    networks = [_OUTSIDE_OF[network.version] for network in nodes]

    def addresses(number: str) -> tuple[str, ...]:
        # The same digits in both families: ::10 and ::53 are easier to recognize than ::a and ::35.
        return tuple(
            f"{network[int(number, 16 if network.version == 6 else 10)]}/{network.prefixlen}" for network in networks
        )

    router = addresses("1")

    def machine(name: str, number: str) -> Machine:
        return Machine(
            name,
            "outside",
            (_interface("eth0", addresses(number), "outside"),),
            _default_routes(router),
        )

    return router, (machine("client", "10"), machine("dns", "53"))


def one_segment(workers: int, nodes: str, bandwidth: float | None = None) -> TopologyPlan:
    """One Ethernet segment with all nodes, and a router between it and the outside client and DNS
    server."""
    networks = ranges(nodes)
    pool = _Pool(networks, f"{workers + 1} nodes and the router")
    gateways = pool.take()
    outside_gateways, outside = _outside(networks)
    router = Machine(
        "router",
        "router",
        (_interface("eth0", gateways, "segment"), _interface("eth1", outside_gateways, "outside")),
    )

    def node(name: str, role: str) -> Machine:
        return Machine(
            name,
            role,
            (_interface("eth0", pool.take(), "segment"),),
            _default_routes(gateways),
        )

    machines = (
        node("control-plane", "control-plane"),
        *(node(f"worker-{number}", "worker") for number in range(1, workers + 1)),
        router,
        *outside,
    )
    return TopologyPlan("one-segment", machines, ("segment", "outside"), bandwidth)


def without_routes_between_routers(plan: TopologyPlan) -> TopologyPlan:
    """The plan for routing by BGP: routers have only the routes to their own networks."""
    machines = tuple(replace(machine, routes=()) if machine.role == "router" else machine for machine in plan.machines)
    return replace(plan, machines=machines)


def two_racks(workers: int, nodes: str, bandwidth: float | None = None) -> TopologyPlan:
    """Two racks, each a segment behind its own top-of-rack router; a spine router joins them and
    the outside.

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
    machines: list[Machine] = []
    spine = [_interface("eth0", outside_gateways, "outside")]
    spine_routes: list[tuple[str, str]] = []
    gateways: dict[str, tuple[_Pool, tuple[str, ...]]] = {}
    routers = []
    for number, (rack, uplink) in enumerate(zip((first, second), uplinks, strict=True), start=1):
        pool = _Pool(rack, f"the nodes of rack-{number} (of {workers + 1}) and its router")
        inside = pool.take()
        gateways[f"rack-{number}"] = (pool, inside)
        ends = _Pool(uplink, f"the two ends of uplink-{number}")
        above = ends.take()
        below = ends.take()
        routers.append(
            Machine(
                f"tor-{number}",
                "router",
                (
                    _interface("eth0", inside, f"rack-{number}"),
                    _interface("eth1", below, f"uplink-{number}"),
                ),
                _default_routes(above),
                rack=f"rack-{number}",
            ),
        )
        spine.append(_interface(f"eth{number}", above, f"uplink-{number}"))
        spine_routes += [(str(network), _bare(address)) for network, address in zip(rack, below, strict=True)]

    def node(name: str, role: str, rack: str) -> Machine:
        pool, inside = gateways[rack]
        return Machine(
            name,
            role,
            (_interface("eth0", pool.take(), rack),),
            _default_routes(inside),
            rack=rack,
        )

    machines.append(node("control-plane", "control-plane", "rack-1"))
    machines += [
        node(f"worker-{number}", "worker", "rack-1" if number % 2 else "rack-2") for number in range(1, workers + 1)
    ]
    machines += [*routers, Machine("router", "router", tuple(spine), tuple(spine_routes))]
    machines += outside
    switches = ("rack-1", "rack-2", "uplink-1", "uplink-2", "outside")
    return TopologyPlan("two-racks", tuple(machines), switches, bandwidth)


def _links(quarter: Range) -> list[Range]:
    """The first two subnets of a quarter that have room for both ends of a link."""
    return list(itertools.islice(quarter.subnets(new_prefix=quarter.max_prefixlen - 2), 2))


#: The shapes a lab file can name.
SHAPES = {"one-segment": one_segment, "two-racks": two_racks}
