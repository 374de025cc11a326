"""Netlink sockets on which the kernel hands out packets: the part that NFLOG and NFQUEUE share.

Both are subsystems of nfnetlink with numbered ends (a group, a queue), which one socket at a time
can have, and with one kind of message for a packet and one for the configuration
(include/uapi/linux/netfilter/nfnetlink_log.h, nfnetlink_queue.h).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from kubewire.components.kernel.nfnetlink.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NetlinkError,
    attributes,
)

#: Of both subsystems: NFULNL_MSG_PACKET, NFQNL_MSG_PACKET; a command of the configuration.
PACKET = 0
COPY_PACKET, BIND = 2, 1
_HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
_RECEIVE = 1 << 17


class PacketSocket:
    """The socket of one end in the network namespace of the process that makes it. A context
    manager."""

    def __init__(self, subsystem: int, number: int, name: str) -> None:
        """name: of the end, for errors. Raises OSError."""
        self._subsystem, self._number, self._name = subsystem, number, name
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def configure(self, kind: int, payload: bytes) -> None:
        """Sends a command of the configuration and waits for its answer. kind: the subsystem's
        message for it. Raises NetlinkError if the kernel refuses."""
        self.send(kind, payload, NLM_F_ACK)
        answer = self._socket.recv(_RECEIVE)
        _, kind = struct.unpack_from("=IH", answer)
        error = -struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
        if error:
            raise NetlinkError(error, self._name)

    def send(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Sends a message about the end."""
        length, number = _HEADER.size + len(payload), socket.htons(self._number)
        whole = self._subsystem << 8 | kind
        head = _HEADER.pack(length, whole, NLM_F_REQUEST | flags, 1, 0, socket.AF_UNSPEC, 0, number)
        self._socket.send(head + payload)

    def waiting(self) -> Iterator[dict[int, bytes]]:
        """The attributes of each packet that the kernel has sent, without waiting for more. The
        socket must not block."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel had to drop messages
                continue
            yield from self._packets(data)

    def _packets(self, data: bytes) -> Iterator[dict[int, bytes]]:
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if length < _HEADER.size:
                return
            if kind == self._subsystem << 8 | PACKET:
                yield attributes(data[offset + _HEADER.size : offset + length])
            offset += (length + 3) & ~3
