"""Notice, without asking, that somebody else changed what flannel set: rtnetlink's notifications (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator

log = logging.getLogger(__name__)

_RTMGRP_LINK, _RTMGRP_NEIGH, _RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 0x1, 0x4, 0x40, 0x400
_NEWLINK, _DELLINK = 16, 17
_NEWROUTE, _DELROUTE = 24, 25
_NEWNEIGH, _DELNEIGH = 28, 29
_RTPROT_KERNEL = 2


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each netlink message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def concerns(kind: int, payload: bytes, overlays: Collection[int]) -> bool:
    """Is this about an overlay device (by interface index), or any IPv4 route, or an IPv6 one that somebody set?

    ifinfomsg and ndmsg have the interface index at offset 4. ARP of other interfaces is noise, and so are the IPv6
    routes that the kernel itself makes with each interface (rtmsg: family at offset 0, protocol at 5).
    """
    if kind in (_NEWROUTE, _DELROUTE):
        return len(payload) < 6 or payload[0] != socket.AF_INET6 or payload[5] != _RTPROT_KERNEL
    if kind in (_NEWLINK, _DELLINK, _NEWNEIGH, _DELNEIGH) and len(payload) >= 8:
        index: int = struct.unpack_from("=i", payload, 4)[0]
        return index in overlays
    return False


class Watch:
    """Calls back for each burst of notifications that concern an overlay device or routes of the given IP versions."""

    def __init__(self, changed: Callable[[], None], versions: Collection[int] = (4,)) -> None:
        self._changed = changed
        self._overlays: frozenset[int] = frozenset()
        groups = _RTMGRP_LINK | _RTMGRP_NEIGH
        groups |= _RTMGRP_IPV4_ROUTE if 4 in versions else 0
        groups |= _RTMGRP_IPV6_ROUTE if 6 in versions else 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, groups))

    def follow(self, devices: Iterable[str]) -> None:
        """The overlay devices, by name; again after one was made anew."""
        found = set()
        for device in filter(None, devices):
            with contextlib.suppress(OSError):
                found.add(socket.if_nametoindex(device))
        self._overlays = frozenset(found)

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        relevant = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                # ENOBUFS: notifications were lost, so anything may have changed.
                log.debug("rtnetlink: %s", os.strerror(error.errno or 0))
                relevant = True
                break
            relevant = relevant or any(concerns(kind, body, self._overlays) for kind, body in messages(data))
        if relevant:
            self._changed()
