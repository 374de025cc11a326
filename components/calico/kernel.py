"""The thin applier: reads with `ip -json` and `bridge -json`, applies batches, one process for each."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from typing import Any

from components.calico.dataplane import (
    DEVICE,
    IPIP,
    JUMP,
    PORT,
    PROTOCOL,
    VNI,
    Commands,
    Entries,
    Node,
    Route,
    Tunnel,
)
from components.machinery import command


async def _query(*argv: str) -> list[dict[str, Any]]:
    done = await command.run(argv, timeout=10, check=True)
    return [entry for entry in json.loads(done.stdout or b"[]") if entry]


async def interface(name: str) -> tuple[str, int]:
    """Its first global IPv4 address with the length of its network, and its MTU. Raises OSError, CommandError."""
    for entry in await _query("ip", "-json", "-4", "address", "show", "dev", name):
        for info in entry.get("addr_info", ()):
            if info.get("family") == "inet" and info.get("scope") == "global":
                return f"{info['local']}/{info['prefixlen']}", entry["mtu"]
    raise OSError(f"Unable to auto-detect an IPv4 address: {name} has none")


async def ensure_device(own: Node, outer: str, mtu: int) -> None:
    """vxlan.calico as it should be; one that differs is made anew. Raises CommandError."""
    found = await command.run(["ip", "-json", "-details", "address", "show", "dev", DEVICE], timeout=10)
    entry = next((one for one in json.loads(found.stdout or b"[]") if one), None) if not found.returncode else None
    lines = []
    if entry is not None and not _fits(entry, own, outer, mtu):
        lines.append(f"link delete {DEVICE}")
        entry = None
    if entry is None:
        lines.append(
            f"link add {DEVICE} address {own.mac} mtu {mtu} type vxlan id {VNI} dev {outer} local {own.ip} "
            f"dstport {PORT} nolearning"
        )
    addresses = (
        {info["local"] for info in entry.get("addr_info", ()) if info.get("family") == "inet"} if entry else set()
    )
    lines += [f"address delete {address}/32 dev {DEVICE}" for address in sorted(addresses - {own.tunnel})]
    if own.tunnel not in addresses:
        lines.append(f"address add {own.tunnel}/32 dev {DEVICE}")
    lines.append(f"link set dev {DEVICE} up")
    await _batch("ip", "".join(f"{line}\n" for line in lines))


def _fits(entry: dict[str, Any], own: Node, outer: str, mtu: int) -> bool:
    data = entry.get("linkinfo", {}).get("info_data", {})
    is_like = (data.get("id"), data.get("port"), data.get("local"), data.get("link"), entry["address"], entry["mtu"])
    return is_like == (VNI, PORT, own.ip, outer, own.mac, mtu)


async def ensure_ipip(own: Node, mtu: int) -> None:
    """tunl0, which a kernel with IP-in-IP gives to every network namespace or makes when it is asked for a tunnel of no
    mode. Raises CommandError."""
    found = await command.run(["ip", "-json", "address", "show", "dev", IPIP.device], timeout=10)
    if found.returncode:
        await command.run(["ip", "link", "add", IPIP.device, "type", "ipip"], timeout=10, check=True)
        found = await command.run(["ip", "-json", "address", "show", "dev", IPIP.device], timeout=10, check=True)
    entry = next(one for one in json.loads(found.stdout) if one)
    addresses = {info["local"] for info in entry.get("addr_info", ()) if info.get("family") == "inet"}
    lines = [f"address delete {address}/32 dev {IPIP.device}" for address in sorted(addresses - {own.ipip})]
    if own.ipip not in addresses:
        lines.append(f"address add {own.ipip}/32 dev {IPIP.device}")
    lines.append(f"link set dev {IPIP.device} mtu {mtu} up")
    await _batch("ip", "".join(f"{line}\n" for line in lines))


async def remove(tunnel: Tunnel) -> None:
    """tunl0 cannot be deleted: it loses its addresses and goes down."""
    if tunnel is IPIP:
        await command.run(["ip", "address", "flush", "dev", tunnel.device], timeout=10)
        await command.run(["ip", "link", "set", "dev", tunnel.device, "down"], timeout=10)
    else:
        await command.run(["ip", "link", "delete", tunnel.device], timeout=10)


async def entries(with_device: bool) -> Entries:
    """All routes of our protocol number, and what the VXLAN device has. Raises CommandError."""
    routes = [
        Route(_cidr(entry["dst"]), entry.get("gateway", ""), entry.get("dev", "") if "gateway" in entry else "")
        for entry in await _query("ip", "-json", "-4", "route", "show", "proto", str(PROTOCOL))
    ]
    if not with_device:
        return Entries(frozenset(routes))
    neighbours = [
        (entry["dst"], entry["lladdr"])
        for entry in await _query("ip", "-json", "-4", "neigh", "show", "dev", DEVICE, "nud", "permanent")
        if "lladdr" in entry
    ]
    fdb = [
        (entry["mac"], entry["dst"])
        for entry in await _query("bridge", "-json", "fdb", "show", "dev", DEVICE)
        if "dst" in entry and entry.get("state") == "permanent"
    ]
    return Entries(frozenset(routes), frozenset(neighbours), frozenset(fdb))


def _cidr(text: str) -> str:
    return str(ipaddress.ip_network(text))


async def apply(commands: Commands) -> None:
    """Raises CommandError after everything was tried."""
    failed: list[command.CommandError] = []
    for program, text in (("bridge", commands.fdb_set), ("ip", commands.ip), ("bridge", commands.fdb_delete)):
        try:
            await _batch(program, text)
        except command.CommandError as error:
            failed.append(error)
    if failed:
        raise failed[0]


async def _batch(program: str, text: str) -> None:
    if text:
        await command.run([program, "-force", "-batch", "-"], stdin=text.encode(), timeout=30, check=True)


async def apply_nat(sets: str, chains: str) -> None:
    """Sets before the rules that name them; the jump at the head of POSTROUTING. Raises CommandError."""
    await command.run(["ipset", "restore", "-exist"], stdin=sets.encode(), timeout=30, check=True)
    restore = ["iptables-restore", "--wait", "5", "--noflush"]
    await command.run(restore, stdin=chains.encode(), timeout=30, check=True)
    there = await command.run(["iptables", "-w", "5", "-t", "nat", "-C", *JUMP.split()], timeout=30)
    if there.returncode:
        await command.run(["iptables", "-w", "5", "-t", "nat", "-I", *JUMP.split()], timeout=30, check=True)


async def nat_is_there() -> bool:
    """Whether our jump, and behind it our chain with a rule, still are."""
    saved = (await command.run(["iptables-save", "-t", "nat"], timeout=30, check=True)).stdout.decode()
    return f"-A {JUMP}" in saved and "-A cali-POSTROUTING " in saved


def mtu_of(outer: int, tunnels: Iterable[Tunnel]) -> int:
    """Of pods: what every way to another node can carry."""
    return outer - max((tunnel.overhead for tunnel in tunnels), default=0)
