"""iptables extensions as the kernel's structs (include/uapi/linux/netfilter/xt_*.h), for rules that iptables-nft
would write: nf_tables carries them in its `match` and `target` expressions. Pure.

Which extensions iptables-nft 1.8.9 sends as structs and which as nf_tables' own expressions is followed here, so
that iptables-save prints what iptables-restore was given.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache

from kubewire.components.kernel.nfnetlink import expressions as ex

_NAT_MAP_IPS, _NAT_PROTO_SPECIFIED, _NAT_RANDOM_FULLY = 1, 2, 1 << 4
_RTN_LOCAL = 1 << 2
_SCTP_DESTINATION_PORTS = 2
_ADDRTYPE_INVERT = {"src": 1, "dst": 2}
_RECENT_CHECK, _RECENT_SET, _RECENT_REAP = 1 << 0, 1 << 1, 1 << 5
_CONNTRACK_STATE = 1
_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "SNAT": 64, "DNAT": 128, "UNTRACKED": 256}
_PORT_UNREACHABLE = {"ip": 3, "ip6": 4}


def _aligned(data: bytes) -> bytes:
    """XT_ALIGN: extensions are multiples of eight bytes."""
    return data + bytes(-len(data) % 8)


@lru_cache(maxsize=4096)
def comment(value: str) -> bytes:
    """Raises ValueError above 255 bytes."""
    encoded = value.encode()
    if len(encoded) > 255:
        raise ValueError(f"comment of {len(encoded)} bytes; iptables takes 255")
    return ex.xt_match("comment", 0, encoded.ljust(256, b"\0"))


def any_ports(protocol: str) -> bytes:
    """`-m tcp` without a port: every port."""
    if protocol == "sctp":
        return _sctp(0, 0, flags=0)
    tail = bytes(4) if protocol == "tcp" else bytes(1)
    return ex.xt_match(protocol, 0, _aligned(struct.pack("=HHHH", 0, 0xFFFF, 0, 0xFFFF) + tail))


def sctp_destination(port: int) -> bytes:
    """`-m sctp --dport`."""
    return _sctp(port, port, flags=_SCTP_DESTINATION_PORTS)


def _sctp(first: int, last: int, *, flags: int) -> bytes:
    no_chunks = bytes(256 + 4) + b"\xff\0\0" * 4
    return ex.xt_match(
        "sctp", 0, _aligned(struct.pack("=HHHH", first, last, 0, 0) + no_chunks + struct.pack("=iII", 0, flags, 0))
    )


def address_type(side: str, *, inverted: bool = False) -> bytes:
    """`-m addrtype --src-type LOCAL` or `--dst-type LOCAL`."""
    source, destination = (_RTN_LOCAL, 0) if side == "src" else (0, _RTN_LOCAL)
    flags = _ADDRTYPE_INVERT[side] if inverted else 0
    return ex.xt_match("addrtype", 1, struct.pack("=HHI", source, destination, flags))


@lru_cache(maxsize=256)
def statistic_random(probability: float) -> bytes:
    """`-m statistic --mode random --probability`."""
    threshold = int(probability * 0x80000000 + 0.5)
    return ex.xt_match("statistic", 0, struct.pack("=HHIII8x", 0, 0, threshold, 0, threshold))


def recent(name: str, *, seconds: int = 0, update: bool = False) -> bytes:
    """`--rcheck --seconds N --reap`, or `--set` with update. Source addresses, whole."""
    check = _RECENT_SET if update else _RECENT_CHECK | _RECENT_REAP
    head = struct.pack("=IIBB200sB", seconds, 0, check, 0, name.encode(), 0)
    return ex.xt_match("recent", 1, _aligned(head + bytes(-len(head) % 4) + b"\xff" * 16))


def connection_state(states: str, *, inverted: bool = False) -> bytes:
    """`-m conntrack --ctstate A,B`. Raises KeyError for a state there is not."""
    mask = sum(_STATES[state] for state in states.split(","))
    flags = struct.pack("=HHHH", _CONNTRACK_STATE, _CONNTRACK_STATE if inverted else 0, mask, 0)
    return ex.xt_match("conntrack", 3, _aligned(bytes(128 + 8 + 10) + flags + bytes(8)))


def set_mark(value: int, mask: int) -> bytes:
    """mark = (mark & ~mask) ^ value: --or-mark X is (X, X), --xor-mark X is (X, 0)."""
    return ex.xt_target("MARK", 2, struct.pack("=II", value, mask))


def dnat(address: str, port: int) -> bytes:
    """`--to-destination ADDRESS:PORT`; port 0 leaves the port."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address).ljust(16, b"\0")
    flags = _NAT_MAP_IPS | (_NAT_PROTO_SPECIFIED if port else 0)
    ports = port.to_bytes(2, "big") * 2
    return ex.xt_target("DNAT", 2, _aligned(struct.pack("=I", flags) + packed * 2 + ports + bytes(2)))


def masquerade(family: str, *, random_fully: bool) -> bytes:
    flags = _NAT_RANDOM_FULLY if random_fully else 0
    if family == "ip":
        return ex.xt_target("MASQUERADE", 0, _aligned(struct.pack("=II12x", 1, flags)))
    return ex.xt_target("MASQUERADE", 0, _aligned(struct.pack("=I36x", flags)))


def reject(family: str) -> bytes:
    """With ICMP port unreachable, iptables' default."""
    return ex.xt_target("REJECT", 0, _aligned(struct.pack("=I", _PORT_UNREACHABLE[family])))
