"""ctnetlink by a plain socket: one dump, one delete per entry, many in one send.

Messages: linux/netfilter/nfnetlink_conntrack.h. Integers in the netlink and attribute headers are
the host's, those inside conntrack attributes are in network order.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence

from kubewire.components.kube_proxy.conntrack.stale import UDP, Address, Flow
from kubewire.components.kube_proxy.state.model import IPV4

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_REQUEST, _ACK, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x4, 0x300, 0x10
_ERROR, _DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_FILTER_ORIGINAL_FLAGS = 1
_FILTER_BY_PROTOCOL = 1 << 3
_PROTO_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
#: CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST
_IP_SOURCE, _IP_DESTINATION = (1, 3), (2, 4)
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_BUFFER, _AT_ONCE, _ATTEMPTS = 1 << 20, 64, 3


class Interrupted(OSError):
    """The table changed under the dump: some entries may be missing."""


def udp_flows(family: str) -> list[Flow]:
    """All UDP entries of one family in this network namespace. Raises OSError."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _dump(family)
        except Interrupted:
            continue
    return _dump(family, partial=True)


def delete(family: str, flows: Sequence[Flow]) -> int:
    """How many of them went; those that were gone already do not count. Raises OSError."""
    deleted = 0
    with _open() as sock:
        for start in range(0, len(flows), _AT_ONCE):
            some = flows[start : start + _AT_ONCE]
            sock.sendall(
                b"".join(
                    _message(_DELETE, _REQUEST | _ACK, number, family, flow.identity)
                    for number, flow in enumerate(some)
                )
            )
            deleted += _acknowledged(sock, len(some))
    return deleted


def _open() -> socket.socket:
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
    )
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sock.settimeout(5.0)
    return sock


def _dump(family: str, *, partial: bool = False) -> list[Flow]:
    flows: list[Flow] = []
    with _open() as sock:
        sock.sendall(_message(_GET, _REQUEST | _DUMP, 1, family, _only_udp()))
        while True:
            for kind, flags, body in _messages(sock.recv(_BUFFER)):
                if flags & _DUMP_INTERRUPTED and not partial:
                    raise Interrupted(errno.EINTR, "conntrack dump interrupted")
                if kind == _DONE:
                    return flows
                if kind == _ERROR:
                    _raise_error(body)
                if (flow := parse(body)) is not None:
                    flows.append(flow)


def _only_udp() -> bytes:
    """Since Linux 5.8 the kernel leaves the others out itself; older ones do not know the attribute
    and send all."""
    protocol = _attribute(_TUPLE_PROTO | _NESTED, _attribute(_PROTO_NUMBER, bytes([UDP])))
    flags = _attribute(_FILTER_ORIGINAL_FLAGS, struct.pack("=I", _FILTER_BY_PROTOCOL))
    return _attribute(_TUPLE_ORIGINAL | _NESTED, protocol) + _attribute(_FILTER | _NESTED, flags)


def _acknowledged(sock: socket.socket, count: int) -> int:
    good = seen = 0
    while seen < count:
        for kind, _, body in _messages(sock.recv(_BUFFER)):
            if kind != _ERROR:
                continue
            seen += 1
            code = -struct.unpack_from("=i", body)[0]
            if code == 0:
                good += 1
            elif code != errno.ENOENT:
                raise OSError(code, "deleting a conntrack entry")
    return good


def _raise_error(body: bytes) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if code:
        raise OSError(code, "listing conntrack entries")


def _message(kind: int, flags: int, number: int, family: str, payload: bytes) -> bytes:
    which = socket.AF_INET if family == IPV4 else socket.AF_INET6
    body = struct.pack("=BBH", which, 0, 0) + payload
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of each message of one datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def parse(body: bytes) -> Flow | None:
    """A conntrack message (nfgenmsg and attributes) as a Flow; None for other protocols than
    UDP."""
    attributes = _attributes(body[4:])
    original = _attributes(attributes.get(_TUPLE_ORIGINAL, b""))
    protocol = _attributes(original.get(_TUPLE_PROTO, b""))
    if protocol.get(_PROTO_NUMBER) != bytes([UDP]):
        return None
    reply = _attributes(attributes.get(_TUPLE_REPLY, b""))
    # Sent back as it came, zone included: the kernel finds the entry by exactly this tuple.
    identity = _attribute(_TUPLE_ORIGINAL | _NESTED, attributes[_TUPLE_ORIGINAL])
    if _ZONE in attributes:
        identity += _attribute(_ZONE, attributes[_ZONE])
    return Flow(
        UDP,
        Address(_ip(original, _IP_DESTINATION), _port(protocol, _DESTINATION_PORT)),
        Address(
            _ip(reply, _IP_SOURCE), _port(_attributes(reply.get(_TUPLE_PROTO, b"")), _SOURCE_PORT)
        ),
        identity,
    )


def _ip(tuple_attributes: dict[int, bytes], either: tuple[int, int]) -> str:
    """The IPv4 or the IPv6 attribute, whichever is there."""
    addresses = _attributes(tuple_attributes.get(_TUPLE_IP, b""))
    packed = next(addresses[kind] for kind in either if kind in addresses)
    return str(ipaddress.ip_address(packed))


def _port(protocol: dict[int, bytes], which: int) -> int:
    return int.from_bytes(protocol.get(which, b""), "big")
