"""Commands on one nf_tables table as messages: chains, rules, elements, anonymous maps. Pure.

`nft -f` reads back all chains before each change, and the kernel looks through all anonymous sets
to name a new one: with thousands of Services a change takes tenths of a second, a first load many
seconds. Here a command becomes a message, nothing is read, and anonymous maps bring their names.
`nft list ruleset` prints what it would have printed.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    attribute,
    nested,
    number,
    text,
)

NFPROTO = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE = 3, 5, 6, 8
_NEW_SET, _DELETE_SET, _NEW_ELEMENT, _DELETE_ELEMENT = 9, 11, 12, 14
_ANONYMOUS, _CONSTANT, _INTERVAL, _MAP, _TIMEOUT, _EVAL = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
_INTERVAL_END = 0x1
_VERDICTS = 0xFFFFFF00
#: nft's numbers of data types; a concatenation has six bits for each.
_INTEGER, _SERVICE = 4, 13
_ADDRESS = {"ip": 7, "ip6": 8}
#: What nft notes about a set for itself: byte order of keys and data, so that it can print them.
_HOST_ORDER_KEYS_TO_VERDICTS = bytes.fromhex(
    "00040100000001040000000004080004010000000100060400000000"
)
_HOST_ORDER_KEYS_TO_ENDPOINTS = bytes.fromhex("000401000000010400000000060400000000")
_NETWORK_ORDER_KEYS = bytes.fromhex("000402000000")
#: nft's notes are type, length, value; of rules, elements and chains alike type 0 is the comment.
_COMMENT = 0
#: A netlink attribute has at most 65,535 bytes.
_LARGEST_LIST = 60_000


class Table:
    """One table of one family ("ip" or "ip6"). Every method returns messages and changes nothing
    else but the counter that names anonymous maps."""

    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self._protocol = NFPROTO[family]
        self._table = text(1, name)
        self._serial = itertools.count(1)
        # Those of an earlier process of this table have another number in their names.
        self._epoch = f"{os.getpid():x}x{int.from_bytes(os.urandom(4), 'big'):x}"

    def add_chain(self, name: str, comment: str = "", origin: object = "") -> Message:
        """A regular chain; no error when it is there."""
        return self._message(_NEW_CHAIN, origin, text(3, name), _comment(12, comment))

    def flush_chain(self, name: str, origin: object = "") -> Message:
        return self._message(_DELETE_RULE, origin, text(2, name), flags=0)

    def delete_chain(self, name: str, origin: object = "") -> Message:
        return self._message(_DELETE_CHAIN, origin, text(3, name), flags=0)

    def add_rule(
        self, chain: str, parts: Iterable[bytes], comment: str = "", origin: object = ""
    ) -> Message:
        """At the end of a chain. parts: expressions."""
        expressions = nested(4, *parts)
        flags = NLM_F_CREATE | NLM_F_APPEND
        return self._message(
            _NEW_RULE, origin, text(2, chain), expressions, _comment(7, comment), flags=flags
        )

    def verdict_map(
        self, verdicts: Sequence[tuple[str, str]], origin: object = ""
    ) -> tuple[list[Message], bytes]:
        """An anonymous map from 0, 1, ... to (verdict, chain), and the expression that looks
        register 1 up in it. The messages go before the rule that has the expression."""
        entries = [
            _numbered(index, ex.verdict(2, *verdict)) for index, verdict in enumerate(verdicts)
        ]
        kind = (number(6, _VERDICTS), number(7, 4), attribute(13, _HOST_ORDER_KEYS_TO_VERDICTS))
        messages, name, serial = self._anonymous(entries, _MAP, (_INTEGER, 4), kind, origin)
        return messages, ex.lookup(name, set_id=serial, verdict_map=True)

    def endpoint_map(
        self, endpoints: Sequence[tuple[bytes, int]], origin: object = ""
    ) -> tuple[list[Message], bytes]:
        """An anonymous map from 0, 1, ... to (address, port); the expression puts what register 1
        stands for into registers, for ex.dnat_from_map."""
        entries = [
            _numbered(index, ex.value(2, address + port.to_bytes(2, "big") + b"\0\0"))
            for index, (address, port) in enumerate(endpoints)
        ]
        data, length = _ADDRESS[self.family] << 6 | _SERVICE, len(endpoints[0][0]) + 4
        kind = (number(6, data), number(7, length), attribute(13, _HOST_ORDER_KEYS_TO_ENDPOINTS))
        messages, name, serial = self._anonymous(entries, _MAP, (_INTEGER, 4), kind, origin)
        return messages, ex.lookup(name, set_id=serial, destination=ex.REGISTER_1)

    def range_set(
        self, ranges: Sequence[str], origin: object = "", *, inverted: bool = False
    ) -> tuple[list[Message], bytes]:
        """An anonymous set of CIDRs, and the expression that looks for register 1 in it (or,
        inverted, not in it)."""
        entries = [
            nested(1, ex.value(1, edge), number(3, _INTERVAL_END) if end else b"")
            for edge, end in _edges(ranges)
        ]
        size = _address_length(self.family)
        key = (_ADDRESS[self.family], size)
        messages, name, serial = self._anonymous(
            entries, _INTERVAL, key, (attribute(13, _NETWORK_ORDER_KEYS),), origin
        )
        return messages, ex.lookup(name, set_id=serial, inverted=inverted)

    def _anonymous(
        self,
        entries: list[bytes],
        flags: int,
        key: tuple[int, int],
        kind: tuple[bytes, ...],
        origin: object,
    ) -> tuple[list[Message], str, int]:
        """key: type and length. kind: what else the set has to say of itself, in the order of its
        attributes' use."""
        serial = next(self._serial)
        name = f"__{'map' if flags & _MAP else 'set'}{self._epoch}x{serial:x}"
        declaration = self._message(
            _NEW_SET,
            origin,
            text(2, name),
            number(3, _ANONYMOUS | _CONSTANT | flags),
            number(4, key[0]),
            number(5, key[1]),
            number(10, serial),
            nested(9, number(1, len(entries))),
            *kind,
        )
        # By its number alone: the kernel looks for a name in all sets, one after the other, before
        # it takes the number.
        lists = [
            self._message(_NEW_ELEMENT, origin, number(4, serial), nested(3, *some))
            for some in _in_lists(entries)
        ]
        return [declaration, *lists], name, serial

    def add_affinity_set(self, name: str, timeout: int, origin: object = "") -> Message:
        """Addresses that rules put in, each for timeout seconds."""
        return self._message(
            _NEW_SET,
            origin,
            text(2, name),
            number(3, _TIMEOUT | _EVAL),
            number(4, _ADDRESS[self.family]),
            number(5, _address_length(self.family)),
            attribute(11, struct.pack("!Q", timeout * 1000)),
            number(10, next(self._serial)),
            attribute(13, _NETWORK_ORDER_KEYS),
        )

    def delete_set(self, name: str, origin: object = "") -> Message:
        return self._message(_DELETE_SET, origin, text(2, name), flags=0)

    def add_elements(
        self, name: str, elements: Sequence[bytes], origin: object = ""
    ) -> list[Message]:
        """To a set or map. elements: of element()."""
        return [
            self._message(_NEW_ELEMENT, origin, text(2, name), nested(3, *some))
            for some in _in_lists(elements)
        ]

    def delete_elements(
        self, name: str, elements: Sequence[bytes], origin: object = ""
    ) -> list[Message]:
        return [
            self._message(_DELETE_ELEMENT, origin, text(2, name), nested(3, *some), flags=0)
            for some in _in_lists(elements)
        ]

    def _message(
        self, kind: int, origin: object, *parts: bytes, flags: int = NLM_F_CREATE
    ) -> Message:
        return Message(kind, flags, self._protocol, b"".join((self._table, *parts)), origin)


