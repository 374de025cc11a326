"""A backend makes this node a member of the overlay and says what the kernel must hold for the other nodes."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from components.flannel import device, forwarding, kernel
from components.flannel.device import Link, VxlanDevice
from components.flannel.forwarding import Forwarding
from components.flannel.lease import Lease
from components.flannel.netconf import NetConf

log = logging.getLogger(__name__)


class Backend(Protocol):
    """mtu is what pods may send, in bytes. overlay is the name of the overlay's device, "" without one."""

    type: str
    mtu: int
    overlay: str
    vni: int
    vtep_mac: str

    async def prepare(self) -> None:
        """Make the device right; does nothing when it is. Raises CommandError or LinkError."""

    def desired(self, leases: Iterable[Lease], node: str) -> Forwarding: ...


@dataclass
class HostGateway:
    """Other nodes are next hops: they must be on one segment with this one."""

    link: Link
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
    """wanted is the device; address SUBNET.0/32 on it is the source of what the node itself sends to pods."""

    conf: NetConf
    link: Link
    wanted: VxlanDevice
    type: str = "vxlan"

    @property
    def mtu(self) -> int:
        return self.wanted.mtu

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
        found = await kernel.vxlan_device(self.wanted.name)
        if found is not None and (reason := device.incompatible(self.wanted, found)):
            log.warning("%r already exists with incompatible configuration: %s; recreating device", found.name, reason)
        await kernel.batch("ip", device.commands(self.wanted, found, self.conf.network))
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


async def create(
    conf: NetConf, link: Link, subnet: ipaddress.IPv4Network, *, stored_mac: str = ""
) -> HostGateway | Vxlan:
    """The backend of net-conf.json. The VTEP keeps its MAC: the annotation's, else that of a device from before."""
    if conf.backend_type == "host-gw":
        return HostGateway(link)
    found = await kernel.vxlan_device(conf.vxlan.device)
    wanted = VxlanDevice(
        name=conf.vxlan.device,
        vni=conf.vxlan.vni,
        port=conf.vxlan.port,
        mtu=(conf.vxlan.mtu or link.mtu) - device.ENCAPSULATION_OVERHEAD,
        local=str(link.address),
        link=link.name,
        mac=stored_mac or (found.mac if found else device.new_mac()),
        learning=conf.vxlan.learning,
        gbp=conf.vxlan.gbp,
        addresses=(f"{subnet.network_address}/32",),
    )
    return Vxlan(conf, link, wanted)
