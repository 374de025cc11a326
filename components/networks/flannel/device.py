"""flannel's VXLAN device: its MTU, its MAC, and which of its addresses are flannel's. Pure:
components/kernel/vxlan.py reads the device and applies the commands.
(https://github.com/flannel-io/flannel/blob/master/pkg/backend/vxlan/device.go)"""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from kubewire.components.kernel import vxlan
from kubewire.components.kernel.vxlan import VxlanDevice, incompatible
from kubewire.components.networks.flannel.lease import Address
from kubewire.components.networks.flannel.netconf import Network

__all__ = ["Link", "VxlanDevice", "commands", "incompatible", "is_ours", "mtu_of", "new_mac"]

#: Outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8 bytes (RFC 7348 section 5).
ENCAPSULATION_OVERHEAD = 50
#: The same with an outer IPv6 header of 40 bytes.
ENCAPSULATION_OVERHEAD_IPV6 = 70


@dataclass(frozen=True)
class Link:
    """The outer interface as one IP family sees it. mtu in bytes; networks are those of its
    addresses."""

    name: str
    mtu: int
    address: Address
    networks: tuple[Network, ...] = ()


def mtu_of(version: int, outer: int, wanted: int = 0) -> int:
    """The device's MTU. wanted: the outer MTU of net-conf.json, 0 if it gives none.

    flannel subtracts 50 in both families. The kernel then limits the MTU to what fits the outer
    interface, which is less in IPv6 (vxlan_config_apply of drivers/net/vxlan).
    """
    overhead = ENCAPSULATION_OVERHEAD if version == 4 else ENCAPSULATION_OVERHEAD_IPV6
    return min((wanted or outer) - ENCAPSULATION_OVERHEAD, outer - overhead)


def new_mac() -> str:
    """A random, locally administered unicast address."""
    first, *rest = secrets.token_bytes(6)
    return ":".join(f"{byte:02x}" for byte in ((first | 2) & 0xFE, *rest))


def is_ours(address: str, network: Network) -> bool:
    """Whether an address of the device belongs to the flannel network. Such an address is deleted
    if it is not wanted; others stay."""
    return ipaddress.ip_interface(address).ip in network


def commands(wanted: VxlanDevice, found: VxlanDevice | None, network: Network) -> str:
    """`ip -batch` input that makes found into wanted, "" if they are equal."""
    return vxlan.commands(wanted, found, lambda address: is_ours(address, network))
