"""The thin applier: reads with `ip -json` and `bridge -json`, applies batches, one process for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.machinery import command
from components.weave import dataplane
from components.weave.dataplane import BRIDGE, DEVICE, PORT, Device

_IPTABLES = ("iptables", "-w", "5")


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


async def ensure_devices(device: Device) -> bool:
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
    if vxlan is None:
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


async def set_flood(peers: Sequence[str]) -> None:
    """The VXLAN device's destinations are these peers' addresses. Raises CommandError."""
    entries = await _query("bridge", "-json", "fdb", "show", "dev", DEVICE)
    now = [entry["dst"] for entry in entries if entry["mac"] == dataplane.FLOOD and "dst" in entry]
    learned = {entry["mac"] for entry in entries if "dst" in entry and entry["dst"] not in peers}
    text = dataplane.flood_difference(now, peers) + dataplane.forget(sorted(learned - {dataplane.FLOOD}))
    await batch("bridge", text, force=True)


async def set_own_ranges(text: str) -> None:
    """Raises CommandError."""
    await command.run(["ipset", "restore", "-exist"], stdin=text.encode(), timeout=30, check=True)


async def set_rules(wanted: dict[str, tuple[list[str], list[str]]], jumps: Sequence[tuple[str, str, str]]) -> None:
    """Our chains, then what leads to them where it is missing. Raises CommandError."""
    restore = ["iptables-restore", "--wait", "5", "--noflush"]
    await command.run(restore, stdin=dataplane.restore(wanted).encode(), timeout=30, check=True)
    for table, chain, rule in jumps:
        if not await _has(table, chain, rule):
            await _iptables(table, "-A", chain, *rule.split())
    forward = dataplane.forward_rules()
    if not all([await _has("filter", "FORWARD", rule) for rule in forward]):
        for number, rule in enumerate(forward, start=1):
            if await _has("filter", "FORWARD", rule):
                await _iptables("filter", "-D", "FORWARD", *rule.split())
            await _iptables("filter", "-I", "FORWARD", str(number), *rule.split())


async def rules_are_there(jumps: Sequence[tuple[str, str, str]]) -> bool:
    """Whether all that leads to our chains still is. Raises CommandError."""
    saved = (await command.run(["iptables-save"], timeout=30, check=True)).stdout.decode()
    leads = [rule for _, _, rule in jumps if rule.startswith("-j")] + [dataplane.forward_rules()[1]]
    return all(rule in saved for rule in leads) and "-A WEAVE " in saved


async def _has(table: str, chain: str, rule: str) -> bool:
    return not (await command.run([*_IPTABLES, "-t", table, "-C", chain, *rule.split()], timeout=30)).returncode


async def _iptables(table: str, *words: str) -> None:
    await command.run([*_IPTABLES, "-t", table, *words], timeout=30, check=True)
