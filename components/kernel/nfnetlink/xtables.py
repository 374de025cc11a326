"""iptables rules as values: each match and target has its words, and its expressions for nf_tables.
Pure.

text() gives the words for iptables-restore in the order in which a rule lists its matches. The
expressions are those that iptables-nft 1.8.9 would send, in its order, so that iptables-save prints
what iptables-restore was given: some extensions are nf_tables' own expressions, others are structs
(include/uapi/linux/netfilter/xt_*.h) in its `match` and `target` expressions. ip is the family,
"ip" or "ip6".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import ClassVar, Protocol

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink.netlink import nested, number
from kubewire.components.kernel.nfnetlink.tables import PROTOCOLS

#: The order of iptables-nft: interfaces, protocol, source, destination, extensions as the rule
#: lists them. The last is an attribute of the rule and no expression: extensions of a protocol
#: require that the rule names the protocol.
_INTERFACE, _PROTOCOL, _SOURCE, _DESTINATION, _EXTENSION, _COMPATIBLE = range(6)
_Placed = tuple[int, bytes]
_place = itemgetter(0)

_NAT_MAP_IPS, _NAT_PROTO_SPECIFIED, _NAT_RANDOM_FULLY = 1, 2, 1 << 4
_RTN_LOCAL = 1 << 2
_SCTP_DESTINATION_PORTS = 2
_RECENT_CHECK, _RECENT_SET, _RECENT_REAP = 1 << 0, 1 << 1, 1 << 5
_CONNTRACK_STATE = 1
_STATES = {
    "INVALID": 1,
    "ESTABLISHED": 2,
    "RELATED": 4,
    "NEW": 8,
    "SNAT": 64,
    "DNAT": 128,
    "UNTRACKED": 256,
}
_PORT_UNREACHABLE = {"ip": 3, "ip6": 4}
_ALL_BITS = 0xFFFFFFFF


class Unsupported(Exception):
    """A match or target that only iptables itself can write."""


class Match(Protocol):
    def text(self) -> str: ...

    def expressions(self, ip: str) -> Iterable[_Placed]:
        """Raises Unsupported."""


class Target(Protocol):
    def text(self) -> str: ...

    def expression(self, ip: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """What a packet must be like, and what happens to it then; without a target it is only
    counted."""

    matches: tuple[Match, ...] = ()
    target: Target | None = None

    def text(self) -> str:
        words = [match.text() for match in self.matches]
        if self.target is not None:
            words.append(self.target.text())
        return " ".join(words)

    def __str__(self) -> str:
        return self.text()

    def attributes(self, ip: str) -> bytes:
        """Of a rule's message. Raises Unsupported."""
        placed: list[_Placed] = []
        for match in self.matches:
            placed += match.expressions(ip)
        placed.sort(key=_place)
        compatible = placed.pop()[1] if placed and placed[-1][0] == _COMPATIBLE else b""
        target = self.target.expression(ip) if self.target is not None else b""
        return nested(4, *[data for _, data in placed], ex.counter(), target) + compatible


@dataclass(frozen=True, slots=True)
class Comment:
    """At most 255 bytes."""

    comment: str

    def text(self) -> str:
        return (
            f'-m comment --comment "{self.comment}"'
            if " " in self.comment
            else f"-m comment --comment {self.comment}"
        )

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        return (_comment(self.comment),)


@lru_cache(maxsize=4096)
def _comment(comment: str) -> _Placed:
    encoded = comment.encode()
    if len(encoded) > 255:
        raise ValueError(f"comment of {len(encoded)} bytes; iptables takes 255")
    return _EXTENSION, ex.xt_match("comment", 0, encoded.ljust(256, b"\0"))


@dataclass(frozen=True, slots=True)
class _Address:
    address: str
    negated: bool = False
    flag: ClassVar[str]
    place: ClassVar[int]
    side: ClassVar[str]

    def text(self) -> str:
        return f"! {self.flag} {self.address}" if self.negated else f"{self.flag} {self.address}"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        return ((self.place, ex.network(ip, self.side, self.address, _operator(self.negated))),)


@dataclass(frozen=True, slots=True)
class Source(_Address):
    """An address or a CIDR."""

    flag, place, side = "-s", _SOURCE, "saddr"


@dataclass(frozen=True, slots=True)
class Destination(_Address):
    """An address or a CIDR."""

    flag, place, side = "-d", _DESTINATION, "daddr"


@dataclass(frozen=True, slots=True)
class _Interface:
    name: str
    negated: bool = False
    flag: ClassVar[str]
    key: ClassVar[int]

    def text(self) -> str:
        return f"{_not(self.negated)}{self.flag} {self.name}"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        wanted = self.name[:-1].encode() if self.name.endswith("+") else self.name.encode() + b"\0"
        return ((_INTERFACE, ex.meta(self.key) + ex.compare(wanted, _operator(self.negated))),)


