"""What weave-net reads and writes of its node: bridge, VXLAN device and veth, flood entries, ranges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubewire.components.kernel import command, vxlan
from kubewire.components.kernel.iproute import batch, query
from kubewire.components.networks.weave import dataplane
from kubewire.components.networks.weave.dataplane import BRIDGE, DEVICE, Device


async def interface(name: str) -> str:
    """Its first global IPv4 address. Raises OSError."""
    for entry in await query("ip", "-4", "address", "show", "dev", name, check=False):
        for info in entry.get("addr_info", ()):
            if info.get("family") == "inet" and info.get("scope") == "global":
                return str(info["local"])
    raise OSError(f"{name} has no IPv4 address")


async def ensure_devices(device: Device, *, fastdp: bool = True) -> bool:
    """Bridge and VXLAN device as they should be; whether one had to be made. Raises CommandError."""
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
    for key, value in (("base_reachable_time", "5"), ("delay_first_probe_time", "2"), ("ucast_solicit", "1")):
        _sysctl(f"net/ipv4/neigh/{BRIDGE}/{key}", value)
    return made


async def _ensure_vxlan(device: Device) -> bool:
    made = await vxlan.ensure(dataplane.vxlan_device(device), 4)
    if made:
        await batch("ip", dataplane.isolate_vxlan(), force=False)
    return made


async def _remove_stale_vxlan(device: Device) -> None:
    """Without fast datapath a device from before stays only where it is as it would be made."""
    found = await vxlan.read(DEVICE, 4)
    if found is not None and vxlan.incompatible(dataplane.vxlan_device(device), found):
        await batch("ip", f"link delete {DEVICE}\n", force=False)


def _sysctl(key: str, value: str) -> None:
    path = Path("/proc/sys", key)
    if path.exists():
        path.write_text(value)


async def expose(address: str) -> None:
    """The bridge's own address, with the length of the range: `weave expose`. Raises CommandError."""
    shown = await query("ip", "-4", "address", "show", "dev", BRIDGE, check=False)
    have = {f"{info['local']}/{info['prefixlen']}" for entry in shown for info in entry.get("addr_info", ())}
    lines = [f"address delete {other} dev {BRIDGE}\n" for other in sorted(have - {address})]
    if address not in have:
        lines.append(f"address add {address} dev {BRIDGE}\n")
    await batch("ip", "".join(lines), force=False)


async def flood() -> list[str]:
    """To whom the VXLAN device sends what is for nobody it knows. Raises CommandError."""
    entries = await query("bridge", "fdb", "show", "dev", DEVICE, check=False)
    return [entry["dst"] for entry in entries if entry["mac"] == dataplane.FLOOD and "dst" in entry]


async def set_flood(now: Sequence[str], peers: Sequence[str]) -> None:
    """From these destinations to those; who was seen behind one that goes is forgotten. Raises CommandError."""
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
    """The veth for datagrams; whether it had to be made. Its frames are whole: no checksum or segment is left to do.
    Raises CommandError."""
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
    """The bridge looks for them anew; those it has forgotten itself are no mistake."""
    text = dataplane.forget(macs, dataplane.BRIDGE_END, "master")
    if text:
        await batch("bridge", text, check=False)
