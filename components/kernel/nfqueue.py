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

from kubewire.components.kernel.nfnetlink.netlink import attribute
from kubewire.components.kernel.nfnetlink.packets import BIND, COPY_PACKET, PacketSocket

_SUBSYS_QUEUE = 3
_VERDICT, _CONFIG = 1, 2
_CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_FAIL_OPEN, _GSO = 1, 4
_PACKET_HDR, _VERDICT_HDR, _PAYLOAD = 1, 2, 10
_DROP, _ACCEPT = 0, 1
_SO_RCVBUFFORCE = 33
#: Room for some thousand packets that wait.
_BUFFER = 4 << 20


@dataclass(frozen=True)
class Queued:
    """A packet that waits. id: for the verdict. data: its first bytes, from the IP header on."""

    id: int
    data: bytes


class QueueSocket(PacketSocket):
    """Receives the packets of a queue."""

    def __init__(
        self, number: int, *, fail_open: bool, copied: int = 128, most: int = 1024
    ) -> None:
        """fail_open: packets that find the queue full pass. copied: bytes of each packet. most:
        packets that can wait. Raises OSError if another socket has the queue, or the kernel has no
        nfnetlink_queue."""
        super().__init__(_SUBSYS_QUEUE, number, f"NFQUEUE {number}")
        try:
            self._enlarge()
            self._set(_CFG_CMD, struct.pack(">BBH", BIND, 0, 0))
            self._set(_CFG_PARAMS, struct.pack(">IB", copied, COPY_PACKET))
            # With GSO the kernel does not cut large packets apart, of which only the head counts.
            flags = _GSO | (_FAIL_OPEN if fail_open else 0)
            self.configure(
                _CONFIG,
                attribute(_CFG_MAXLEN, struct.pack(">I", most))
                + attribute(_CFG_MASK, struct.pack(">I", _GSO | _FAIL_OPEN))
                + attribute(_CFG_FLAGS, struct.pack(">I", flags)),
            )
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise

    def received(self) -> Iterator[Queued]:
        """What waits, without waiting for more."""
        return map(_queued, self.waiting())

    def answer(self, packet: Queued, *, accepted: bool) -> None:
        """The verdict: the packet goes on, or is dropped."""
        verdict = struct.pack(">II", _ACCEPT if accepted else _DROP, packet.id)
        self.send(_VERDICT, attribute(_VERDICT_HDR, verdict))

    def _set(self, kind: int, value: bytes) -> None:
        self.configure(_CONFIG, attribute(kind, value))

    def _enlarge(self) -> None:
        """Makes room for a burst: what does not fit into the buffer is dropped, or passes with
        fail_open. Outside the first user namespace net.core.rmem_max is the limit."""
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
                return
            except PermissionError:
                continue


def _queued(found: dict[int, bytes]) -> Queued:
    return Queued(int.from_bytes(found[_PACKET_HDR][:4], "big"), found.get(_PAYLOAD, b""))
