"""A backend makes this node a member of the overlay and says what the kernel must hold for the other nodes. There is
one for each IP family."""

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
    """mtu is what pods may send, in bytes. overlay is the name of the overlay's device, "" without one. network is
    flannel's of this family."""

    type: str
    link: Link
    network: Network
    mtu: int
    overlay: str
    vni: int
    vtep_mac: str

    async def prepare(self) -> None:
        """Make the device right; does nothing when it is. Raises CommandError."""

    def desired(self, leases: Iterable[Lease], node: str) -> Forwarding: ...


@dataclass
class HostGateway:
    """Other nodes are next hops: they must be on one segment with this one."""

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
    """wanted is the device; address SUBNET.0/32 (SUBNET::/128) on it is the source of what the node itself sends to
    pods."""

    conf: NetConf
    link: Link
    network: Network
    wanted: VxlanDevice
    type: str = "vxlan"

    @property
    def mtu(self) -> int:
        # Of both families: what a pod sends over flannel-v6.1 and is too big for it, is told so by its node.
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
        await vxlan.ensure(self.wanted, self.network.version, lambda address: device.is_ours(address, self.network))
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
    """What this node announces. public_ip: instead of the interface's address."""
    address = public_ip or str(backend.link.address)
    return Member(backend.network.version, address, backend.vni, backend.vtep_mac)


async def create(conf: NetConf, link: Link, subnet: Network, *, stored_mac: str = "") -> HostGateway | Vxlan:
    """The backend of net-conf.json for subnet's family. The VTEP keeps its MAC: the annotation's, else that of a device
    from before."""
    version = subnet.version
    network = conf.network(version)
    assert network is not None, "a subnet is only asked for where there is a network"
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
