"""nft's language -> netlink messages, for the part of it that changes all the time.

`nft -f` reads back all chains before each change, and the kernel looks through all anonymous sets to name a new
one: with 5,000 Services a change takes tenths of a second, a first load tens of seconds. Here a command becomes a
message and nothing is read. What is not understood raises Unsupported: then nft itself is the way. Pure.

Understood: add, flush and delete of regular chains; add rule; add and delete of elements of sets and maps whose
key types are given.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from components.machinery.nfnetlink import expressions as ex
from components.machinery.nfnetlink.netlink import (
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
_NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE, _NEW_SET, _NEW_ELEMENT, _DELETE_ELEMENT = 3, 5, 6, 8, 9, 12, 14
_ANONYMOUS_CONSTANT_MAP = 0x1 | 0x2 | 0x8
_VERDICT_DATA = 0xFFFFFF00
_INTEGER_TYPE = 4
#: What nft notes for itself about a map of numbers in host byte order, so that it can print the keys.
_HOST_ORDER_MAP = bytes.fromhex("00040100000001040000000004080004010000000100060400000000")
#: nft's own notes are type, length, value; of rules, elements and chains alike type 0 is the comment.
_COMMENT = 0
_IPV4_ADDRESSES = {"saddr": (12, 4), "daddr": (16, 4)}
_IPV6_ADDRESSES = {"saddr": (8, 16), "daddr": (24, 16)}
_DESTINATION_PORT = ex.payload(ex.TRANSPORT_HEADER, 2, 2)


class Unsupported(Exception):
    """A command this compiler does not know."""


class NftCompiler:
    """Commands on one table. set_types has the key types of its sets and maps, as nft writes them:
    {"service-ips": "ipv4_addr . inet_proto . inet_service"}. Anonymous maps get names of their own (nft's
    `__map%d` makes the kernel look for a free number), so one compiler serves a table for all its life."""

    def __init__(self, family: str, table: str, set_types: Mapping[str, str]) -> None:
        self._family, self._protocol = family, NFPROTO[family]
        self._prefix = (family, table)
        self._table = text(1, table)
        self._set_types = {name: tuple(kinds.split(" . ")) for name, kinds in set_types.items()}
        self._numbers = itertools.count(1)
        self._generation = 0

    def compile(self, commands: Iterable[str], generation: int = 0) -> list[Message]:
        """Raises Unsupported with the command. generation keeps the names of anonymous maps apart from those of an
        earlier process."""
        self._generation = generation
        return [message for command in commands for message in self._command(command.strip())]

    def _command(self, command: str) -> list[Message]:
        words = command.split(None, 5)
        if len(words) < 5 or (words[2], words[3]) != self._prefix:
            raise Unsupported(command)
        verb, kind, name, rest = words[0], words[1], words[4], words[5] if len(words) > 5 else ""
        match verb, kind:
            case "add", "chain":
                return [self._message(command, _NEW_CHAIN, text(3, name), _chain_userdata(rest, command))]
            case "flush", "chain":
                return [self._message(command, _DELETE_RULE, text(2, name), flags=0)]
            case "delete", "chain":
                return [self._message(command, _DELETE_CHAIN, text(3, name), flags=0)]
            case "add", "rule":
                return self._rule(command, name, rest)
            case "add", "element":
                return [self._elements(command, _NEW_ELEMENT, name, rest, NLM_F_CREATE)]
            case "delete", "element":
                return [self._elements(command, _DELETE_ELEMENT, name, rest, 0)]
        raise Unsupported(command)

    def _message(self, command: str, kind: int, *parts: bytes, flags: int = NLM_F_CREATE) -> Message:
        return Message(kind, flags, self._protocol, b"".join((self._table, *parts)), command)

    def _rule(self, command: str, chain: str, body: str) -> list[Message]:
        body, comment = _split_comment(body)
        before, brace, after = body.partition(" vmap {")
        if brace:
            messages, last = self._anonymous_map(command, after)
            parts = [*self._statements(before.split(), command), last]
        else:
            messages, parts = [], self._statements(body.split(), command)
        userdata = _comment(7, comment)
        rule = self._message(
            command, _NEW_RULE, text(2, chain), nested(4, *parts), userdata, flags=NLM_F_CREATE | NLM_F_APPEND
        )
        return [*messages, rule]

    def _statements(self, words: Sequence[str], command: str) -> list[bytes]:
        parts: list[bytes] = []
        rest = list(words)
        while rest:
            taken, encoded = self._statement(rest, command)
            parts += encoded
            del rest[:taken]
        return parts

    def _statement(self, words: list[str], command: str) -> tuple[int, list[bytes]]:
        """How many words the first statement has, and its expressions."""
        match words:
            case ["ip" | "ip6" as family, "saddr" | "daddr" as field, "!=", value, *_] if family == self._family:
                return 4, self._address(field, value, ex.NOT_EQUAL)
            case ["ip" | "ip6" as family, "saddr" | "daddr" as field, value, *_] if family == self._family:
                return 3, self._address(field, value, ex.EQUAL)
            case ["tcp" | "udp" | "sctp" as protocol, "dport", port, *_] if port.isdecimal():
                return 3, [*_l4proto(protocol), _DESTINATION_PORT, ex.compare(int(port).to_bytes(2, "big"))]
            case ["meta", "l4proto", "tcp" | "udp" | "sctp" as protocol, *_]:
                return 3, [*_l4proto(protocol)]
            case ["fib", "saddr" | "daddr" as field, "type", "local", *_]:
                flags = ex.FIB_SADDR if field == "saddr" else ex.FIB_DADDR
                return 4, [ex.fib_address_type(flags), ex.compare(struct.pack("=I", 2))]
            case ["numgen", "random", "mod", modulus]:
                return 4, [ex.numgen_random(int(modulus))]
            case ["update", name, "{", "ip" | "ip6", "saddr" as field, "}", *_] if name.startswith("@"):
                return 6, [self._load(field), ex.dynset_update(name[1:])]
            case ["dnat", "to", target]:
                return 3, self._dnat(target)
            case ["jump" | "goto" as name, chain]:
                return 2, [ex.immediate_verdict(name, chain)]
            case ["drop" | "accept" | "return" as name]:
                return 1, [ex.immediate_verdict(name)]
        raise Unsupported(command)

    def _load(self, field: str) -> bytes:
        offset, length = (_IPV4_ADDRESSES if self._family == "ip" else _IPV6_ADDRESSES)[field]
        return ex.payload(ex.NETWORK_HEADER, offset, length)

    def _address(self, field: str, value: str, operator: int) -> list[bytes]:
        if value.startswith("@"):
            return [self._load(field), ex.lookup(value[1:], inverted=operator == ex.NOT_EQUAL)]
        if value.startswith("{"):
            raise Unsupported(value)
        if "/" not in value:
            return [self._load(field), ex.compare(_packed(value), operator)]
        network = ipaddress.ip_network(value)
        offset, _ = (_IPV4_ADDRESSES if self._family == "ip" else _IPV6_ADDRESSES)[field]
        octets, bits = divmod(network.prefixlen, 8)
        if bits or not octets:
            masked = ex.bitwise(network.netmask.packed, bytes(len(network.netmask.packed)))
            return [self._load(field), masked, ex.compare(network.network_address.packed, operator)]
        return [
            ex.payload(ex.NETWORK_HEADER, offset, octets),
            ex.compare(network.network_address.packed[:octets], operator),
        ]

    def _dnat(self, target: str) -> list[bytes]:
        found = re.fullmatch(r"\[?([0-9a-f.:]+?)\]?:(\d+)", target)
        if not found:
            raise Unsupported(target)
        port = int(found[2]).to_bytes(2, "big")
        return [
            ex.immediate(_packed(found[1]), ex.REGISTER_1),
            ex.immediate(port, ex.REGISTER_2),
            ex.dnat(self._protocol, with_port=True),
        ]

    def _anonymous_map(self, command: str, after: str) -> tuple[list[Message], bytes]:
        """`0 : goto a , 1 : goto b }` of `numgen ... vmap {`."""
        inside, brace, rest = after.rpartition("}")
        if not brace or rest.strip():
            raise Unsupported(command)
        entries = [_numbered_verdict(entry.split(), command) for entry in inside.split(",")]
        serial = next(self._numbers)
        name = f"__map{self._generation}x{serial}"
        declaration = self._message(
            command,
            _NEW_SET,
            text(2, name),
            number(3, _ANONYMOUS_CONSTANT_MAP),
            number(4, _INTEGER_TYPE),
            number(5, 4),
            number(6, _VERDICT_DATA),
            number(10, serial),
            nested(9, number(1, len(entries))),
            attribute(13, _HOST_ORDER_MAP),
        )
        elements = self._message(command, _NEW_ELEMENT, text(2, name), number(4, serial), nested(3, *entries))
        return [declaration, elements], ex.lookup(name, set_id=serial, verdict_map=True)

    def _elements(self, command: str, kind: int, name: str, rest: str, flags: int) -> Message:
        if name not in self._set_types or not (rest.startswith("{") and rest.endswith("}")):
            raise Unsupported(command)
        element = self._element(rest[1:-1].strip(), self._set_types[name], command, key_only=kind == _DELETE_ELEMENT)
        return self._message(command, kind, text(2, name), nested(3, element), flags=flags)

    def _element(self, body: str, kinds: tuple[str, ...], command: str, *, key_only: bool) -> bytes:
        """`10.96.0.1 . tcp . 80 comment "ns/svc" : goto chain`, in a nested attribute."""
        found = re.fullmatch(r'([^"]*?)(?: comment "([^"]*)")?(?: : ([a-z]+)(?: (\S+))?)?', body)
        if not found:
            raise Unsupported(command)
        key, comment, verdict, chain = found.groups()
        fields = key.split(" . ")
        if len(fields) != len(kinds) or (verdict and verdict not in ex.VERDICTS):
            raise Unsupported(command)
        packed = _key(fields, kinds, command)
        data = ex.verdict(2, verdict, chain or "") if verdict and not key_only else b""
        return nested(1, ex.value(1, packed), data, b"" if key_only else _comment(6, comment or ""))


@lru_cache(maxsize=8)
def _l4proto(protocol: str) -> tuple[bytes, bytes]:
    return ex.meta(ex.META_L4PROTO), ex.compare(bytes([PROTOCOLS[protocol]]))


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _key(values: Sequence[str], kinds: Sequence[str], command: str) -> bytes:
    """A key of one field as it is; the fields of a concatenation are padded to four bytes each."""
    fields = [_field(value.strip(), kind, command) for value, kind in zip(values, kinds, strict=True)]
    return fields[0] if len(fields) == 1 else b"".join(field + bytes(-len(field) % 4) for field in fields)


def _field(value: str, kind: str, command: str) -> bytes:
    match kind:
        case "ipv4_addr" | "ipv6_addr" if "," not in value:
            return _packed(value)
        case "inet_proto" if value in PROTOCOLS:
            return bytes([PROTOCOLS[value]])
        case "inet_service" if value.isdecimal():
            return int(value).to_bytes(2, "big")
    raise Unsupported(command)


def _numbered_verdict(words: Sequence[str], command: str) -> bytes:
    match words:
        case [index, ":", "goto" | "jump" as name, chain] if index.isdecimal():
            return nested(1, ex.value(1, struct.pack("=I", int(index))), ex.verdict(2, name, chain))
    raise Unsupported(command)


def _split_comment(body: str) -> tuple[str, str]:
    found = re.fullmatch(r'(.*?)\s*comment "([^"]*)"', body)
    return (found[1], found[2]) if found else (body, "")


def _comment(kind: int, comment: str) -> bytes:
    if not comment:
        return b""
    encoded = comment.encode() + b"\0"
    return attribute(kind, bytes([_COMMENT, len(encoded)]) + encoded)


def _chain_userdata(rest: str, command: str) -> bytes:
    if not rest:
        return b""
    found = re.fullmatch(r'\{ comment "([^"]*)" ; \}', rest)
    if not found:  # a base chain
        raise Unsupported(command)
    return _comment(12, found[1])
