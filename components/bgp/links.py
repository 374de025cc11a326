"""Finds peers whose link has no carrier: they are unreachable now, not only when the hold timer
expires (BIRD's "check link")."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from kubewire.components.kernel import iproute


def on_dead_links(entries: Sequence[dict[str, Any]], addresses: Sequence[str]) -> list[str]:
    """The addresses in a subnet of an interface that is down or has no carrier. entries:
    `ip -json address`."""
    dead = [
        ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}").network
        for entry in entries
        if "LOWER_UP" not in entry.get("flags", ())
        for info in entry.get("addr_info", ())
        if "local" in info
    ]
    return [
        address
        for address in addresses
        if any(ipaddress.ip_address(address) in network for network in dead)
    ]


async def unreachable(addresses: Sequence[str]) -> list[str]:
    """The addresses that are behind a dead link now. Raises CommandError."""
    return on_dead_links(await iproute.query("ip", "address"), addresses)
