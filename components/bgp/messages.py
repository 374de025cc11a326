"""Checks a peer's messages before they are interpreted (RFC 4271, 6; RFC 7606). Bytes in, bytes
out; no I/O.

An error ends the session (ProtocolError, with the matching NOTIFICATION), withdraws the routes of
its UPDATE ("treat-as-withdraw"), or drops one attribute ("attribute discard"); RFC 7606 decides for
each case, and FRR and BIRD do the same. Ending a session for a harmless error would be worse than
the error: all its routes would flap, and again at the next UPDATE.

Accepted messages are rewritten in one form: prefixes without trailing bits (RFC 4271, 4.3: their
value is irrelevant) and each once, AS numbers in four octets, one capability per parameter.
os-ken's decoder, which trusts every length and guesses the size of AS numbers, sees nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

MARKER = b"\xff" * 16
HEADER = 19
LARGEST = 4096
OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE_REFRESH = range(1, 6)
#: RFC 4271, 6.1: the minimum length of each type; for KEEPALIVE and ROUTE-REFRESH (RFC 2918, 3) the
#: exact length.
_LEAST = {OPEN: 29, UPDATE: 23, NOTIFICATION: 21, KEEPALIVE: 19, ROUTE_REFRESH: 23}
_EXACT = (KEEPALIVE, ROUTE_REFRESH)
IPV4_UNICAST = (1, 1)
IPV6_UNICAST = (2, 1)
_BITS = {IPV4_UNICAST: 32, IPV6_UNICAST: 128}
#: Lengths of the next hop: an address; in IPv6 a link-local address may follow it (RFC 2545, 3).
_NEXT_HOP_LENGTHS = {IPV4_UNICAST: (4,), IPV6_UNICAST: (16, 32)}


class ProtocolError(Exception):
    """The fault ends the session with this NOTIFICATION."""

    def __init__(self, code: int, subcode: int, what: str, data: bytes = b"") -> None:
        super().__init__(f"{what} (NOTIFICATION {code}/{subcode})")
        self.code = code
        self.subcode = subcode
        self.data = data


@dataclass(frozen=True)
class Session:
    """The result of the two OPENs. external: the peer is in another AS."""

    four_octet_as: bool = True
    external: bool = True


@dataclass(frozen=True)
class Accepted:
    """The UPDATEs to process, in this order, and the faults of the received one."""

    messages: tuple[bytes, ...]
    problems: tuple[str, ...] = ()


def message(kind: int, body: bytes) -> bytes:
    return MARKER + struct.pack("!HB", HEADER + len(body), kind) + body


def split(buffer: bytes) -> tuple[bytes | None, bytes]:
    """The first complete message, or None, and the remaining bytes. Raises ProtocolError (RFC 4271,
    6.1)."""
    if buffer[:16] != MARKER[: len(buffer[:16])]:
        raise ProtocolError(1, 1, "the marker is not all ones")
    if len(buffer) < HEADER:
        return None, buffer
    length, kind = struct.unpack_from("!HB", buffer, 16)
    if kind not in _LEAST:
        raise ProtocolError(1, 3, f"message type {kind} does not exist", bytes([kind]))
    wrong = length != _LEAST[kind] if kind in _EXACT else not _LEAST[kind] <= length <= LARGEST
    if wrong:
        raise ProtocolError(
            1,
            2,
            f"a message of type {kind} has length {length}",
            struct.pack("!H", length),
        )
    return (buffer[:length], buffer[length:]) if len(buffer) >= length else (None, buffer)


_CAPABILITIES = 2
_MULTIPROTOCOL = 1
_ROUTE_REFRESH = 2
_GRACEFUL_RESTART = 64
_FOUR_OCTET_AS = 65
_ENHANCED_ROUTE_REFRESH = 70
_CISCO_ROUTE_REFRESH = 128
#: The capabilities that os-ken uses -> a test of the length that the capability's RFC demands.
_KNOWN: Mapping[int, Callable[[int], bool]] = {
    _MULTIPROTOCOL: lambda length: length == 4,
    _ROUTE_REFRESH: lambda length: length == 0,
    _GRACEFUL_RESTART: lambda length: length >= 2 and length % 4 == 2,
    _FOUR_OCTET_AS: lambda length: length == 4,
    _ENHANCED_ROUTE_REFRESH: lambda length: length == 0,
    _CISCO_ROUTE_REFRESH: lambda length: length == 0,
}


def accepted_open(whole: bytes) -> bytes:
    """Rewrites an OPEN with the capabilities that os-ken knows, each once. Raises ProtocolError
    (RFC 4271, 6.2)."""
    version, my_as, hold_time, identifier, length = struct.unpack_from("!BHH4sB", whole, HEADER)
    if version != 4:
        raise ProtocolError(2, 1, f"BGP version {version}", struct.pack("!H", 4))
    if identifier == bytes(4):
        raise ProtocolError(2, 3, "the BGP identifier is zero")
    if hold_time in (1, 2):
        raise ProtocolError(2, 6, f"a hold time of {hold_time} s")
    body = whole[HEADER + 10 :]
    extended = length == 255 and body[:1] == b"\xff"  # RFC 9072
    if extended:
        if len(body) < 3:
            raise ProtocolError(2, 0, "the optional parameters have no length")
        length = int.from_bytes(body[1:3], "big")
        body = body[3:]
    if len(body) != length:
        raise ProtocolError(2, 0, f"optional parameters of {length} bytes in {len(body)}")
    kept = b"".join(_kept_capabilities(body, 2 if extended else 1))
    head = struct.pack("!BHH4sB", version, my_as, hold_time, identifier, len(kept))
    return message(OPEN, head + kept)


def _kept_capabilities(body: bytes, size: int) -> Iterator[bytes]:
    """Optional parameters with one capability each. size: octets of a parameter's length field."""
    kept: dict[tuple[int, bytes], bytes] = {}
    for kind, parameter in _items(body, size):
        if kind != _CAPABILITIES:
            raise ProtocolError(2, 4, f"optional parameter {kind} is not supported")
        for code, value in _items(parameter, 1):
            if code not in _KNOWN:
                continue
            if not _KNOWN[code](len(value)):
                raise ProtocolError(2, 0, f"capability {code} has length {len(value)}")
            if code == _MULTIPROTOCOL:
                if struct.unpack("!HxB", value) in _BITS:
                    kept[code, value] = value
            else:  # RFC 5492, 4: if a capability is repeated, any one of them may be used; this is the last
                kept[code, b""] = _known_families(value) if code == _GRACEFUL_RESTART else value
    for (code, _), value in kept.items():
        yield bytes([_CAPABILITIES, 2 + len(value), code, len(value)]) + value