def element(key: bytes, verdict: tuple[str, str] | None = None, comment: str = "") -> bytes:
    """One element; verdict: (goto or jump, chain), or (drop, "")."""
    data = ex.verdict(2, *verdict) if verdict else b""
    return nested(1, ex.value(1, key), data, _comment(6, comment))


def key(values: Sequence[str]) -> bytes:
    """Addresses, protocols and ports as they stand in an element. A key of one field is as it is;
    the fields of a concatenation are padded to four bytes each. Raises OSError for what is none of
    them."""
    fields = [_field(value) for value in values]
    return (
        fields[0]
        if len(fields) == 1
        else b"".join(field + bytes(-len(field) % 4) for field in fields)
    )


def _address_length(family: str) -> int:
    return 4 if family == "ip" else 16


def _edges(ranges: Sequence[str]) -> list[tuple[bytes, bool]]:
    """Addresses where the set begins (False) and ends (True), ascending from 0; ranges that touch
    are one."""
    networks = sorted(ipaddress.ip_network(cidr, strict=False) for cidr in ranges)
    length = networks[0].max_prefixlen // 8
    edges: list[tuple[int, bool]] = []
    for network in networks:
        first, behind = int(network.network_address), int(network.broadcast_address) + 1
        if edges and first <= edges[-1][0]:
            edges[-1] = (max(behind, edges[-1][0]), True)
        else:
            edges += [(first, False), (behind, True)]
    if edges[0][0]:
        edges.insert(0, (0, True))
    return [(edge.to_bytes(length, "big"), end) for edge, end in edges if edge < 1 << 8 * length]


def _field(value: str) -> bytes:
    if value in PROTOCOLS:
        return bytes([PROTOCOLS[value]])
    return int(value).to_bytes(2, "big") if value.isdecimal() else ex.address(value)


def _numbered(index: int, data: bytes) -> bytes:
    return nested(1, ex.value(1, struct.pack("=I", index)), data)


def _comment(kind: int, comment: str) -> bytes:
    if not comment:
        return b""
    encoded = comment.encode() + b"\0"
    return attribute(kind, bytes([_COMMENT, len(encoded)]) + encoded)


def _in_lists(elements: Sequence[bytes]) -> list[Sequence[bytes]]:
    """As many at once as one attribute holds."""
    lists: list[Sequence[bytes]] = []
    first, size = 0, 0
    for index, item in enumerate(elements):
        if size + len(item) > _LARGEST_LIST:
            lists.append(elements[first:index])
            first, size = index, 0
        size += len(item)
    return [*lists, elements[first:]] if elements else []
