"""How packets for other nodes' pods leave this node: desired entries from leases, and the commands from
"is" to "should be". Pure: kernel.py reads and applies.

vxlan, per remote node (what the kernel does with a packet for its podCIDR, in order):

    route       podCIDR via SUBNET.0 dev flannel.1 onlink      -> next hop is the remote VTEP's address
    neighbour   SUBNET.0 -> VtepMAC, permanent                 -> inner destination MAC, no ARP over the overlay
    fdb         VtepMAC -> node address                        -> outer destination of the UDP packet

IPv6 has the same three, on flannel-v6.1. host-gw (and vxlan with DirectRouting on one segment): only
`podCIDR via NODE dev eth0`.
(https://github.com/flannel-io/flannel/blob/master/pkg/backend/vxlan/vxlan.go, pkg/backend/hostgw)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from components.flannel.lease import Lease
from components.flannel.netconf import Network


@dataclass(frozen=True, order=True)
class Route:
    destination: str
    via: str
    device: str
    onlink: bool = False


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
        """Both: those of another family, say."""
        return Forwarding(self.routes | other.routes, self.neighbours | other.neighbours, self.fdb | other.fdb)


@dataclass(frozen=True)
class Commands:
    """Input of `bridge -batch`, `ip -batch`, `bridge -batch`, run in this order; "" when there is nothing to do.

    The route comes after the entries it needs, and entries go after their route: no packet meets half a path.
    """

    fdb_set: str = ""
    ip: str = ""
    fdb_delete: str = ""

    def __bool__(self) -> bool:
        return bool(self.fdb_set or self.ip or self.fdb_delete)


def host_gateway(leases: Iterable[Lease], node: str, device: str) -> Forwarding:
    """Routes through the other nodes' own addresses. Leases of another backend are left alone, as upstream does."""
    routes = {_direct(lease, device) for lease in leases if lease.node != node and lease.backend_type == "host-gw"}
    return Forwarding(routes=frozenset(routes))


def vxlan(
    leases: Iterable[Lease],
    node: str,
    vni: int,
    device: str,
    *,
    outer_device: str = "",
    on_link: Sequence[Network] = (),
) -> Forwarding:
    """Entries for every other node with the vxlan backend and this VNI.

    With DirectRouting the caller gives the outer interface's networks as on_link: nodes in them are reached
    without encapsulation.
    """
    routes, neighbours, fdb = set(), set(), set()
    for lease in leases:
        if lease.node == node or lease.backend_type != "vxlan" or lease.vni != vni or not lease.vtep_mac:
            continue
        if any(lease.public_ip in network for network in on_link):
            routes.add(_direct(lease, outer_device))
            continue
        vtep = str(lease.subnet.network_address)
        routes.add(Route(str(lease.subnet), vtep, device, onlink=True))
        neighbours.add(Neighbour(vtep, lease.vtep_mac, device))
        fdb.add(FdbEntry(lease.vtep_mac, str(lease.public_ip), device))
    return Forwarding(frozenset(routes), frozenset(neighbours), frozenset(fdb))


def _direct(lease: Lease, device: str) -> Route:
    return Route(str(lease.subnet), str(lease.public_ip), device)


def difference(now: Forwarding, wanted: Forwarding) -> Commands:
    """The commands that turn now into wanted; sorted, so the same input gives the same text."""
    kept_macs = {(entry.mac, entry.device) for entry in wanted.fdb}
    kept_addresses = {(entry.address, entry.device) for entry in wanted.neighbours}
    kept_destinations = {route.destination for route in wanted.routes}
    ip = [_neighbour_set(entry) for entry in sorted(wanted.neighbours - now.neighbours)]
    ip += [_route_set(route) for route in sorted(wanted.routes - now.routes)]
    # What "replace" has just changed must not be deleted by its old value.
    ip += [
        f"route del {route.destination} via {route.via} dev {route.device}"
        for route in sorted(now.routes - wanted.routes)
        if route.destination not in kept_destinations
    ]
    ip += [
        f"neigh del {entry.address} dev {entry.device}"
        for entry in sorted(now.neighbours - wanted.neighbours)
        if (entry.address, entry.device) not in kept_addresses
    ]
    return Commands(
        fdb_set=_lines(
            f"fdb replace {entry.mac} dev {entry.device} dst {entry.address} self permanent"
            for entry in sorted(wanted.fdb - now.fdb)
        ),
        ip=_lines(ip),
        fdb_delete=_lines(
            f"fdb del {entry.mac} dev {entry.device} dst {entry.address} self"
            for entry in sorted(now.fdb - wanted.fdb)
            if (entry.mac, entry.device) not in kept_macs
        ),
    )


def _neighbour_set(entry: Neighbour) -> str:
    return f"neigh replace {entry.address} lladdr {entry.mac} dev {entry.device} nud permanent"


def _route_set(route: Route) -> str:
    flag = " onlink" if route.onlink else ""
    return f"route replace {route.destination} via {route.via} dev {route.device}{flag}"


def _lines(commands: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in commands)
