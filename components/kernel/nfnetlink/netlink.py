"""Netlink attributes, messages and the socket of the nfnetlink family: one transaction, one answer.

Layout: include/uapi/linux/{netlink.h, netfilter/nfnetlink.h}. Attributes and messages are bytes, so
that a transaction can be built, compared and tested without a kernel.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x400, 0x800
NLM_F_DUMP = 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYS_NFTABLES = 10
#: NFT_MSG_GETGEN, NFTA_GEN_ID.
_GET_GENERATION, _GENERATION_ID = 16, 1
_SO_SNDBUFFORCE = 32
_RECEIVE = 1 << 20
_HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
#: Of struct nlmsghdr.
_FLAGS, _FLAGS_AT = struct.Struct("=H"), 6
_HEADER_ONLY = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + _PADDING[len(value) & 3]


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    value = b"".join(inner)
    return _ATTRIBUTE.pack(len(value) + 4, kind | _NESTED) + value


def text(kind: int, value: str) -> bytes:
    """An attribute with a string; the kernel wants its final zero byte."""
    return attribute(kind, value.encode() + b"\0")


@lru_cache(maxsize=4096)
def number(kind: int, value: int) -> bytes:
    """An attribute with a 32 bit number in network byte order, as nf_tables has them."""
    return _ATTRIBUTE.pack(8, kind) + value.to_bytes(4, "big")


def attributes(data: bytes) -> dict[int, bytes]:
    """kind -> value of one level; of attributes with one kind the last."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Message(NamedTuple):
    """One command of a transaction. str(origin) is what its author calls it (a line of text), for
    errors."""

    kind: int
    flags: int
    family: int
    payload: bytes
    origin: object = ""

    def encode(self, sequence: int) -> bytes:
        length = _HEADER.size + len(self.payload)
        kind = _SUBSYS_NFTABLES << 8 | self.kind
        flags = NLM_F_REQUEST | self.flags
        return _HEADER.pack(length, kind, flags, sequence, 0, self.family, 0, 0) + self.payload


class NetlinkError(OSError):
    """The kernel refused a transaction; nothing of it was done. origin is that of the message it
    refused."""

    def __init__(self, number: int, origin: object = "") -> None:
        super().__init__(number, os.strerror(number))
        self.origin = origin

    def __str__(self) -> str:
        return f"{self.strerror}: {self.origin}" if self.origin else str(self.strerror)


class Batch(NamedTuple):
    """A whole transaction: its bytes, and the origin of message i + 1."""

    data: bytearray
    origins: list[object]


def batch(messages: Iterable[Message]) -> Batch:
    """Message i has sequence number i + 1; only the last one is acknowledged, for the kernel
    answers in order and after the commit, and a refused message answers by itself. Takes one
    message after the other: there may be a hundred thousand."""
    found = Batch(bytearray(), [])
    data, origins, last = found.data, found.origins, 0
    data += _HEADER.pack(
        _HEADER.size, _BATCH_BEGIN, NLM_F_REQUEST, 0, 0, 0, 0, socket.htons(_SUBSYS_NFTABLES)
    )
    for message in messages:
        origins.append(message.origin)
        last = len(data)
        data += message.encode(len(origins))
    if last:
        _FLAGS.pack_into(
            data, last + _FLAGS_AT, _FLAGS.unpack_from(data, last + _FLAGS_AT)[0] | NLM_F_ACK
        )
    end = len(origins) + 1
    data += _HEADER.pack(
        _HEADER.size, _BATCH_END, NLM_F_REQUEST, end, 0, 0, 0, socket.htons(_SUBSYS_NFTABLES)
    )
    return found


class NfTablesSocket:
    """nf_tables of the network namespace this process is in when it is made. A context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.bind((0, 0))

    def __enter__(self) -> NfTablesSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fits(self, size: int) -> bool:
        """Whether a transaction of so many bytes can be sent; makes the buffer larger where we may.
        Outside the first user namespace we may not, and net.core.wmem_max is the limit."""
        if size + 4096 <= self._send_buffer() // 2:
            return True
        wanted = size + 65536
        for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, wanted)
            except PermissionError:
                continue
            if size + 4096 <= self._send_buffer() // 2:
                return True
        return False

    def _send_buffer(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def transact(self, messages: Iterable[Message]) -> None:
        """All of the messages or none. Raises NetlinkError with the first one that the kernel
        refused."""
        self.commit(batch(messages))

    def commit(self, transaction: Batch) -> None:
        """As transact()."""
        data, origins = transaction
        if not origins:
            return
        if not self.fits(len(data)):
            raise NetlinkError(
                errno.EMSGSIZE, f"a transaction of {len(data)} bytes; net.core.wmem_max is smaller"
            )
        self._socket.send(data)
        self._collect_answers(origins)

    def _collect_answers(self, origins: list[object]) -> None:
        refused: NetlinkError | None = None
        while True:
            try:
                answer = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if refused is None:
                    raise NetlinkError(errno.EIO, "the kernel gave no answer") from None
                raise refused from None
            for kind, sequence, error in _errors(answer):
                if kind == NLMSG_ERROR and error and refused is None:
                    known = 0 < sequence <= len(origins)
                    origin = origins[sequence - 1] if known else "the commit"
                    refused = NetlinkError(error, origin)
                if sequence == len(origins) and refused is None:
                    return

    def generation(self) -> int:
        """The number of the last transaction in this network namespace. Raises OSError."""
        self._socket.send(Message(_GET_GENERATION, 0, socket.AF_UNSPEC, b"").encode(1))
        answer = self._socket.recv(
            _RECEIVE, socket.MSG_DONTWAIT
        )  # the kernel answers before send() returns
        for kind, _, error in _errors(answer):
            if kind == NLMSG_ERROR and error:
                raise NetlinkError(error)
        return int.from_bytes(attributes(answer[_HEADER.size :])[_GENERATION_ID], "big")

    def dump(self, kind: int, family: int, payload: bytes = b"") -> list[bytes]:
        """Payloads (attributes) of all objects of one kind; kind is a NFT_MSG_GET*. Raises
        NetlinkError."""
        self._socket.send(Message(kind, NLM_F_DUMP, family, payload).encode(1))
        found: list[bytes] = []
        while True:
            data = self._socket.recv(_RECEIVE)
            offset = 0
            while offset + _HEADER_ONLY.size <= len(data):
                length, answer, _, _, _ = _HEADER_ONLY.unpack_from(data, offset)
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", data, offset + 16)[0])
                found.append(data[offset + _HEADER.size : offset + length])
                offset += (length + 3) & ~3


def _errors(data: bytes) -> list[tuple[int, int, int]]:
    """(message type, sequence number, errno) of each answer."""
    found, offset = [], 0
    while offset + _HEADER_ONLY.size <= len(data):
        length, kind, _, sequence, _ = _HEADER_ONLY.unpack_from(data, offset)
        error = -struct.unpack_from("=i", data, offset + 16)[0] if kind == NLMSG_ERROR else 0
        found.append((kind, sequence, error))
        offset += max((length + 3) & ~3, 16)
    return found
