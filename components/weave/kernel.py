"""The thin applier: reads with `ip -json` and `bridge -json`, applies batches, one process for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.kernel import command
from components.weave import dataplane
from components.weave.dataplane import BRIDGE, DEVICE, PORT, Device


async def _query(*argv: str) -> list[dict[str, Any]]:
    done = await command.run(argv, timeout=10)
    return [entry for entry in json.loads(done.stdout or b"[]") if entry]


async def batch(program: str, text: str, *, force: bool = False) -> None:
    """Raises CommandError."""
    if text:
        argv = [program, *(["-force"] if force else []), "-batch", "-"]
        await command.run(argv, stdin=text.encode(), timeout=30, check=True)


async def interface(name: str) -> str:
    """Its first global IPv4 address. Raises OSError."""
    for entry in await _query("ip", "-json", "-4", "address", "show", "dev", name):
        for info in entry.get("addr_info", ()):
            if info.get("family") == "inet" and info.get("scope") == "global":
                return str(info["local"])
    raise OSError(f"{name} has no IPv4 address")


async def ensure_devices(device: Device, *, fastdp: bool = True) -> bool:
    """Bridge and VXLAN device as they should be; whether one had to be made. Raises CommandError."""
    made = False
    bridge = next(iter(await _query("ip", "-json", "link", "show", "dev", BRIDGE)), None)
    if bridge is None:
        await batch("ip", dataplane.make_bridge(device))
        made = True
    elif bridge["address"] != device.name:
        await batch("ip", f"link set dev {BRIDGE} address {device.name}\n")
    vxlan = next(iter(await _query("ip", "-json", "-details", "link", "show", "dev", DEVICE)), None)
    if vxlan is not None and not _fits(vxlan, device):
        await batch("ip", f"link delete {DEVICE}\n")
        vxlan = None
    if vxlan is None and fastdp:
        await batch("ip", dataplane.make_vxlan(device))
        made = True
    for key, value in (("base_reachable_time", "5"), ("delay_first_probe_time", "2"), ("ucast_solicit", "1")):
        _sysctl(f"net/ipv4/neigh/{BRIDGE}/{key}", value)
    return made


def _fits(entry: dict[str, Any], device: Device) -> bool:
    data = entry.get("linkinfo", {}).get("info_data", {})
    return (data.get("port"), data.get("local"), entry.get("master")) == (PORT, device.local, BRIDGE)


def _sysctl(key: str, value: str) -> None:
    path = Path("/proc/sys", key)
    if path.exists():
        path.write_text(value)


async def expose(address: str) -> None:
    """The bridge's own address, with the length of the range: `weave expose`. Raises CommandError."""
    shown = await _query("ip", "-json", "-4", "address", "show", "dev", BRIDGE)
    have = {f"{info['local']}/{info['prefixlen']}" for entry in shown for info in entry.get("addr_info", ())}
    lines = [f"address delete {other} dev {BRIDGE}\n" for other in sorted(have - {address})]
    if address not in have:
        lines.append(f"address add {address} dev {BRIDGE}\n")
    await batch("ip", "".join(lines))


async def flood() -> list[str]:
    """To whom the VXLAN device sends what is for nobody it knows. Raises CommandError."""
    entries = await _query("bridge", "-json", "fdb", "show", "dev", DEVICE)
    return [entry["dst"] for entry in entries if entry["mac"] == dataplane.FLOOD and "dst" in entry]


async def set_flood(now: Sequence[str], peers: Sequence[str]) -> None:
    """From these destinations to those; who was seen behind one that goes is forgotten. Raises CommandError."""
    text = dataplane.flood_difference(now, peers)
    if set(now) - set(peers):
        entries = await _query("bridge", "-json", "fdb", "show", "dev", DEVICE)
        moving = [entry for entry in entries if entry.get("state") != "permanent"]
        learned = {entry["mac"] for entry in moving if "dst" in entry and entry["dst"] not in peers}
        in_bridge = {entry["mac"] for entry in moving if "dst" not in entry}
        text += dataplane.forget(sorted(learned), DEVICE, "self")
        text += dataplane.forget(sorted(learned & in_bridge), DEVICE, "master")
    await batch("bridge", text, force=True)


async def ensure_veth(device: Device) -> bool:
    """The veth for datagrams; whether it had to be made. Its frames are whole: no checksum or segment is left to do.
    Raises CommandError."""
    if Path("/sys/class/net", dataplane.PCAP).exists():
        return False
    await batch("ip", dataplane.make_veth(device))
    off = ["ethtool", "-K", dataplane.BRIDGE_END, "tx", "off", "tso", "off", "gso", "off"]
    await command.run(off, timeout=10, check=True)
    return True


async def remove_veth() -> None:
    """Raises CommandError."""
    if Path("/sys/class/net", dataplane.PCAP).exists():
        await batch("ip", f"link delete {dataplane.BRIDGE_END}\n")


async def forget_behind_veth(macs: Sequence[str]) -> None:
    """The bridge looks for them anew; those it has forgotten itself are no mistake."""
    text = dataplane.forget(macs, dataplane.BRIDGE_END, "master")
    if text:
        await command.run(["bridge", "-force", "-batch", "-"], stdin=text.encode(), timeout=30)


async def set_own_ranges(text: str) -> None:
    """Raises CommandError."""
    await command.run(["ipset", "restore", "-exist"], stdin=text.encode(), timeout=30, check=True)


async def set_rules(wanted: dataplane.Tables, *, encrypted: bool) -> None:
    """Our chains, and what leads to them. Raises CommandError."""
    text = dataplane.restore(wanted, dataplane.leads(await _saved(), encrypted=encrypted))
    restore = ["iptables-restore", "--wait", "5", "--noflush"]
    await command.run(restore, stdin=text.encode(), timeout=30, check=True)


async def rules_are_there(*, encrypted: bool) -> bool:
    """Whether all that leads to our chains still is, and they have rules. Raises CommandError."""
    saved = await _saved()
    return not dataplane.leads(saved, encrypted=encrypted) and "-A WEAVE " in saved


async def _saved() -> str:
    return (await command.run(["iptables-save"], timeout=30, check=True)).stdout.decode()