@dataclass(frozen=True, slots=True)
class InInterface(_Interface):
    """A name, or the beginning of names with a plus sign behind it."""

    flag, key = "-i", ex.META_IIFNAME


@dataclass(frozen=True, slots=True)
class OutInterface(_Interface):
    """As InInterface."""

    flag, key = "-o", ex.META_OIFNAME


@dataclass(frozen=True, slots=True)
class OfProtocol:
    """tcp, udp or sctp, without its extension."""

    protocol: str

    def text(self) -> str:
        return f"-p {self.protocol}"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        return _protocol(self.protocol)


@dataclass(frozen=True, slots=True)
class Transport:
    """tcp, udp or sctp with its extension: to a port and to an address, where they are given."""

    protocol: str
    port: int = 0
    address: str = ""

    def text(self) -> str:
        words = f"-m {self.protocol} -p {self.protocol}"
        if self.address:
            words += f" -d {self.address}"
        return f"{words} --dport {self.port}" if self.port else words

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        ports = _to_port(self.protocol, self.port) if self.port else _any_port(self.protocol)
        if not self.address:
            return (*_protocol(self.protocol), ports)
        return (
            *_protocol(self.protocol),
            (_DESTINATION, ex.network(ip, "daddr", self.address)),
            ports,
        )


@lru_cache(maxsize=8)
def _protocol(protocol: str) -> tuple[_Placed, _Placed]:
    value = PROTOCOLS[protocol]
    same = ex.meta(ex.META_L4PROTO) + ex.compare(bytes([value]))
    return (_PROTOCOL, same), (_COMPATIBLE, nested(5, number(1, value), number(2, 0)))


@lru_cache(maxsize=1024)
def _to_port(protocol: str, port: int) -> _Placed:
    if protocol == "sctp":
        return _EXTENSION, _sctp(port, port, flags=_SCTP_DESTINATION_PORTS)
    return _EXTENSION, ex.payload(ex.TRANSPORT_HEADER, 2, 2) + ex.compare(port.to_bytes(2, "big"))


@lru_cache(maxsize=8)
def _any_port(protocol: str) -> _Placed:
    if protocol == "sctp":
        return _EXTENSION, _sctp(0, 0, flags=0)
    tail = bytes(4) if protocol == "tcp" else bytes(1)
    return _EXTENSION, ex.xt_match(
        protocol, 0, _aligned(struct.pack("=HHHH", 0, 0xFFFF, 0, 0xFFFF) + tail)
    )


def _sctp(first: int, last: int, *, flags: int) -> bytes:
    no_chunks = bytes(256 + 4) + b"\xff\0\0" * 4
    ports = struct.pack("=HHHH", first, last, 0, 0)
    return ex.xt_match("sctp", 0, _aligned(ports + no_chunks + struct.pack("=iII", 0, flags, 0)))


@dataclass(frozen=True, slots=True)
class _Local:
    negated: bool = False
    side: ClassVar[str]
    #: Types of the source, types of the destination; what negates the one or the other.
    types: ClassVar[tuple[int, int]]
    inverted: ClassVar[int]

    def text(self) -> str:
        return f"-m addrtype {_not(self.negated)}--{self.side}-type LOCAL"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        info = struct.pack("=HHI", *self.types, self.inverted if self.negated else 0)
        return ((_EXTENSION, ex.xt_match("addrtype", 1, info)),)


@dataclass(frozen=True, slots=True)
class FromThisHost(_Local):
    """The routing table says that the source is one of this host's addresses."""

    side, types, inverted = "src", (_RTN_LOCAL, 0), 1


@dataclass(frozen=True, slots=True)
class ToThisHost(_Local):
    """The routing table says that the destination is one of this host's addresses."""

    side, types, inverted = "dst", (0, _RTN_LOCAL), 2


@dataclass(frozen=True, slots=True)
class Random:
    """One of several packets, as likely as this."""

    probability: float

    def text(self) -> str:
        return f"-m statistic --mode random --probability {self.probability:.10f}"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        return (_random(self.probability),)


@lru_cache(maxsize=256)
def _random(probability: float) -> _Placed:
    # Rounded as in the text, or the kernel's number could differ from the tool's in its last bit.
    threshold = int(round(probability, 10) * 0x80000000 + 0.5)
    return _EXTENSION, ex.xt_match(
        "statistic", 0, struct.pack("=HHIII8x", 0, 0, threshold, 0, threshold)
    )


