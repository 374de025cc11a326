"""A VXLAN device: its wanted form, whether an existing device can be kept, and the commands that
make it.

The kernel does not allow a living device to change most of its attributes (vxlan_config_validate in
drivers/net/vxlan), so a device that differs in one of them is recreated. A device that differs only
in its MAC, MTU, addresses or state is corrected in place, so that its traffic is not interrupted.
(https://www.kernel.org/doc/html/latest/networking/vxlan.html)
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubewire.components.kernel import iproute

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VxlanDevice:
    """A VXLAN device, wanted or existing.

    local: the outer source address. link: the outer interface, "" if the routing table decides how
    each peer is reached. mac: "" lets the kernel choose. addresses are "10.244.1.0/32" without
    link-local IPv6 ones. master: the bridge of which the device is a port, "" for none. udpcsum: a
    new device gets outer UDP checksums; an existing device is not compared. kind: the kind of an
    existing device, which may be another one.
    """

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
    master: str = ""
    udpcsum: bool = False
    kind: str = "vxlan"


def incompatible(wanted: VxlanDevice, found: VxlanDevice) -> str:
    """The reason why found cannot be kept, or "": the kernel does not allow a living device to
    change these."""
    pairs = {
        "link type": (wanted.kind, found.kind),
        "vni": (wanted.vni, found.vni),
        "vtep (external) interface": (wanted.link, found.link),
        "vtep (external) IP": (wanted.local, found.local),
        "port": (wanted.port, found.port),
        "learning": (wanted.learning, found.learning),
        "gbp": (wanted.gbp, found.gbp),
        "master": (wanted.master, found.master),
    }
    return next((f"{name}: {a} vs {b}" for name, (a, b) in pairs.items() if a != b), "")


def any_address(_: str) -> bool:
    """The is_ours of a device whose addresses all belong to its owner."""
    return True


def commands(
    wanted: VxlanDevice,
    found: VxlanDevice | None,
    is_ours: Callable[[str], bool] = any_address,
    flags: str = "",
) -> str:
    """`ip -batch` input that makes found into wanted, "" if they are equal.

    A compatible device stays; only its MTU, MAC, addresses and state are corrected. is_ours tells
    whether an unwanted address is deleted. flags are those of added addresses ("nodad").
    """
    lines = []
    if found is not None and incompatible(wanted, found):
        lines.append(f"link delete {found.name}")
        found = None
    if found is None:
        lines.append(_add(wanted))
    elif (found.mtu, found.mac) != (wanted.mtu, wanted.mac or found.mac):
        lines.append(
            f"link set dev {wanted.name} address {wanted.mac or found.mac} mtu {wanted.mtu}"
        )
    have = found.addresses if found else ()
    stale = [address for address in have if address not in wanted.addresses and is_ours(address)]
    missing = [address for address in wanted.addresses if address not in have]
    lines += [f"address delete {address} dev {wanted.name}" for address in stale]
    lines += [
        f"address add {address} dev {wanted.name}{flags and f' {flags}'}" for address in missing
    ]
    if found is None or not found.up:
        lines.append(f"link set dev {wanted.name} up")
    return iproute.text(lines)


def _add(device: VxlanDevice) -> str:
    words = [f"link add {device.name}"]
    if device.mac:
        words.append(f"address {device.mac}")
    words.append(f"mtu {device.mtu}")
    if device.master:
        words.append(f"master {device.master}")
    words.append(f"type vxlan id {device.vni}")
    if device.link:
        words.append(f"dev {device.link}")
    words.append(
        f"local {device.local} dstport {device.port} {'learning' if device.learning else 'nolearning'}"
    )
    if device.gbp:
        words.append("gbp")
    if device.udpcsum:
        words.append("udpcsum")
    return " ".join(words)


async def read(name: str, version: int) -> VxlanDevice | None:
    """The device as it is, with its addresses of an IP version; None if it does not exist. Raises
    CommandError."""
    found = await iproute.query("ip", "-details", "address", "show", "dev", name, check=False)
    if not found:
        return None
    entry = found[0]
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {})
    return VxlanDevice(
        name=name,
        vni=data.get("id", 0),
        port=data.get("port", 0),
        mtu=entry["mtu"],
        local=data.get("local" if version == 4 else "local6", ""),
        link=data.get("link", ""),
        mac=entry["address"],
        learning=bool(data.get("learning")),
        gbp=bool(data.get("gbp")),
        addresses=addresses(entry, version),
        up="UP" in entry.get("flags", ()),
        master=entry.get("master", ""),
        kind=info.get("info_kind", "none"),
    )


def addresses(entry: dict[str, Any], version: int) -> tuple[str, ...]:
    """The addresses of an IP version, with their prefix lengths, of an entry of
    `ip -json address show`. A link-local IPv6 address is left out, because it cannot be the target
    of a routed packet."""
    family = "inet" if version == 4 else "inet6"
    return tuple(
        f"{info['local']}/{info['prefixlen']}"
        for info in entry.get("addr_info", ())
        if info.get("family") == family
        and "local" in info
        and (version == 4 or not ipaddress.IPv6Address(info["local"]).is_link_local)
    )


async def ensure(
    wanted: VxlanDevice,
    version: int,
    is_ours: Callable[[str], bool] = any_address,
    flags: str = "",
) -> bool:
    """Creates or corrects the device; returns whether it was created or recreated. Raises
    CommandError."""
    found = await read(wanted.name, version)
    reason = incompatible(wanted, found) if found is not None else ""
    if reason:
        log.warning(
            "%r already exists with incompatible configuration: %s; recreating device",
            wanted.name,
            reason,
        )
    await iproute.batch("ip", commands(wanted, found, is_ours, flags))
    return found is None or bool(reason)
