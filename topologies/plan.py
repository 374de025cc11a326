"""Who is in a topology, with which addresses and routes: pure data, before anything is built."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

OUTSIDE = ipaddress.ip_network("203.0.113.0/24")  # TEST-NET-3, RFC 5737


class PlanError(ValueError):
    """A topology that its address range cannot hold; the text says which and what would be enough."""


@dataclass(frozen=True)
class Interface:
    """name as seen inside the host, address with prefix length, the switch it is plugged into."""

    name: str
    address: str
    switch: str


@dataclass(frozen=True)
class Machine:
    """One Mininet host. role is "control-plane", "worker", "router" or "outside".

    routes are (destination CIDR or "default", gateway address). rack is the topology.kubernetes.io/zone of a node.
    """

    name: str
    role: str
    interfaces: tuple[Interface, ...]
    routes: tuple[tuple[str, str], ...] = ()
    rack: str = ""

    @property
    def address(self) -> str:
        """The first interface's address without its prefix length."""
        return self.interfaces[0].address.split("/")[0]

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


@dataclass
class _Pool:
    """Hands out a network's addresses in order. users: who shall have one, for the error."""

    network: ipaddress.IPv4Network
    users: str
    _next: int = field(default=1)

    def take(self) -> str:
        if self._next >= self.network.num_addresses - 1:
            raise PlanError(f"{self.network} has too few addresses for {self.users}; take a shorter prefix")
        address = self.network[self._next]
        self._next += 1
        return f"{address}/{self.network.prefixlen}"


def _bare(address: str) -> str:
    return address.split("/")[0]


def _outside(router: str) -> tuple[Machine, Machine]:
    def machine(name: str, last: int) -> Machine:
        interface = Interface("eth0", f"{OUTSIDE[last]}/{OUTSIDE.prefixlen}", "outside")
        return Machine(name, "outside", (interface,), (("default", router),))

    return machine("client", 10), machine("dns", 53)


def one_segment(workers: int, nodes: str, bandwidth: float | None = None) -> TopologyPlan:
    """One Ethernet segment with all nodes; a router between it and the outside client and DNS server."""
    pool = _Pool(ipaddress.IPv4Network(nodes), f"{workers + 1} nodes and the router")
    gateway = pool.take()
    outside_gateway = f"{OUTSIDE[1]}/{OUTSIDE.prefixlen}"
    router = Machine(
        "router", "router", (Interface("eth0", gateway, "segment"), Interface("eth1", outside_gateway, "outside"))
    )

    def node(name: str, role: str) -> Machine:
        return Machine(name, role, (Interface("eth0", pool.take(), "segment"),), (("default", _bare(gateway)),))

    machines = (
        node("control-plane", "control-plane"),
        *(node(f"worker-{number}", "worker") for number in range(1, workers + 1)),
        router,
        *_outside(_bare(outside_gateway)),
    )
    return TopologyPlan("one-segment", machines, ("segment", "outside"), bandwidth)


def two_racks(workers: int, nodes: str, bandwidth: float | None = None) -> TopologyPlan:
    """Two racks, each a segment behind its own top-of-rack router; a spine router joins them and the outside.

    The node range is cut in four: rack-1, rack-2, and two /30 links from the spine to the racks in the last quarter.
    Workers alternate between the racks; the control plane is in rack-1.
    """
    whole = ipaddress.IPv4Network(nodes)
    if whole.prefixlen > 26:
        raise PlanError(f"{whole} is too small for two racks; take a /26 or shorter")
    first, second, _, last = whole.subnets(prefixlen_diff=2)
    uplinks = list(last.subnets(new_prefix=30))[:2]
    outside_gateway = f"{OUTSIDE[1]}/{OUTSIDE.prefixlen}"
    machines: list[Machine] = []
    spine = [Interface("eth0", outside_gateway, "outside")]
    spine_routes = []
    gateways: dict[str, tuple[_Pool, str]] = {}
    routers = []
    for number, (rack, uplink) in enumerate(zip((first, second), uplinks, strict=True), start=1):
        pool = _Pool(rack, f"the nodes of rack-{number} (of {workers + 1}) and its router")
        inside = pool.take()
        gateways[f"rack-{number}"] = (pool, _bare(inside))
        up = Interface("eth1", f"{uplink[2]}/30", f"uplink-{number}")
        routers.append(
            Machine(
                f"tor-{number}",
                "router",
                (Interface("eth0", inside, f"rack-{number}"), up),
                (("default", str(uplink[1])),),
                rack=f"rack-{number}",
            )
        )
        spine.append(Interface(f"eth{number}", f"{uplink[1]}/30", f"uplink-{number}"))
        spine_routes.append((str(rack), str(uplink[2])))

    def node(name: str, role: str, rack: str) -> Machine:
        pool, gateway = gateways[rack]
        return Machine(name, role, (Interface("eth0", pool.take(), rack),), (("default", gateway),), rack=rack)

    machines.append(node("control-plane", "control-plane", "rack-1"))
    machines += [
        node(f"worker-{number}", "worker", "rack-1" if number % 2 else "rack-2") for number in range(1, workers + 1)
    ]
    machines += [*routers, Machine("router", "router", tuple(spine), tuple(spine_routes))]
    machines += _outside(_bare(outside_gateway))
    switches = ("rack-1", "rack-2", "uplink-1", "uplink-2", "outside")
    return TopologyPlan("two-racks", tuple(machines), switches, bandwidth)


#: The shapes a lab file can name.
SHAPES = {"one-segment": one_segment, "two-racks": two_racks}