def _known_families(value: bytes) -> bytes:
    """RFC 4724, 3: a graceful restart capability, reduced to the families that sessions here can
    carry."""
    families = {value[at : at + 3]: value[at : at + 4] for at in range(2, len(value), 4)}
    return value[:2] + b"".join(
        entry for key, entry in families.items() if struct.unpack("!HB", key) in _BITS
    )


def _items(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yields (type, value) of consecutive items whose length field has `size` octets. Raises
    ProtocolError."""
    while data:
        length = int.from_bytes(data[1 : 1 + size], "big")
        value = data[1 + size : 1 + size + length]
        if len(data) < 1 + size or len(value) < length:
            raise ProtocolError(2, 0, "an optional parameter is longer than what is there")
        yield data[0], value
        data = data[1 + size + length :]


(
    ORIGIN,
    AS_PATH,
    NEXT_HOP,
    MULTI_EXIT_DISC,
    LOCAL_PREF,
    ATOMIC_AGGREGATE,
    AGGREGATOR,
    COMMUNITIES,
) = range(1, 9)
ORIGINATOR_ID = 9
CLUSTER_LIST = 10
MP_REACH_NLRI = 14
MP_UNREACH_NLRI = 15
EXTENDED_COMMUNITIES = 16
AS4_PATH = 17
AS4_AGGREGATOR = 18
_NAMES = {
    ORIGIN: "ORIGIN",
    AS_PATH: "AS_PATH",
    NEXT_HOP: "NEXT_HOP",
    MULTI_EXIT_DISC: "MULTI_EXIT_DISC",
    LOCAL_PREF: "LOCAL_PREF",
    ATOMIC_AGGREGATE: "ATOMIC_AGGREGATE",
    AGGREGATOR: "AGGREGATOR",
    COMMUNITIES: "COMMUNITIES",
    ORIGINATOR_ID: "ORIGINATOR_ID",
    CLUSTER_LIST: "CLUSTER_LIST",
    MP_REACH_NLRI: "MP_REACH_NLRI",
    MP_UNREACH_NLRI: "MP_UNREACH_NLRI",
    EXTENDED_COMMUNITIES: "EXTENDED_COMMUNITIES",
    AS4_PATH: "AS4_PATH",
    AS4_AGGREGATOR: "AS4_AGGREGATOR",
}
_OPTIONAL = 0x80
_TRANSITIVE = 0x40
_EXTENDED_LENGTH = 0x10
_WELL_KNOWN = _TRANSITIVE
_NON_TRANSITIVE = _OPTIONAL
_BOTH = _OPTIONAL | _TRANSITIVE
#: RFC 4271, 5, and the attributes' own RFCs: the Optional and Transitive bits.
_FLAGS = {
    **dict.fromkeys((ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF, ATOMIC_AGGREGATE), _WELL_KNOWN),
    **dict.fromkeys(
        (AGGREGATOR, COMMUNITIES, EXTENDED_COMMUNITIES, AS4_PATH, AS4_AGGREGATOR),
        _BOTH,
    ),
    **dict.fromkeys(
        (MULTI_EXIT_DISC, ORIGINATOR_ID, CLUSTER_LIST, MP_REACH_NLRI, MP_UNREACH_NLRI),
        _NON_TRANSITIVE,
    ),
}
#: RFC 7606, 7.6, 7.7, and RFC 6793, 6: a malformed one of these is discarded; any other withdraws
#: the routes.
_DISCARDED = (ATOMIC_AGGREGATE, AGGREGATOR, AS4_PATH, AS4_AGGREGATOR)
#: RFC 7606, 7.5, 7.9, 7.10: from a peer in another AS these are discarded unread.
_INTERNAL_ONLY = (LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST)
#: os-ken would decode this one, but nothing uses it: PMSI_TUNNEL (RFC 6514).
_NOT_PASSED_ON = (22,)
_AS_SET = 1
_AS_SEQUENCE = 2


class _Wrong(Exception):
    """An attribute's value is malformed."""


@dataclass
class _Read:
    """The content of an UPDATE, with prefixes as on the wire."""

    withdrawn: list[bytes]
    reachable: list[bytes]
    attributes: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    mp_withdrawn: tuple[tuple[int, int], list[bytes]] | None = None
    mp_reachable: tuple[tuple[int, int], bytes, list[bytes]] | None = None
    problems: list[str] = field(default_factory=list)
    withdraw: bool = False
    #: True if there were routes of a family that sessions here do not carry.
    elsewhere: bool = False

    def malformed(self, kind: int, what: str) -> None:
        """Records a fault, and whether it discards the attribute or withdraws the routes (RFC 7606,
        2)."""
        name = _NAMES.get(kind, f"attribute {kind}")
        discarded = kind in _DISCARDED
        self.problems.append(
            f"{name} {what}: {'discarded' if discarded else 'its routes are withdrawn'}",
        )
        self.withdraw |= not discarded


def accepted_update(whole: bytes, session: Session) -> Accepted:
    """Rewrites an UPDATE as zero or more well-formed ones. Raises ProtocolError if the session must
    end."""
    withdrawn, attributes, nlri = _parts(whole)
    read = _Read(_prefixes(withdrawn, 32, "withdrawn routes"), _prefixes(nlri, 32, "NLRI"))
    if not withdrawn and not attributes and not nlri:
        return Accepted((whole,))  # RFC 4724, 2: End-of-RIB
    for kind, flags, value in _attributes(attributes, read):
        _take(kind, flags, value, session, read)
    _check_mandatory(read, session)
    announces = read.elsewhere or read.reachable or (read.mp_reachable and read.mp_reachable[2])
    if read.withdraw and not announces:
        # RFC 7606, 5.2: it is unknown which routes the peer meant.
        raise ProtocolError(3, 1, f"no routes to withdraw for {'; '.join(read.problems)}")
    return Accepted(tuple(_written(read)), tuple(read.problems))


def _parts(whole: bytes) -> tuple[bytes, bytes, bytes]:
    """Splits an UPDATE into withdrawn routes, attributes and NLRI; their lengths must fit (RFC
    4271, 6.3)."""
    body = whole[HEADER:]
    size = int.from_bytes(body[:2], "big")
    if size + 4 > len(body):
        raise ProtocolError(3, 1, f"withdrawn routes of {size} bytes in an UPDATE of {len(body)}")
    start = 4 + size
    length = int.from_bytes(body[2 + size : start], "big")
    if start + length > len(body):
        raise ProtocolError(3, 1, f"attributes of {length} bytes in an UPDATE of {len(body)}")
    return body[2 : 2 + size], body[start : start + length], body[start + length :]


def _prefixes(data: bytes, bits: int, where: str) -> list[bytes]:
    """Reads prefixes, each once and without trailing bits (RFC 7606, 5.3). Raises ProtocolError."""
    prefixes: dict[bytes, None] = {}
    at = 0
    while at < len(data):
        length = data[at]
        size = (length + 7) // 8
        address = data[at + 1 : at + 1 + size]
        if length > bits or len(address) < size:
            raise ProtocolError(3, 10, f"a prefix of {length} bits in the {where}")
        if length % 8:
            address = address[:-1] + bytes([address[-1] & 0xFF00 >> length % 8 & 0xFF])
        prefixes[bytes([length]) + address] = None
        at += 1 + size
    return list(prefixes)


def _attributes(data: bytes, read: _Read) -> Iterator[tuple[int, int, bytes]]:
    """Yields (type, flags, value). An attribute that exceeds the field withdraws; reading stops
    there (RFC 7606, 4)."""
    while data:
        head = 4 if data[0] & _EXTENDED_LENGTH else 3
        length = int.from_bytes(data[2:head], "big")
        if len(data) < head or len(data) < head + length:
            read.malformed(data[1] if len(data) > 1 else 0, "reaches beyond the attributes")
            return
        yield data[1], data[0], data[head : head + length]
        data = data[head + length :]


def _take(kind: int, flags: int, value: bytes, session: Session, read: _Read) -> None:
    if kind in (MP_REACH_NLRI, MP_UNREACH_NLRI):
        _take_multiprotocol(kind, value, read)
        return
    if kind in read.attributes:  # RFC 7606, 3.g: only the first one counts
        read.problems.append(f"{_NAMES.get(kind, f'attribute {kind}')} is there twice: discarded")
        return
    if kind not in _FLAGS:
        _take_unknown(kind, flags, value, read)
    elif kind in _INTERNAL_ONLY and session.external:
        read.problems.append(f"{_NAMES[kind]} is from a peer of another AS: discarded")
    elif flags & _BOTH != _FLAGS[kind]:
        read.malformed(kind, f"has the flags {flags:#04x}")
    elif kind in (AS4_PATH, AS4_AGGREGATOR) and session.four_octet_as:
        read.problems.append(
            f"{_NAMES[kind]} is from a peer with AS numbers of four octets: discarded",
        )
    else:
        try:
            read.attributes[kind] = flags, _VALUES[kind](value, session)
        except _Wrong as error:
            read.malformed(kind, str(error))


def _take_unknown(kind: int, flags: int, value: bytes, read: _Read) -> None:
    """Keeps unknown optional attributes that are transitive, to pass them on (RFC 4271, 6.3 and
    9)."""
    if not flags & _OPTIONAL:
        raise ProtocolError(
            3,
            2,
            f"the well-known attribute {kind} is not known",
            bytes([flags, kind]) + value[:255],
        )
    if flags & _TRANSITIVE and kind not in _NOT_PASSED_ON:
        read.attributes[kind] = flags, value


def _take_multiprotocol(kind: int, value: bytes, read: _Read) -> None:
    """RFC 4760 and RFC 7606, 3.g, 5.3, 7.11, 7.12. Families that sessions here do not carry are
    ignored."""
    name = _NAMES[kind]
    there = read.mp_reachable if kind == MP_REACH_NLRI else read.mp_withdrawn
    if there is not None:
        raise ProtocolError(3, 1, f"{name} is there twice")
    if len(value) < (5 if kind == MP_REACH_NLRI else 3):
        raise ProtocolError(3, 9, f"{name} has length {len(value)}")
    family = int.from_bytes(value[:2], "big"), value[2]
    if family not in _BITS:
        read.problems.append(f"{name} is of the family {family[0]}/{family[1]}: discarded")
        read.elsewhere |= kind == MP_REACH_NLRI
    elif kind == MP_UNREACH_NLRI:
        read.mp_withdrawn = family, _prefixes(value[3:], _BITS[family], name)
    else:
        length = value[3]
        if length not in _NEXT_HOP_LENGTHS[family] or len(value) < 5 + length:
            raise ProtocolError(3, 9, f"{name} has a next hop of {length} bytes")
        prefixes = _prefixes(value[5 + length :], _BITS[family], name)
        next_hop = value[4 : 4 + length]
        read.mp_reachable = family, next_hop, prefixes
        if not _may_be_next_hop(next_hop[: _BITS[family] // 8]):
            read.malformed(kind, "has a next hop that is no host's address")


def _check_mandatory(read: _Read, session: Session) -> None:
    """RFC 7606, 3.d: a route without one of these attributes is withdrawn."""
    if not read.reachable and not read.mp_reachable:
        return
    wanted = [ORIGIN, AS_PATH]
    wanted += [] if session.external else [LOCAL_PREF]
    wanted += [NEXT_HOP] if read.reachable else []
    for kind in wanted:
        if kind not in read.attributes and not read.withdraw:
            read.malformed(kind, "is missing")


def _written(read: _Read) -> Iterator[bytes]:
    """Yields withdrawals first: a prefix in both fields counts as reachable (RFC 4271, 4.3)."""
    withdrawn = list(read.withdrawn)
    mp_withdrawn = [read.mp_withdrawn] if read.mp_withdrawn else []
    if read.withdraw:
        withdrawn += read.reachable
        mp_withdrawn += [(read.mp_reachable[0], read.mp_reachable[2])] if read.mp_reachable else []
    if withdrawn:
        yield _update(withdrawn=dict.fromkeys(withdrawn))
    for family, prefixes in mp_withdrawn:
        # An empty one is an End-of-RIB only if the UPDATE contains nothing else.
        if prefixes or not (read.attributes or read.reachable or withdrawn or read.mp_reachable):
            yield _update(
                [_attribute(_OPTIONAL, MP_UNREACH_NLRI, _family(family) + b"".join(prefixes))],
            )
    if read.withdraw:
        return
    common = {
        kind: _attribute(flags, kind, value) for kind, (flags, value) in read.attributes.items()
    }
    if read.reachable:
        yield _update(common.values(), reachable=read.reachable)
    if read.mp_reachable and read.mp_reachable[2]:
        family, next_hop, prefixes = read.mp_reachable
        value = _family(family) + bytes([len(next_hop)]) + next_hop + b"\0" + b"".join(prefixes)
        rest = [
            text for kind, text in common.items() if kind != NEXT_HOP
        ]  # RFC 4760, 3: NEXT_HOP is ignored
        yield _update([_attribute(_OPTIONAL, MP_REACH_NLRI, value), *rest])


def _update(
    attributes: Iterable[bytes] = (),
    *,
    withdrawn: Iterable[bytes] = (),
    reachable: Iterable[bytes] = (),
) -> bytes:
    routes = b"".join(withdrawn)
    values = b"".join(attributes)
    sizes = len(routes).to_bytes(2, "big"), len(values).to_bytes(2, "big")
    return message(UPDATE, sizes[0] + routes + sizes[1] + values + b"".join(reachable))


def _attribute(flags: int, kind: int, value: bytes) -> bytes:
    flags &= ~_EXTENDED_LENGTH
    if len(value) > 255:
        return struct.pack("!BBH", flags | _EXTENDED_LENGTH, kind, len(value)) + value
    return bytes([flags, kind, len(value)]) + value


def _family(family: tuple[int, int]) -> bytes:
    return struct.pack("!HB", *family)


# Values of attributes: each function takes the received octets and returns those for os-ken, or
# raises _Wrong.


def _of_length(*lengths: int) -> Callable[[bytes, Session], bytes]:
    def check(value: bytes, _: Session) -> bytes:
        if len(value) not in lengths:
            raise _Wrong(f"has length {len(value)}")
        return value

    return check


def _several_of(size: int) -> Callable[[bytes, Session], bytes]:
    """Accepts a positive multiple of size (RFC 7606, 7.8, 7.10, 7.14)."""

    def check(value: bytes, _: Session) -> bytes:
        if not value or len(value) % size:
            raise _Wrong(f"has length {len(value)}")
        return value

    return check


def _origin(value: bytes, _: Session) -> bytes:
    if len(value) != 1 or value[0] > 2:
        raise _Wrong(f"is {value[:8].hex()}")
    return value


def _as_path(value: bytes, session: Session) -> bytes:
    return _segments(value, 4 if session.four_octet_as else 2)


def _as4_path(value: bytes, _: Session) -> bytes:
    return _segments(value, 4)


def _segments(value: bytes, size: int) -> bytes:
    """Rejects empty and confederation segments and AS 0 (RFC 7606, 7.2; RFC 7607, 2). Returns
    four-octet numbers."""
    written = b""
    while value:
        count = value[1] if len(value) > 1 else 0
        numbers = value[2 : 2 + count * size]
        if value[0] not in (_AS_SET, _AS_SEQUENCE) or not count or len(numbers) < count * size:
            raise _Wrong(
                f"has a segment of type {value[0]} with {count} AS numbers in {len(value)} bytes",
            )
        written += value[:2]
        for at in range(0, len(numbers), size):
            number = numbers[at : at + size]
            if not any(number):
                raise _Wrong("has AS 0")
            written += number.rjust(4, b"\0")
        value = value[2 + count * size :]
    return written


def _next_hop(value: bytes, session: Session) -> bytes:
    """RFC 4271, 6.3: a route whose next hop is not a host address is ignored; the session
    continues."""
    if not _may_be_next_hop(_of_length(4)(value, session)):
        raise _Wrong("is no host's address")
    return value


def _may_be_next_hop(address: bytes) -> bool:
    """False for unspecified, loopback, multicast and reserved addresses (FRR:
    bgp_attr_nexthop_valid)."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[:15] != bytes(15) and address[0] != 0xFF


def _aggregator(value: bytes, session: Session) -> bytes:
    """RFC 7606, 7.7; RFC 7607, 2. os-ken tells the two forms apart by their length."""
    size = 4 if session.four_octet_as else 2
    if len(value) != size + 4 or not any(value[:size]):
        raise _Wrong(f"is {value[:8].hex()}")
    return value


_VALUES: Mapping[int, Callable[[bytes, Session], bytes]] = {
    ORIGIN: _origin,
    AS_PATH: _as_path,
    NEXT_HOP: _next_hop,
    MULTI_EXIT_DISC: _of_length(4),
    LOCAL_PREF: _of_length(4),
    ATOMIC_AGGREGATE: _of_length(0),
    AGGREGATOR: _aggregator,
    COMMUNITIES: _several_of(4),
    ORIGINATOR_ID: _of_length(4),
    CLUSTER_LIST: _several_of(4),
    EXTENDED_COMMUNITIES: _several_of(8),
    AS4_PATH: _as4_path,
    AS4_AGGREGATOR: _of_length(8),
}
