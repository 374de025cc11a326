"""A peer whose link has no carrier is gone now, not when the hold timer says so (BIRD: "check link")."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

from components.kernel import command

_RTMGRP_LINK = 0x1


def on_dead_links(entries: Sequence[dict[str, Any]], addresses: Sequence[str]) -> list[str]:
    """Which addresses are on a subnet of an interface of `ip -json address` that is down or has no carrier."""
    dead = [
        ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}").network
        for entry in entries
        if "LOWER_UP" not in entry.get("flags", ())
        for info in entry.get("addr_info", ())
        if "local" in info
    ]
    return [address for address in addresses if any(ipaddress.ip_address(address) in network for network in dead)]


async def unreachable(addresses: Sequence[str]) -> list[str]:
    """Those of the addresses that are behind a dead link now. Raises CommandError."""
    completed = await command.run(["ip", "-json", "address"], timeout=10, check=True)
    return on_dead_links(json.loads(completed.stdout or b"[]"), addresses)


class Watch:
    """Calls back for each burst of rtnetlink's link notifications (rtnetlink(7)), until closed."""

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        # ENOBUFS: notifications were lost, so something has changed.
        with contextlib.suppress(BlockingIOError, OSError):
            while self._socket.recv(65536):
                pass
        self._changed()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
