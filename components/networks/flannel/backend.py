"""A backend carries packets between the nodes' pod subnets: vxlan encapsulates them, host-gw routes
them.

Each IP family has its own backend object. A backend makes this node a member of the network
(prepare), and computes the entries that the kernel must hold for all other nodes (desired). With
vxlan the entries are static: flanneld knows every node from the Node objects, so the device neither
floods nor learns, and no packet of the overlay is an ARP request. Three look-ups carry a packet to
another node, and each is one entry:

    route      podCIDR via SUBNET.0 dev flannel.1 onlink    which VTEP (the tunnel end of the other node)
    neighbour  SUBNET.0 lladdr VtepMAC                      the inner frame's destination MAC
    FDB        VtepMAC dst NODE                             the outer packet's destination address

If one of the three is missing, packets to that node's pods are lost without an error, so agent.py
restores entries that disappear. The VTEP's MAC must survive a restart, because all other nodes have
it in their entries; it is kept in the Node's annotation. host-gw has only a route via the other
node's own address, which requires that all nodes are on one segment
(https://github.com/flannel-io/flannel/blob/master/Documentation/backends.md; RFC 7348, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from kubewire.components.kernel import vxlan
from kubewire.components.kernel.forwarding import Forwarding
from kubewire.components.networks.flannel import device, forwarding, kernel
from kubewire.components.networks.flannel.device import Link, VxlanDevice
from kubewire.components.networks.flannel.lease import Lease, Member
from kubewire.components.networks.flannel.netconf import NetConf, Network


class Backend(Protocol):
    """mtu: the largest packet that pods send, in bytes. overlay: the name of the overlay's device,
    "" if there is none. network: the flannel network of this family."""

    type: str
    link: Link
    network: Network
    mtu: int
    overlay: str
    vni: int
    vtep_mac: str

    async def prepare(self) -> None:
        """Creates or corrects the device; does nothing if it is correct. Raises CommandError."""

    def desired(self, leases: Iterable[Lease], node: str) -> Forwarding: ...


@dataclass
class HostGateway:
    """Other nodes are next hops, so they must be on one segment with this node."""

    link: Link
    network: Network
    type: str = "host-gw"
    overlay: str = ""
    vni: int = 0
    vtep_mac: str = ""

    @property
    def mtu(self) -> int:
        return self.link.mtu

    async def prepare(self) -> None:
        return

    def desired(self, leases: Iterable[Lease], node: str) -> Forwarding:
        return forwarding.host_gateway(leases, node, self.link.name)


@dataclass
class Vxlan:
    """wanted is the device. Its address SUBNET.0/32 (SUBNET::/128) is the source of packets that
    the node itself sends to pods."""

    conf: NetConf
    link: Link
    network: Network
    wanted: VxlanDevice
    type: str = "vxlan"

    @property
    def mtu(self) -> int:
        # The same for both families: flannel-v6.1 carries less, and the node answers larger packets
        # with Packet Too Big.
        return (self.conf.vxlan.mtu or self.link.mtu) - device.ENCAPSULATION_OVERHEAD

    @property
    def overlay(self) -> str:
        return self.wanted.name

    @property
    def vni(self) -> int:
        return self.wanted.vni

    @property
    def vtep_mac(self) -> str:
        return self.wanted.mac

    async def prepare(self) -> None:
        await vxlan.ensure(
            self.wanted, self.network.version, lambda address: device.is_ours(address, self.network)
        )
        kernel.write_sysctl(f"net/ipv6/conf/{self.wanted.name}/accept_ra", "0")

    def desired(self, leases: Iterable[Lease], node: str) -> Forwarding:
        return forwarding.vxlan(
            leases,
            node,
            self.wanted.vni,
            self.wanted.name,
            outer_device=self.link.name,
            on_link=self.link.networks if self.conf.vxlan.direct_routing else (),
        )


def member(backend: HostGateway | Vxlan, public_ip: str = "") -> Member:
    """The lease data that this node announces. public_ip replaces the interface's address."""
    address = public_ip or str(backend.link.address)
    return Member(backend.network.version, address, backend.vni, backend.vtep_mac)


async def create(
    conf: NetConf, link: Link, subnet: Network, *, stored_mac: str = ""
) -> HostGateway | Vxlan:
    """The backend that net-conf.json names, for subnet's family.

    The VTEP keeps its MAC: that of the annotation, else that of an existing device.
    """
    version = subnet.version
    network = conf.network(version)
    assert network is not None, "subnets exist only for enabled networks"
    if conf.backend_type == "host-gw":
        return HostGateway(link, network)
    name = conf.vxlan.device(version)
    found = await kernel.vxlan_device(name, version)
    wanted = VxlanDevice(
        name=name,
        vni=conf.vxlan.vni,
        port=conf.vxlan.port,
        mtu=device.mtu_of(version, link.mtu, conf.vxlan.mtu),
        local=str(link.address),
        link=link.name,
        mac=stored_mac or (found.mac if found else device.new_mac()),
        learning=conf.vxlan.learning,
        gbp=conf.vxlan.gbp,
        addresses=(f"{subnet.network_address}/{subnet.max_prefixlen}",),
    )
    return Vxlan(conf, link, network, wanted)
