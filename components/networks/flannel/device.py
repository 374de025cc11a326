"""The VXLAN device: its wanted form, whether an existing device can be kept, and the commands that
make it. Pure: kernel.py reads and applies.
(https://github.com/flannel-io/flannel/blob/master/pkg/backend/vxlan/device.go)"""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from kubewire.components.networks.flannel.lease import Address
from kubewire.components.networks.flannel.netconf import Network

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


@dataclass(frozen=True)
class VxlanDevice:
    """A VXLAN device, wanted or existing. addresses are "10.244.1.0/32" without link-local ones."""

    name: str
    vni: int
    port: int
    mtu: int
    local: str
    link: str
    mac: str
    learning: bool = False
    gbp: bool = False
    addresses: tuple[str, ...] = ()
    up: bool = True


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


def incompatible(wanted: VxlanDevice, found: VxlanDevice) -> str:
    """The reason why found cannot be kept, or "": the kernel does not allow a living device to
    change these."""
    pairs = {
        "vni": (wanted.vni, found.vni),
        "vtep (external) interface": (wanted.link, found.link),
        "vtep (external) IP": (wanted.local, found.local),
        "port": (wanted.port, found.port),
        "learning": (wanted.learning, found.learning),
        "gbp": (wanted.gbp, found.gbp),
    }
    return next((f"{name}: {a} vs {b}" for name, (a, b) in pairs.items() if a != b), "")


def commands(wanted: VxlanDevice, found: VxlanDevice | None, network: Network) -> str:
    """`ip -batch` input that makes found into wanted, "" if they are equal.

    A compatible device stays, so that its traffic is not interrupted; only its MTU, MAC, addresses
    and state are corrected. Unwanted addresses of the flannel network are deleted.
    """
    lines = []
    if found is not None and incompatible(wanted, found):
        lines.append(f"link delete {found.name}")
        found = None
    if found is None:
        lines.append(_add(wanted))
    elif (found.mtu, found.mac) != (wanted.mtu, wanted.mac):
        lines.append(f"link set dev {wanted.name} address {wanted.mac} mtu {wanted.mtu}")
    have = found.addresses if found else ()
    stale = [address for address in have if address not in wanted.addresses]
    lines += [
        f"address delete {address} dev {wanted.name}"
        for address in stale
        if ipaddress.ip_interface(address).ip in network
    ]
    lines += [f"address add {address} dev {wanted.name}" for address in wanted.addresses if address not in have]
    if found is None or not found.up:
        lines.append(f"link set dev {wanted.name} up")
    return "".join(f"{line}\n" for line in lines)


def _add(device: VxlanDevice) -> str:
    learning = "learning" if device.learning else "nolearning"
    gbp = " gbp" if device.gbp else ""
    return (
        f"link add {device.name} address {device.mac} mtu {device.mtu} type vxlan id {device.vni} "
        f"dev {device.link} local {device.local} dstport {device.port} {learning}{gbp}"
    )
