"""Packets that rules with the target NFQUEUE hand to user space: a netlink socket that receives them
and answers each with a verdict.

Layout: include/uapi/linux/netfilter/nfnetlink_queue.h. A packet waits in the kernel until its
verdict, or until the socket is closed, which drops all that wait.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.components.kernel.nfnetlink.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NetlinkError,
    attribute,
    attributes,
)

_SUBSYS_QUEUE = 3
_PACKET, _VERDICT, _CONFIG = 0, 1, 2
_CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_BIND = 1
_COPY_PACKET = 2
_FAIL_OPEN, _GSO = 1, 4
_PACKET_HDR, _VERDICT_HDR, _PAYLOAD = 1, 2, 10
_DROP, _ACCEPT = 0, 1
_HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
_RECEIVE = 1 << 17
_SO_RCVBUFFORCE = 33
#: Room for some thousand packets that wait.
_BUFFER = 4 << 20


@dataclass(frozen=True)
class Queued:
    """A packet that waits. id: for the verdict. data: its first bytes, from the IP header on."""

    id: int
    data: bytes


class QueueSocket:
    """Receives the packets of a queue in the network namespace of the process that makes it. A
    queue has one socket at a time. A context manager."""

    def __init__(
        self, number: int, *, fail_open: bool, copied: int = 128, most: int = 1024
    ) -> None:
        """fail_open: packets that find the queue full pass. copied: bytes of each packet. most:
        packets that can wait. Raises OSError if another socket has the queue, or the kernel has no
        nfnetlink_queue."""
        self._number = number
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._enlarge()
            self._configure(attribute(_CFG_CMD, struct.pack(">BBH", _BIND, 0, 0)))
            self._configure(attribute(_CFG_PARAMS, struct.pack(">IB", copied, _COPY_PACKET)))
            # With GSO the kernel does not cut large packets apart, of which only the head counts.
            flags = _GSO | (_FAIL_OPEN if fail_open else 0)
            self._configure(
                attribute(_CFG_MAXLEN, struct.pack(">I", most))
                + attribute(_CFG_MASK, struct.pack(">I", _GSO | _FAIL_OPEN))
                + attribute(_CFG_FLAGS, struct.pack(">I", flags))
            )
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> QueueSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def received(self) -> Iterator[Queued]:
        """What waits, without waiting for more."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel had to drop messages
                continue
            yield from packets(data)

    def answer(self, packet: Queued, *, accepted: bool) -> None:
        """The verdict: the packet goes on, or is dropped."""
        verdict = struct.pack(">II", _ACCEPT if accepted else _DROP, packet.id)
        self._socket.send(self._message(_VERDICT, 0, attribute(_VERDICT_HDR, verdict)))

    def _enlarge(self) -> None:
        """Makes room for a burst: what does not fit into the buffer is dropped, or passes with
        fail_open. Outside the first user namespace net.core.rmem_max is the limit."""
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
                return
            except PermissionError:
                continue

    def _message(self, kind: int, flags: int, payload: bytes) -> bytes:
        length = _HEADER.size + len(payload)
        number = socket.htons(self._number)
        kind = _SUBSYS_QUEUE << 8 | kind
        head = _HEADER.pack(length, kind, NLM_F_REQUEST | flags, 1, 0, socket.AF_UNSPEC, 0, number)
        return head + payload

    def _configure(self, payload: bytes) -> None:
        self._socket.send(self._message(_CONFIG, NLM_F_ACK, payload))
        answer = self._socket.recv(_RECEIVE)
        _, kind = struct.unpack_from("=IH", answer)
        error = -struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
        if error:
            raise NetlinkError(error, f"NFQUEUE {self._number}")


def packets(data: bytes) -> Iterator[Queued]:
    """The packets in what the kernel sends at once."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < _HEADER.size:
            return
        if kind == _SUBSYS_QUEUE << 8 | _PACKET:
            found = attributes(data[offset + _HEADER.size : offset + length])
            yield Queued(int.from_bytes(found[_PACKET_HDR][:4], "big"), found.get(_PAYLOAD, b""))
        offset += (length + 3) & ~3
