"""The kernel entries that carry packets to other nodes' pods: routes, and the neighbours and FDB
entries of tunnels.

An agent describes the wanted entries as a `Forwarding`; `difference` computes the commands that
change the present entries into them. All functions are pure but the two that read and the one that
applies.

For a packet into a VXLAN tunnel the kernel makes three look-ups, in this order:

    route       10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink    the next hop is the remote tunnel's address
    neighbour   10.244.2.0 lladdr 5e:...:02 nud permanent            the inner frame's MAC, without ARP in the tunnel
    FDB entry   5e:...:02 dst 172.18.0.4                             the outer packet's destination

So FDB entry and neighbour are added before the route that needs them, and deleted after it: no
packet finds an incomplete path (https://www.kernel.org/doc/html/latest/networking/vxlan.html).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from kubewire.components.kernel import iproute
from kubewire.components.kernel.command import CommandError


@dataclass(frozen=True, order=True)
class Hop:
    """onlink: the gateway counts as reachable on the device, whatever the other routes say."""

    gateway: str
    device: str = ""
    onlink: bool = False

    def __str__(self) -> str:
        device = f" dev {self.device}" if self.device else ""
        return f"via {self.gateway}{device}{' onlink' if self.onlink else ''}"


@dataclass(frozen=True, order=True)
class Route:
    """hops: one or several next hops; none for a blackhole. protocol: the program that owns it
    (rtm_protocol, by name or number as ip accepts it); "" leaves it to ip."""

    destination: str
    hops: tuple[Hop, ...] = ()
    protocol: str = ""

    @classmethod
    def via(
        cls,
        destination: str,
        gateway: str,
        device: str = "",
        *,
        onlink: bool = False,
        protocol: str = "",
    ) -> Route:
        return cls(destination, (Hop(gateway, device, onlink),), protocol)


@dataclass(frozen=True, order=True)
class Neighbour:
    address: str
    mac: str
    device: str


@dataclass(frozen=True, order=True)
class FdbEntry:
    """A VXLAN forwarding entry: inner MAC -> outer address."""

    mac: str
    address: str
    device: str


@dataclass(frozen=True)
class Forwarding:
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    fdb: frozenset[FdbEntry] = frozenset()

    def __or__(self, other: Forwarding) -> Forwarding:
        """The union, for example of two IP versions."""
        return Forwarding(
            self.routes | other.routes,
            self.neighbours | other.neighbours,
            self.fdb | other.fdb,
        )


@dataclass(frozen=True)
class Commands:
    """Input of `bridge -batch`, `ip -batch`, `bridge -batch`, run in this order; "" if there is
    nothing to do."""

    fdb_set: str = ""
    ip: str = ""
    fdb_delete: str = ""

    def __bool__(self) -> bool:
        return bool(self.fdb_set or self.ip or self.fdb_delete)


def difference(now: Forwarding, wanted: Forwarding) -> Commands:
    """The commands that change now into wanted, sorted, so that the same input gives the same
    text."""
    kept_macs = {(entry.mac, entry.device) for entry in wanted.fdb}
    kept_addresses = {(entry.address, entry.device) for entry in wanted.neighbours}
    return Commands(
        fdb_set=iproute.text(
            f"fdb replace {entry.mac} dev {entry.device} dst {entry.address} self permanent"
            for entry in sorted(wanted.fdb - now.fdb)
        ),
        ip=iproute.text(
            [
                *(
                    f"neigh replace {entry.address} lladdr {entry.mac} dev {entry.device} nud permanent"
                    for entry in sorted(wanted.neighbours - now.neighbours)
                ),
                *_routes_set(now.routes, wanted.routes),
                *_routes_deleted(now.routes, wanted.routes),
                *(
                    f"neigh del {entry.address} dev {entry.device}"
                    for entry in sorted(now.neighbours - wanted.neighbours)
                    if (entry.address, entry.device) not in kept_addresses
                ),
            ],
        ),
        fdb_delete=iproute.text(
            f"fdb del {entry.mac} dev {entry.device} dst {entry.address} self"
            for entry in sorted(now.fdb - wanted.fdb)
            if (entry.mac, entry.device) not in kept_macs
        ),
    )


def _routes_set(now: frozenset[Route], wanted: frozenset[Route]) -> list[str]:
    before = {route.destination: route for route in now}
    lines = []
    for route in sorted(wanted - now):
        old = before.get(route.destination)
        if old is not None and bool(old.hops) != bool(route.hops):
            # "replace" would add a blackhole beside a route with next hops, and vice versa.
            lines.append(_deleted(old))
        lines.append(_set(route))
    return lines


def _routes_deleted(now: frozenset[Route], wanted: frozenset[Route]) -> list[str]:
    # A route that "replace" has just changed must not be deleted by its old value.
    kept = {route.destination for route in wanted}
    return [_deleted(route) for route in sorted(now - wanted) if route.destination not in kept]


def _set(route: Route) -> str:
    protocol = f" proto {route.protocol}" if route.protocol else ""
    if not route.hops:
        return f"route replace blackhole {route.destination}{protocol}"
    head = f"route replace {route.destination}{protocol}"
    if len(route.hops) == 1:
        return f"{head} {route.hops[0]}"
    return head + "".join(f" nexthop {hop}" for hop in route.hops)


def _deleted(route: Route) -> str:
    """Names the next hop, or the protocol if set, so that no other program's route to the
    destination is deleted."""
    if route.protocol:
        return f"route del {route.destination} proto {route.protocol}"
    hop = route.hops[0] if route.hops else None
    device = f" dev {hop.device}" if hop and hop.device else ""
    return f"route del {route.destination}" + (f" via {hop.gateway}{device}" if hop else "")


async def apply(commands: Commands) -> None:
    """Tries everything, then raises CommandError if anything failed."""
    failed: list[CommandError] = []
    for program, text in (
        ("bridge", commands.fdb_set),
        ("ip", commands.ip),
        ("bridge", commands.fdb_delete),
    ):
        try:
            await iproute.batch(program, text)
        except CommandError as error:
            failed.append(error)
    if failed:
        raise failed[0]


async def routes(version: int, *selector: str, protocol: str = "") -> list[Route]:
    """The main table's routes via gateways, and its blackholes, that `ip route show SELECTOR` lists
    ("dev", "eth0"), of this protocol if one is given. Raises CommandError."""
    chosen = [*selector, *(("proto", protocol) if protocol else ())]
    entries = await iproute.query("ip", f"-{version}", "route", "show", *chosen)
    device = selector[selector.index("dev") + 1] if "dev" in selector else ""
    parsed = [parse_route(entry, protocol, device) for entry in entries]
    return [route for route in parsed if route is not None]


def parse_route(entry: dict[str, Any], protocol: str = "", device: str = "") -> Route | None:
    """Parses an entry of `ip -json route`; None for a route to a link. device: the selected one,
    which ip does not repeat."""
    destination = entry["dst"]
    if destination != "default":
        # ip prints a single host without its prefix length.
        destination = str(ipaddress.ip_network(destination))
    if entry.get("type") == "blackhole":
        return Route(destination, (), protocol)
    hops = [
        _hop(hop, device)
        for hop in entry.get("nexthops", [entry])
        if "gateway" in hop or "via" in hop
    ]
    return Route(destination, tuple(sorted(hops)), protocol) if hops else None


def _hop(entry: dict[str, Any], device: str) -> Hop:
    gateway = entry.get("gateway") or entry["via"]["host"]
    return Hop(str(gateway), entry.get("dev", device), "onlink" in entry.get("flags", ()))


async def tunnel(device: str, version: int) -> Forwarding:
    """The permanent neighbours and FDB entries of a VXLAN device. Raises CommandError."""
    neighbours = await iproute.query(
        "ip",
        f"-{version}",
        "neigh",
        "show",
        "dev",
        device,
        "nud",
        "permanent",
    )
    fdb = await iproute.query("bridge", "fdb", "show", "dev", device)
    return Forwarding(
        neighbours=frozenset(
            Neighbour(entry["dst"], entry["lladdr"], device)
            for entry in neighbours
            if "lladdr" in entry
        ),
        fdb=frozenset(
            FdbEntry(entry["mac"], entry["dst"], device)
            for entry in fdb
            if "dst" in entry and entry.get("state") == "permanent"
        ),
    )
