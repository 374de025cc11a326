"""nf_tables expressions as bytes (include/uapi/linux/netfilter/nf_tables.h). Pure.

A rule is a row of them: load something into a register, compare, look up, act. Registers are those
that nft takes.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from functools import lru_cache

from kubewire.components.kernel.nfnetlink.netlink import attribute, nested, number, text

REGISTER_1, REGISTER_2 = 1, 2
#: NFT_REG32_01: register 1 is as long as an IPv6 address; behind an IPv4 address comes this one.
_REGISTER_BEHIND_IPV4 = 9
_VERDICT_REGISTER = 0
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
#: Where an address is in its header: offset and length.
HEADER = {"ip": {"saddr": (12, 4), "daddr": (16, 4)}, "ip6": {"saddr": (8, 16), "daddr": (24, 16)}}
EQUAL, NOT_EQUAL = 0, 1
META_MARK, META_IIFNAME, META_OIFNAME, META_L4PROTO = 3, 6, 7, 16
NUMGEN_RANDOM = 1
_DNAT = 1
_FIB_ADDRTYPE = 3
FIB_SADDR, FIB_DADDR = 1, 2
#: NF_DROP, NF_ACCEPT and nf_tables' own verdicts, which are negative.
VERDICTS = {"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}
_LIST_ELEMENT = 1
_DATA_VALUE, _DATA_VERDICT = 1, 2


def _expression(name: str, *data: bytes) -> bytes:
    return nested(_LIST_ELEMENT, _name(name), nested(2, *data))


@lru_cache(maxsize=64)
def _name(name: str) -> bytes:
    return text(1, name)


def value(kind: int, data: bytes) -> bytes:
    """Attribute kind with raw data (NFTA_DATA_VALUE)."""
    return nested(kind, attribute(_DATA_VALUE, data))


def verdict(kind: int, name: str, chain: str = "") -> bytes:
    """Attribute kind with a verdict: drop, accept, return, or jump and goto with their chain."""
    code = struct.pack("!i", VERDICTS[name])
    return nested(kind, nested(_DATA_VERDICT, attribute(1, code), text(2, chain) if chain else b""))


@lru_cache(maxsize=256)
def payload(base: int, offset: int, length: int, register: int = REGISTER_1) -> bytes:
    """Load length bytes of the packet's header."""
    return _expression(
        "payload", number(1, register), number(2, base), number(3, offset), number(4, length)
    )


@lru_cache(maxsize=4096)
def compare(data: bytes, operator: int = EQUAL, register: int = REGISTER_1) -> bytes:
    """Go on when the register is (not) data; else the rule does not match."""
    return _expression("cmp", number(1, register), number(2, operator), value(3, data))


def address(value: str) -> bytes:
    """Raises OSError."""
    return socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)


def network(ip: str, side: str, cidr: str, operator: int = EQUAL) -> bytes:
    """Go on when an address ("saddr", "daddr") is (not) in a network, or is (not) an address. ip:
    "ip" or "ip6"."""
    offset, size = HEADER[ip][side]
    if "/" not in cidr:
        return payload(NETWORK_HEADER, offset, size) + compare(address(cidr), operator)
    packed, octets, bits, mask = _network(cidr)
    if octets and not bits:
        return payload(NETWORK_HEADER, offset, octets) + compare(packed[:octets], operator)
    return (
        payload(NETWORK_HEADER, offset, size)
        + bitwise(mask, bytes(size))
        + compare(packed, operator)
    )


@lru_cache(maxsize=1024)
def _network(cidr: str) -> tuple[bytes, int, int, bytes]:
    """Address, whole octets of the prefix and bits more, mask."""
    found = ipaddress.ip_network(cidr, strict=False)
    return found.network_address.packed, *divmod(found.prefixlen, 8), found.netmask.packed


def bitwise(mask: bytes, xor: bytes, register: int = REGISTER_1) -> bytes:
    """register = (register & mask) ^ xor."""
    return _expression(
        "bitwise",
        number(1, register),
        number(2, register),
        number(3, len(mask)),
        number(6, 0),
        value(4, mask),
        value(5, xor),
    )


@lru_cache(maxsize=64)
def meta(key: int, register: int = REGISTER_1) -> bytes:
    return _expression("meta", number(1, register), number(2, key))


def meta_set(key: int, register: int = REGISTER_1) -> bytes:
    return _expression("meta", number(2, key), number(3, register))


def fib_address_type(flags: int) -> bytes:
    """Load what the routing table says of the source or destination address (RTN_LOCAL is 2)."""
    return _expression("fib", number(1, REGISTER_1), number(2, _FIB_ADDRTYPE), number(3, flags))


@lru_cache(maxsize=256)
def numgen_random(modulus: int) -> bytes:
    return _expression(
        "numgen", number(1, REGISTER_1), number(2, modulus), number(3, NUMGEN_RANDOM), number(4, 0)
    )


def lookup(
    set_name: str,
    *,
    source: int = REGISTER_1,
    set_id: int = 0,
    verdict_map: bool = False,
    destination: int = 0,
    inverted: bool = False,
) -> bytes:
    """In a set; in a verdict map, whose verdict is then the rule's; or in a map, into the register
    destination."""
    return _expression(
        "lookup",
        text(1, set_name),
        number(2, source),
        number(3, destination) if verdict_map or destination else b"",
        number(4, set_id) if set_id else b"",
        number(5, 1) if inverted else b"",
    )


def dynset_update(set_name: str) -> bytes:
    """Add register 1 to a set, or renew its timeout there."""
    return _expression("dynset", text(1, set_name), number(3, 1), number(4, REGISTER_1))


@lru_cache(maxsize=4096)
def immediate_verdict(name: str, chain: str = "") -> bytes:
    return _expression("immediate", number(1, _VERDICT_REGISTER), verdict(2, name, chain))


def immediate(data: bytes, register: int) -> bytes:
    return _expression("immediate", number(1, register), value(2, data))


@lru_cache(maxsize=8)
def dnat(family: int, *, with_port: bool) -> bytes:
    """To the address in register 1 and the port in register 2. family is NFPROTO_IPV4 or
    NFPROTO_IPV6."""
    return _expression(
        "nat", number(1, _DNAT), number(2, family), number(3, REGISTER_1), number(5, REGISTER_2) if with_port else b"",
    )  # fmt: skip


@lru_cache(maxsize=2)
def dnat_from_map(family: int) -> bytes:
    """To the address and port that a lookup put into registers from 1 on, four bytes each."""
    port = _REGISTER_BEHIND_IPV4 if family == socket.AF_INET else REGISTER_2
    return _expression(
        "nat", number(1, _DNAT), number(2, family), number(3, REGISTER_1), number(5, port)
    )


@lru_cache(maxsize=1)
def counter() -> bytes:
    zero = bytes(8)
    return _expression("counter", attribute(1, zero), attribute(2, zero))


def xt_match(name: str, revision: int, info: bytes) -> bytes:
    """An iptables match inside a rule (nft_compat); info is the extension's struct, padded to eight
    bytes."""
    return _expression("match", _extension(name, revision), attribute(3, info))


def xt_target(name: str, revision: int, info: bytes) -> bytes:
    return _expression("target", _extension(name, revision), attribute(3, info))


@lru_cache(maxsize=64)
def _extension(name: str, revision: int) -> bytes:
    return text(1, name) + number(2, revision)
