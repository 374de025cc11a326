"""Notice, without asking, that somebody else changed what flannel set: rtnetlink's notifications (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_RTMGRP_LINK, _RTMGRP_NEIGH, _RTMGRP_IPV4_ROUTE = 0x1, 0x4, 0x40
_NEWLINK, _DELLINK = 16, 17
_NEWROUTE, _DELROUTE = 24, 25
_NEWNEIGH, _DELNEIGH = 28, 29


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each netlink message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def concerns(kind: int, payload: bytes, overlay: int) -> bool:
    """Is this about the overlay device (by interface index), or any IPv4 route?

    ifinfomsg and ndmsg have the interface index at offset 4. ARP of other interfaces is noise.
    """
    if kind in (_NEWROUTE, _DELROUTE):
        return True
    if kind in (_NEWLINK, _DELLINK, _NEWNEIGH, _DELNEIGH) and len(payload) >= 8:
        index: int = struct.unpack_from("=i", payload, 4)[0]
        return index == overlay
    return False


class Watch:
    """Calls back for each burst of notifications that concern the overlay device or routes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._overlay = 0
        groups = _RTMGRP_LINK | _RTMGRP_NEIGH | _RTMGRP_IPV4_ROUTE
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, groups))

    def follow(self, device: str) -> None:
        """The overlay device, by name; again after it was made anew."""
        try:
            self._overlay = socket.if_nametoindex(device) if device else 0
        except OSError:
            self._overlay = 0

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
            relevant = relevant or any(concerns(kind, body, self._overlay) for kind, body in messages(data))
        if relevant:
            self._changed()