@dataclass(frozen=True, slots=True)
class Recent:
    """The source was put into a list less than so many seconds ago, and older entries are removed;
    without seconds it is put there, and the match succeeds."""

    list: str
    seconds: int = 0

    def text(self) -> str:
        return f"-m recent --name {self.list} " + (
            f"--rcheck --seconds {self.seconds} --reap" if self.seconds else "--set"
        )

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        what = _RECENT_CHECK | _RECENT_REAP if self.seconds else _RECENT_SET
        head = struct.pack("=IIBB200sB", self.seconds, 0, what, 0, self.list.encode(), 0)
        return (
            (
                _EXTENSION,
                ex.xt_match("recent", 1, _aligned(head + bytes(-len(head) % 4) + b"\xff" * 16)),
            ),
        )


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """conntrack's, one of several: NEW, INVALID, DNAT ..."""

    states: tuple[str, ...]
    negated: bool = False

    def text(self) -> str:
        return f"-m conntrack {_not(self.negated)}--ctstate {','.join(self.states)}"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        mask = sum(_STATES[state] for state in self.states)
        flags = struct.pack(
            "=HHHH", _CONNTRACK_STATE, _CONNTRACK_STATE if self.negated else 0, mask, 0
        )
        return (
            (
                _EXTENSION,
                ex.xt_match("conntrack", 3, _aligned(bytes(128 + 8 + 10) + flags + bytes(8))),
            ),
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """The bits of mask are those of value."""

    value: int
    mask: int = _ALL_BITS
    negated: bool = False

    def text(self) -> str:
        mask = "" if self.mask == _ALL_BITS else f"/{self.mask:#x}"
        return f"-m mark {_not(self.negated)}--mark {self.value:#x}{mask}"

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        masked = (
            b"" if self.mask == _ALL_BITS else ex.bitwise(struct.pack("=I", self.mask), bytes(4))
        )
        compared = ex.compare(struct.pack("=I", self.value), _operator(self.negated))
        return ((_EXTENSION, ex.meta(ex.META_MARK) + masked + compared),)


@dataclass(frozen=True, slots=True)
class Words:
    """A match that has no message here, in iptables' own words: it is seldom used, or its struct
    has what only the kernel knows (an ipset's number)."""

    words: str

    def text(self) -> str:
        return self.words

    def expressions(self, ip: str) -> tuple[_Placed, ...]:
        raise Unsupported(self.words)


@dataclass(frozen=True, slots=True)
class Jump:
    """To a chain, or a verdict: ACCEPT, DROP, RETURN."""

    to: str

    def text(self) -> str:
        return f"-j {self.to}"

    def expression(self, ip: str) -> bytes:
        return (
            ex.immediate_verdict(self.to.lower())
            if self.to in _VERDICTS
            else ex.immediate_verdict("jump", self.to)
        )


_VERDICTS = ("ACCEPT", "DROP", "RETURN")
ACCEPT, DROP, RETURN = map(Jump, _VERDICTS)


@dataclass(frozen=True, slots=True)
class Reject:
    """With ICMP port unreachable, iptables' default."""

    def text(self) -> str:
        return "-j REJECT"

    def expression(self, ip: str) -> bytes:
        return ex.xt_target("REJECT", 0, _aligned(struct.pack("=I", _PORT_UNREACHABLE[ip])))


@dataclass(frozen=True, slots=True)
class ChangeMark:
    """Sets bits of the packet's mark ("or"), or inverts them ("xor")."""

    how: str
    bits: int

    def text(self) -> str:
        return f"-j MARK --{self.how}-mark {self.bits:#x}"

    def expression(self, ip: str) -> bytes:
        """mark = (mark & ~mask) ^ bits."""
        return ex.xt_target(
            "MARK", 2, struct.pack("=II", self.bits, self.bits if self.how == "or" else 0)
        )


@dataclass(frozen=True, slots=True)
class Dnat:
    address: str
    port: int

    def text(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"-j DNAT --to-destination {address}:{self.port}"

    def expression(self, ip: str) -> bytes:
        packed = ex.address(self.address).ljust(16, b"\0")
        flags = struct.pack("=I", _NAT_MAP_IPS | _NAT_PROTO_SPECIFIED)
        return ex.xt_target(
            "DNAT", 2, _aligned(flags + packed * 2 + self.port.to_bytes(2, "big") * 2 + bytes(2))
        )


@dataclass(frozen=True, slots=True)
class Masquerade:
    random_fully: bool = False

    def text(self) -> str:
        return "-j MASQUERADE --random-fully" if self.random_fully else "-j MASQUERADE"

    def expression(self, ip: str) -> bytes:
        flags = _NAT_RANDOM_FULLY if self.random_fully else 0
        if ip == "ip":
            return ex.xt_target("MASQUERADE", 0, _aligned(struct.pack("=II12x", 1, flags)))
        return ex.xt_target("MASQUERADE", 0, _aligned(struct.pack("=I36x", flags)))


def _aligned(data: bytes) -> bytes:
    """XT_ALIGN: extensions are multiples of eight bytes."""
    return data + bytes(-len(data) % 8)


def _not(negated: bool) -> str:
    return "! " if negated else ""


def _operator(negated: bool) -> int:
    return ex.NOT_EQUAL if negated else ex.EQUAL
