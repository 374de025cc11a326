"""rtnetlink's notifications: the kernel reports changes of links, routes and neighbours, so nothing
has to poll.

A netlink socket that is bound to a multicast group receives a copy of every message about that kind
of object, with the same layout as the answer to a query. Three things follow from that. The
messages include the effects of the listener's own changes. A burst can be long (one `ip -batch`
with a hundred routes is a hundred messages), so Watch reads all that is queued and calls back once.
And the queue is finite: after an overflow recv(2) fails with ENOBUFS, messages are lost, and the
listener must read the whole state again, which is why the callback carries no content.

(netlink(7), rtnetlink(7); the groups and messages are those of include/uapi/linux/rtnetlink.h.)
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
#: rtm_protocol of the routes that the kernel itself creates.
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

    groups: a bit mask of the multicast groups. concerns(type, payload) tells whether a message
    matters; by default all do. After lost notifications (ENOBUFS) anything may have changed, so
    that calls back, too. Raises OSError.
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
            counts = (
                counts
                or self._concerns is None
                or any(self._concerns(*message) for message in messages(data))
            )
        if counts:
            self._changed()
