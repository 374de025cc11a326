"""Reads the interfaces and addresses of the current network namespace by rtnetlink (rtnetlink(7)).

This is a small reader of its own, because capture programs must start within milliseconds and
importing pyroute2 takes 190 ms.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22
NLM_F_REQUEST = 1
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFA_ADDRESS = 1
IFA_LOCAL = 2


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. peer: index of the interface it is linked to, such as the other end of a veth
    pair (in that end's namespace); 0 if there is none."""

    index: int
    name: str
    mtu: int
    peer: int


def links() -> list[Link]:
    """All interfaces of the namespace."""
    return [
        Link(
            index,
            attributes.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
            _number(attributes.get(IFLA_MTU)),
            _number(attributes.get(IFLA_LINK)),
        )
        for index, attributes in _dump(RTM_GETLINK, RTM_NEWLINK, struct.Struct("=BxHiII"), 2)
    ]


def addresses() -> set[str]:
    """All addresses of all interfaces of the namespace, as text."""
    found = set()
    for _, attributes in _dump(RTM_GETADDR, RTM_NEWADDR, struct.Struct("=BBBBI"), 4):
        raw = attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS, b""))
        if len(raw) in (4, 16):
            found.add(socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw))
    return found


def _number(raw: bytes | None) -> int:
    return int(struct.unpack("=I", raw)[0]) if raw else 0


def _dump(
    request: int,
    answer: int,
    head: struct.Struct,
    index_field: int,
) -> Iterator[tuple[int, dict[int, bytes]]]:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as netlink:
        message = struct.pack("=IHHII", 16 + head.size, request, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        netlink.sendall(message + b"\0" * head.size)
        while True:
            data = netlink.recv(1 << 18)
            for type_, body in _messages(data):
                if type_ == NLMSG_DONE:
                    return
                if type_ == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, f"rtnetlink: {os.strerror(number)}")
                if type_ == answer:
                    yield head.unpack_from(body)[index_field], _attributes(body[head.size :])


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
