"""Learned routes in the kernel: a batch for ip(8) from what is to what should be, and its applier.

The routes carry RTPROT_BIRD (12), as those of calico-node's BIRD do: `ip route show proto bird`.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Mapping
from typing import Any

from components.bgp.config import Prefix
from components.machinery import command

log = logging.getLogger(__name__)

RTPROT_BIRD = 12
Table = Mapping[Prefix, tuple[str, ...]]


def parse(entries: list[dict[str, Any]], version: int) -> dict[Prefix, tuple[str, ...]]:
    """`ip -json route` as prefix -> sorted gateways."""
    table: dict[Prefix, tuple[str, ...]] = {}
    for entry in entries:
        destination = entry["dst"]
        if destination == "default":
            destination = "0.0.0.0/0" if version == 4 else "::/0"
        hops = entry.get("nexthops", [entry])
        table[ipaddress.ip_network(destination)] = tuple(sorted(_gateway(hop) for hop in hops))
    return table


def _gateway(hop: Mapping[str, Any]) -> str:
    return str(hop.get("gateway") or hop.get("via", {}).get("host", ""))


def changes(actual: Table, wanted: Table) -> str:
    """Lines of `ip -batch`: what is new or different first, then what goes."""
    lines = [_replace(prefix, hops) for prefix, hops in wanted.items() if actual.get(prefix) != hops]
    lines += [f"route del {prefix} proto {RTPROT_BIRD}" for prefix in actual if prefix not in wanted]
    return "".join(f"{line}\n" for line in lines)


def _replace(prefix: Prefix, hops: tuple[str, ...]) -> str:
    head = f"route replace {prefix} proto {RTPROT_BIRD}"
    if len(hops) == 1:
        return f"{head} via {hops[0]}"
    return head + "".join(f" nexthop via {hop}" for hop in hops)


async def read(version: int) -> dict[Prefix, tuple[str, ...]]:
    """The routes of ours that the kernel has. Raises CommandError."""
    argv = ["ip", "-json", f"-{version}", "route", "show", "proto", str(RTPROT_BIRD)]
    completed = await command.run(argv, timeout=10, check=True)
    return parse([entry for entry in json.loads(completed.stdout or b"[]") if entry], version)


async def apply(wanted: Table) -> None:
    """Every line is tried; a next hop that is on no link is refused by the kernel and logged."""
    actual = await read(4) | await read(6)
    text = changes(actual, wanted)
    if not text:
        return
    log.info("routes:\n%s", text.rstrip())
    completed = await command.run(["ip", "-force", "-batch", "-"], stdin=text.encode(), timeout=30)
    if completed.returncode:
        log.warning("the kernel refused routes: %s", completed.stderr.decode(errors="replace").strip())
