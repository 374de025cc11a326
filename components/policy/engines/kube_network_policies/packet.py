"""A packet's bytes -> the flow that it begins: addresses, protocol and ports. Pure."""

from __future__ import annotations

import ipaddress
import struct

from kubewire.components.policy.evaluator import Flow
from kubewire.components.policy.model import ICMP

_NAMES = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_WITH_PORTS = frozenset({6, 17, 132})
_WITH_ICMP = frozenset({1, 58})
#: IPv6 extension headers: hop-by-hop, routing, destination options.
_EXTENSIONS = frozenset({0, 43, 60})
_FRAGMENT = 44


class Unreadable(ValueError):
    """The bytes are no packet that a policy can be asked about."""


def flow(data: bytes) -> Flow:
    """Raises Unreadable."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        head, protocol = (data[0] & 0xF) * 4, data[9]
        addresses = (ipaddress.ip_address(data[12:16]), ipaddress.ip_address(data[16:20]))
    elif version == 6 and len(data) >= 40:
        addresses = (ipaddress.ip_address(data[8:24]), ipaddress.ip_address(data[24:40]))
        head, protocol = _after_extensions(data)
    else:
        raise Unreadable(f"{len(data)} bytes of IP version {version}")
    rest = data[head:]
    source, destination = map(str, addresses)
    name = _NAMES.get(protocol, str(protocol))
    if protocol in _WITH_PORTS:
        if len(rest) < 4:
            raise Unreadable(f"{name} without ports")
        source_port, port = struct.unpack_from(">HH", rest)
        return Flow(source, destination, name, port, source_port)
    icmp = ICMP(rest[0], rest[1]) if protocol in _WITH_ICMP and len(rest) >= 2 else None
    return Flow(source, destination, name, icmp=icmp)


def _after_extensions(data: bytes) -> tuple[int, int]:
    """Where the transport header begins, and its protocol."""
    at, protocol = 40, data[6]
    while protocol in _EXTENSIONS or protocol == _FRAGMENT:
        if len(data) < at + 8:
            raise Unreadable("IPv6 extension headers without an end")
        size = 8 if protocol == _FRAGMENT else (data[at + 1] + 1) * 8
        protocol, at = data[at], at + size
    return at, protocol
