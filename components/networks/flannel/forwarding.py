"""The kernel entries that carry packets to other nodes' pods, computed from the leases. Pure.

With vxlan, each other node has a route for its podCIDR via SUBNET.0 on flannel.1, with the
neighbour and the FDB entry that backend.py explains; IPv6 has the same three on flannel-v6.1. With
host-gw, and with vxlan's DirectRouting between nodes on one segment, there is only `podCIDR via
NODE dev eth0` (https://github.com/flannel-io/flannel/blob/master/pkg/backend/vxlan/vxlan.go,
pkg/backend/hostgw).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubewire.components.kernel.forwarding import FdbEntry, Forwarding, Neighbour, Route
from kubewire.components.networks.flannel.lease import Lease
from kubewire.components.networks.flannel.netconf import Network


def host_gateway(leases: Iterable[Lease], node: str, device: str) -> Forwarding:
    """Routes via the other nodes' own addresses. Leases of another backend are ignored, as upstream
    does."""
    routes = {
        _direct(lease, device)
        for lease in leases
        if lease.node != node and lease.backend_type == "host-gw"
    }
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
    """Entries for every other node that has the vxlan backend and this VNI.

    With DirectRouting the caller passes the outer interface's networks as on_link: nodes in them
    are reached without encapsulation.
    """
    routes = set()
    neighbours = set()
    fdb = set()
    for lease in leases:
        if (
            lease.node == node
            or lease.backend_type != "vxlan"
            or lease.vni != vni
            or not lease.vtep_mac
        ):
            continue
        if any(lease.public_ip in network for network in on_link):
            routes.add(_direct(lease, outer_device))
            continue
        vtep = str(lease.subnet.network_address)
        routes.add(Route.via(str(lease.subnet), vtep, device, onlink=True))
        neighbours.add(Neighbour(vtep, lease.vtep_mac, device))
        fdb.add(FdbEntry(lease.vtep_mac, str(lease.public_ip), device))
    return Forwarding(frozenset(routes), frozenset(neighbours), frozenset(fdb))


def _direct(lease: Lease, device: str) -> Route:
    return Route.via(str(lease.subnet), str(lease.public_ip), device)
