"""Reads and writes weave-net's part of the node: bridge, VXLAN device and veth, flood entries,
addresses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubewire.components.kernel import command, vxlan
from kubewire.components.kernel.iproute import batch, query
from kubewire.components.networks.weave import dataplane
from kubewire.components.networks.weave.dataplane import BRIDGE, DEVICE, Device


async def interface(name: str) -> str:
    """The interface's first global IPv4 address. Raises OSError."""
    for entry in await query("ip", "-4", "address", "show", "dev", name, check=False):
        for info in entry.get("addr_info", ()):
            if info.get("family") == "inet" and info.get("scope") == "global":
                return str(info["local"])
    raise OSError(f"{name} has no IPv4 address")


async def ensure_devices(device: Device, *, fastdp: bool = True) -> bool:
    """Makes bridge and VXLAN device as wanted. Returns True if one had to be created. Raises
    CommandError."""
    made = False
    bridge = next(iter(await query("ip", "link", "show", "dev", BRIDGE, check=False)), None)
    if bridge is None:
        await batch("ip", dataplane.make_bridge(device), force=False)
        made = True
    elif bridge["address"] != device.name:
        await batch("ip", f"link set dev {BRIDGE} address {device.name}\n", force=False)
    if fastdp:
        made |= await _ensure_vxlan(device)
    else:
        await _remove_stale_vxlan(device)
    for key, value in (
        ("base_reachable_time", "5"),
        ("delay_first_probe_time", "2"),
        ("ucast_solicit", "1"),
    ):
        _sysctl(f"net/ipv4/neigh/{BRIDGE}/{key}", value)
    return made


async def _ensure_vxlan(device: Device) -> bool:
    made = await vxlan.ensure(dataplane.vxlan_device(device), 4)
    if made:
        await batch("ip", dataplane.isolate_vxlan(), force=False)
    return made


async def _remove_stale_vxlan(device: Device) -> None:
    """Without fast datapath, an existing device stays only if it is compatible with the wanted
    one."""
    found = await vxlan.read(DEVICE, 4)
    if found is not None and vxlan.incompatible(dataplane.vxlan_device(device), found):
        await batch("ip", f"link delete {DEVICE}\n", force=False)


def _sysctl(key: str, value: str) -> None:
    path = Path("/proc/sys", key)
    if path.exists():
        path.write_text(value)


async def expose(address: str) -> None:
    """Sets the bridge's own address, with the prefix length of the range: `weave expose`. Raises
    CommandError."""
    shown = await query("ip", "-4", "address", "show", "dev", BRIDGE, check=False)
    have = {
        f"{info['local']}/{info['prefixlen']}"
        for entry in shown
        for info in entry.get("addr_info", ())
    }
    lines = [f"address delete {other} dev {BRIDGE}\n" for other in sorted(have - {address})]
    if address not in have:
        lines.append(f"address add {address} dev {BRIDGE}\n")
    await batch("ip", "".join(lines), force=False)


async def flood() -> list[str]:
    """The peers to which the VXLAN device floods. Raises CommandError."""
    entries = await query("bridge", "fdb", "show", "dev", DEVICE, check=False)
    return [entry["dst"] for entry in entries if entry["mac"] == dataplane.FLOOD and "dst" in entry]


async def set_flood(now: Sequence[str], peers: Sequence[str]) -> None:
    """Changes the flood entries and deletes the MACs learned behind removed peers. Raises
    CommandError."""
    text = dataplane.flood_difference(now, peers)
    if set(now) - set(peers):
        entries = await query("bridge", "fdb", "show", "dev", DEVICE, check=False)
        moving = [entry for entry in entries if entry.get("state") != "permanent"]
        learned = {entry["mac"] for entry in moving if "dst" in entry and entry["dst"] not in peers}
        in_bridge = {entry["mac"] for entry in moving if "dst" not in entry}
        text += dataplane.forget(sorted(learned), DEVICE, "self")
        text += dataplane.forget(sorted(learned & in_bridge), DEVICE, "master")
    await batch("bridge", text)


async def ensure_veth(device: Device) -> bool:
    """Creates the veth for datagrams; True if it did not exist. Raises CommandError.

    Offloads are off, because weave-net reads the frames: checksums must be complete and segments
    fit the MTU.
    """
    if Path("/sys/class/net", dataplane.PCAP).exists():
        return False
    await batch("ip", dataplane.make_veth(device), force=False)
    off = ["ethtool", "-K", dataplane.BRIDGE_END, "tx", "off", "tso", "off", "gso", "off"]
    await command.run(off, timeout=10, check=True)
    return True


async def remove_veth() -> None:
    """Raises CommandError."""
    if Path("/sys/class/net", dataplane.PCAP).exists():
        await batch("ip", f"link delete {dataplane.BRIDGE_END}\n", force=False)


async def forget_behind_veth(macs: Sequence[str]) -> None:
    """Deletes learned MACs from the bridge. MACs that the bridge has already aged out cause no
    error."""
    text = dataplane.forget(macs, dataplane.BRIDGE_END, "master")
    if text:
        await batch("bridge", text, check=False)
