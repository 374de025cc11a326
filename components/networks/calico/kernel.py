"""Reads and writes Felix's part of the node: tunnel devices, the entries that Felix owns, and its
NAT chains."""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.kernel import command, forwarding, vxlan
from kubewire.components.kernel.forwarding import Forwarding
from kubewire.components.kernel.iproute import batch, query, text
from kubewire.components.kernel.vxlan import VxlanDevice
from kubewire.components.networks.calico.dataplane import (
    IPIP,
    IPV4,
    PROTOCOL,
    Family,
    Node,
    Settings,
    Tunnel,
)


async def interface(name: str, version: int) -> tuple[str, int]:
    """The interface's first global address of this IP version with its prefix length, or "", and
    its MTU.

    Raises OSError, CommandError.
    """
    mtu = 0
    for entry in await query("ip", "address", "show", "dev", name):
        mtu = entry.get("mtu", mtu)
        for info in entry.get("addr_info", ()):
            if (
                info.get("family") == ("inet" if version == 4 else "inet6")
                and info.get("scope") == "global"
            ):
                return f"{info['local']}/{info['prefixlen']}", mtu
    return "", mtu


async def ensure_device(own: Node, outer: str, mtu: int, settings: Settings) -> None:
    """Makes the family's VXLAN device as wanted, with the tunnel address as its only address.
    Raises CommandError."""
    family = own.family
    wanted = VxlanDevice(
        name=family.vxlan.device,
        vni=settings.vni,
        port=settings.port,
        mtu=mtu,
        local=own.ip,
        link=outer,
        mac=own.mac,
        addresses=(f"{own.tunnel}/{family.bits}",),
    )
    await vxlan.ensure(wanted, family.version, flags="" if family is IPV4 else "nodad")


async def ensure_ipip(own: Node, mtu: int) -> None:
    """Configures tunl0, which a kernel with IP-in-IP creates in every network namespace, or when a
    tunnel without a mode is added. Raises CommandError."""
    found = await query("ip", "address", "show", "dev", IPIP.device, check=False)
    if not found:
        await command.run(
            ["ip", "link", "add", IPIP.device, "type", "ipip"], timeout=10, check=True
        )
        found = await query("ip", "address", "show", "dev", IPIP.device)
    addresses = {
        info["local"] for info in found[0].get("addr_info", ()) if info.get("family") == "inet"
    }
    lines = [
        f"address delete {address}/32 dev {IPIP.device}"
        for address in sorted(addresses - {own.ipip})
    ]
    if own.ipip not in addresses:
        lines.append(f"address add {own.ipip}/32 dev {IPIP.device}")
    lines.append(f"link set dev {IPIP.device} mtu {mtu} up")
    await batch("ip", text(lines))


async def remove(tunnel: Tunnel) -> None:
    """Deletes the device. tunl0 cannot be deleted: it loses its addresses and goes down."""
    if tunnel is IPIP:
        await command.run(["ip", "address", "flush", "dev", tunnel.device], timeout=10)
        await command.run(["ip", "link", "set", "dev", tunnel.device, "down"], timeout=10)
    else:
        await command.run(["ip", "link", "delete", tunnel.device], timeout=10)


async def entries(family: Family, with_device: bool) -> Forwarding:
    """All routes with Felix's protocol number, and the VXLAN device's neighbours and FDB. Raises
    CommandError."""
    found = Forwarding(frozenset(await forwarding.routes(family.version, protocol=PROTOCOL)))
    return (
        found | await forwarding.tunnel(family.vxlan.device, family.version)
        if with_device
        else found
    )


def mtu_of(outer: int, tunnels: Iterable[Tunnel]) -> int:
    """The pods' MTU: a packet of this size fits into every tunnel."""
    return outer - max((tunnel.overhead for tunnel in tunnels), default=0)
