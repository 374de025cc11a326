"""Packets that rules with the target NFLOG send to a group: a netlink socket that receives them.

Layout: include/uapi/linux/netfilter/nfnetlink_log.h. The kernel copies the first bytes of each
packet; the packet itself goes on, so a slow reader loses log entries and delays nothing.
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

_SUBSYS_ULOG = 4
_PACKET, _CONFIG = 0, 1
_CFG_CMD, _CFG_MODE = 1, 2
_BIND = 1
_COPY_PACKET = 2
_MARK, _IN, _OUT, _PAYLOAD, _PREFIX = 2, 4, 5, 9, 10
_HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
_RECEIVE = 1 << 17


@dataclass(frozen=True)
class Logged:
    """A packet. data: its first bytes, from the IP header on. prefix: the rule's --nflog-prefix.
    mark: the packet's. incoming, outgoing: indexes of its interfaces, 0 for none."""

    data: bytes
    prefix: str = ""
    mark: int = 0
    incoming: int = 0
    outgoing: int = 0


class LogSocket:
    """Receives the packets of a group in the network namespace of the process that makes it. One
    socket can be bound to a group at a time. A context manager."""

    def __init__(self, group: int, copied: int = 128) -> None:
        """copied: bytes of each packet. Raises OSError if another socket has the group, or the
        kernel has no nfnetlink_log."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._configure(group, attribute(_CFG_CMD, bytes([_BIND])))
            mode = struct.pack(">IBB", copied, _COPY_PACKET, 0)
            self._configure(group, attribute(_CFG_MODE, mode))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> LogSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def received(self) -> Iterator[Logged]:
        """What has come since the last call, without waiting."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel had to drop entries
                continue
            yield from packets(data)

    def _configure(self, group: int, payload: bytes) -> None:
        length = _HEADER.size + len(payload)
        kind, flags = _SUBSYS_ULOG << 8 | _CONFIG, NLM_F_REQUEST | NLM_F_ACK
        header = _HEADER.pack(length, kind, flags, 1, 0, socket.AF_UNSPEC, 0, socket.htons(group))
        self._socket.send(header + payload)
        answer = self._socket.recv(_RECEIVE)
        _, kind = struct.unpack_from("=IH", answer)
        error = -struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
        if error:
            raise NetlinkError(error, f"NFLOG group {group}")


def packets(data: bytes) -> Iterator[Logged]:
    """The packets in what the kernel sends at once."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < _HEADER.size:
            return
        if kind == _SUBSYS_ULOG << 8 | _PACKET:
            yield _packet(attributes(data[offset + _HEADER.size : offset + length]))
        offset += (length + 3) & ~3


def _packet(found: dict[int, bytes]) -> Logged:
    return Logged(
        data=found.get(_PAYLOAD, b""),
        prefix=found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
        mark=int.from_bytes(found.get(_MARK, b""), "big"),
        incoming=int.from_bytes(found.get(_IN, b""), "big"),
        outgoing=int.from_bytes(found.get(_OUT, b""), "big"),
    )
