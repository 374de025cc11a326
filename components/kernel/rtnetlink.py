"""rtnetlink's notifications: told by the kernel, without asking, that links, routes or neighbours have changed.

(rtnetlink(7); the groups and messages are those of include/uapi/linux/rtnetlink.h.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LINKS = 0x1
NEIGHBOURS = 0x4
IPV4_ROUTES = 0x40
IPV6_ROUTES = 0x400
NEWLINK = 16
DELLINK = 17
NEWROUTE = 24
DELROUTE = 25
NEWNEIGH = 28
DELNEIGH = 29
#: rtm_protocol of the routes that the kernel makes by itself.
RTPROT_KERNEL = 2


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each netlink message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


class Watch:
    """Calls back once for each burst of notifications, from start() to close().

    groups: the sum of those to hear. concerns(type, payload): whether a message counts; all do without it. When
    notifications were lost (ENOBUFS), anything may have changed, so that counts, too. Raises OSError.
    """

    def __init__(
        self,
        groups: int,
        changed: Callable[[], object],
        concerns: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        self._changed = changed
        self._concerns = concerns
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._socket.bind((0, groups))

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        counts = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                log.debug("rtnetlink: %s", os.strerror(error.errno or 0))
                counts = True
                break
            counts = counts or self._concerns is None or any(self._concerns(*one) for one in messages(data))
        if counts:
            self._changed()
