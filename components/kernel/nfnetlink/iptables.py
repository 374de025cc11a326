"""iptables-restore's language -> netlink messages, as iptables-nft sends them. Pure.

iptables-nft-restore reads all chains back before each change and keeps them sorted: a first load of 5,000 Services
takes tens of seconds, a change tenths. Here a line becomes a message and nothing is read. A line that is not
understood raises Unsupported: then the tool is the way. Only for iptables' nf_tables variant, of course.

Understood: `:CHAIN - [0:0]` (made, or emptied), `-A`, `-X`, on chains that are not built in. split() takes the others
out.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink import xtables
from kubewire.components.kernel.nfnetlink.netlink import NLM_F_APPEND, NLM_F_CREATE, Message, nested, number, text
from kubewire.components.kernel.nfnetlink.tables import NFPROTO, PROTOCOLS

_NEW_TABLE, _NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE = 0, 3, 5, 6, 8
BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_WORDS = re.compile(r'"([^"]*)"|(\S+)')
_ADDRESSES = {"ip": {"-s": (12, 4), "-d": (16, 4)}, "ip6": {"-s": (8, 16), "-d": (24, 16)}}
_COMPAT_INVERTED = 1


class Unsupported(Exception):
    """A line this compiler does not know."""


def split(text: str) -> tuple[dict[str, list[str]], str]:
    """Restore input -> the lines of each table that messages can say, and restore input of what remains: rules of
    built-in chains, which are the tool's to make. Those lead to chains of the first part, so they come second; where
    some are taken away first, all is the tool's: raises Unsupported with the line."""
    tables: dict[str, list[str]] = {}
    rest: dict[str, list[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
            tables.setdefault(table, [])
        elif line and line != "COMMIT" and not line.startswith("#"):
            built_in = line.split(" ", 2)[1] in BUILT_IN if line.startswith("-") else line[1:].split()[0] in BUILT_IN
            if built_in and not line.startswith(("-I ", "-A ")):
                raise Unsupported(line)
            (rest if built_in else tables).setdefault(table, []).append(line)
    left = "".join(f"*{name}\n" + "\n".join(lines) + "\nCOMMIT\n" for name, lines in rest.items())
    return tables, left


def compile_table(family: str, table: str, lines: Iterable[str]) -> Iterator[Message]:
    """The lines of one table of a restore --noflush, without `*table` and COMMIT; the table is made if need be.
    Raises Unsupported with the line."""
    yield Message(_NEW_TABLE, NLM_F_CREATE, NFPROTO[family], _table(table), f"*{table}")
    for line in lines:
        yield from _line(family, table, line)


def _line(family: str, table: str, line: str) -> list[Message]:
    if line.startswith(":"):
        chain = line[1:].partition(" ")[0]
        if chain in BUILT_IN:
            raise Unsupported(line)
        return [
            Message(_NEW_CHAIN, NLM_F_CREATE, NFPROTO[family], _table(table) + text(3, chain), line),
            Message(_DELETE_RULE, 0, NFPROTO[family], _table(table) + text(2, chain), line),
        ]
    verb, chain, *rest = _words(line)
    if chain in BUILT_IN:
        raise Unsupported(line)
    if verb == "-X":
        return [Message(_DELETE_CHAIN, 0, NFPROTO[family], _table(table) + text(3, chain), line)]
    if verb != "-A":
        raise Unsupported(line)
    rule = _Rule(family, line)
    rule.read(rest)
    payload = b"".join((_table(table), _rule_chain(chain), *rule.attributes()))
    return [Message(_NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, NFPROTO[family], payload, line)]


@lru_cache(maxsize=256)
def _rule_chain(name: str) -> bytes:
    return text(2, name)


@lru_cache(maxsize=16)
def _table(name: str) -> bytes:
    return text(1, name)


def _words(line: str) -> list[str]:
    return [quoted or plain for quoted, plain in _WORDS.findall(line)]


@dataclass
class _Match:
    """An extension and its options; `!` before one of them."""

    name: str
    options: dict[str, str] = field(default_factory=dict)
    inverted: bool = False


class _Rule:
    """One rule while it is read. iptables-nft's order: interfaces, protocol, source, destination, then the matches
    in the order of their -m, counters, target."""

    def __init__(self, family: str, line: str) -> None:
        self._family, self._line = family, line
        self._interfaces: list[bytes] = []
        self._protocol = ""
        self._source: list[bytes] = []
        self._destination: list[bytes] = []
        self._matches: list[_Match] = []
        self._target = ""
        self._target_options: dict[str, str] = {}

    def read(self, words: list[str]) -> None:
        invert, position = False, 0
        while position < len(words):
            word = words[position]
            if word == "!":
                invert, position = True, position + 1
                continue
            if word == "-m":
                self._matches.append(_Match(words[position + 1]))
            elif word == "-j":
                self._target = words[position + 1]
                self._read_target(words[position + 2 :])
                return
            elif word.startswith("--"):
                position += self._option(word, words[position + 1 : position + 2], inverted=invert)
            else:
                self._base(word, words[position + 1], inverted=invert)
            invert, position = False, position + 2

    def _option(self, name: str, value: list[str], *, inverted: bool) -> int:
        """0, or -1 when the option stands without a value."""
        owners = [match for match in self._matches if name != "--dport" or match.name == self._protocol]
        alone = name in ("--rcheck", "--set", "--reap")
        if not owners or not (alone or value):
            raise Unsupported(self._line)
        owners[-1].options[name] = "" if alone else value[0]
        owners[-1].inverted |= inverted
        return -1 if alone else 0

    def _base(self, flag: str, value: str, *, inverted: bool) -> None:
        operator = ex.NOT_EQUAL if inverted else ex.EQUAL
        match flag:
            case "-p" if value in PROTOCOLS and not inverted:
                self._protocol = value
            case "-s":
                self._source = _address(self._family, "-s", value, operator)
            case "-d":
                self._destination = _address(self._family, "-d", value, operator)
            case "-i":
                self._interfaces += _interface(ex.META_IIFNAME, value, operator)
            case "-o":
                self._interfaces += _interface(ex.META_OIFNAME, value, operator)
            case _:
                raise Unsupported(self._line)

    def _read_target(self, words: list[str]) -> None:
        while words:
            if words[0] == "--random-fully":
                self._target_options[words.pop(0)] = ""
            elif len(words) > 1:
                self._target_options[words[0]] = words[1]
                words = words[2:]
            else:
                raise Unsupported(self._line)

    def attributes(self) -> list[bytes]:
        parts = list(self._interfaces)
        if self._protocol:
            parts += [ex.meta(ex.META_L4PROTO), ex.compare(bytes([PROTOCOLS[self._protocol]]))]
        parts += self._source + self._destination
        for match in self._matches:
            parts += self._match(match)
        parts.append(ex.counter())
        if self._target:
            parts.append(self._verdict())
        compat = _compatible(self._protocol) if self._protocol else b""
        return [nested(4, *parts), compat]

    def _match(self, extension: _Match) -> list[bytes]:
        name, inverted = extension.name, extension.inverted
        match name, extension.options:
            case "comment", {"--comment": value}:
                return [xtables.comment(value)]
            case "tcp" | "udp", {"--dport": port}:
                return [ex.payload(ex.TRANSPORT_HEADER, 2, 2), ex.compare(int(port).to_bytes(2, "big"))]
            case "sctp", {"--dport": port}:
                return [xtables.sctp_destination(int(port))]
            case "tcp" | "udp" | "sctp", {**nothing} if not nothing:
                return [xtables.any_ports(name)]
            case "addrtype", {"--dst-type": "LOCAL"}:
                return [xtables.address_type("dst", inverted=inverted)]
            case "addrtype", {"--src-type": "LOCAL"}:
                return [xtables.address_type("src", inverted=inverted)]
            case "statistic", {"--mode": "random", "--probability": value}:
                return [xtables.statistic_random(float(value))]
            case "recent", {"--name": table, "--rcheck": _, "--seconds": seconds, "--reap": _}:
                return [xtables.recent(table, seconds=int(seconds))]
            case "recent", {"--name": table, "--set": _}:
                return [xtables.recent(table, update=True)]
            case "conntrack", {"--ctstate": states}:
                return [xtables.connection_state(states, inverted=inverted)]
            case "mark", {"--mark": value}:
                number_, _, mask = value.partition("/")
                return _mark(int(number_, 0), int(mask or "0xffffffff", 0), inverted=inverted)
        raise Unsupported(self._line)

    def _verdict(self) -> bytes:
        if "-" in self._target and not self._target_options:  # no extension of iptables has one in its name
            return ex.immediate_verdict("jump", self._target)
        match self._target, self._target_options:
            case "ACCEPT" | "DROP" | "RETURN" as name, {**rest} if not rest:
                return ex.immediate_verdict(name.lower())
            case "REJECT", {**rest} if not rest:
                return xtables.reject(self._family)
            case "MARK", {"--or-mark": value}:
                return xtables.set_mark(int(value, 0), int(value, 0))
            case "MARK", {"--xor-mark": value}:
                return xtables.set_mark(int(value, 0), 0)
            case "DNAT", {"--to-destination": where}:
                address, _, port = where.rpartition(":")
                return xtables.dnat(address.strip("[]"), int(port))
            case "MASQUERADE", options:
                return xtables.masquerade(self._family, random_fully="--random-fully" in options)
        raise Unsupported(self._line)


@lru_cache(maxsize=8)
def _compatible(protocol: str) -> bytes:
    """Extensions of a protocol want to know that the rule is for that protocol."""
    return nested(5, number(1, PROTOCOLS[protocol]), number(2, 0))


@lru_cache(maxsize=1024)
def _prefix(value: str) -> tuple[bytes, int]:
    network = ipaddress.ip_network(value)
    return network.network_address.packed, network.prefixlen


def _address(family: str, flag: str, value: str, operator: int) -> list[bytes]:
    offset, size = _ADDRESSES[family][flag]
    if "/" not in value:
        packed = socket.inet_pton(NFPROTO[family], value)
        return [ex.payload(ex.NETWORK_HEADER, offset, size), ex.compare(packed, operator)]
    packed, length = _prefix(value)
    octets, bits = divmod(length, 8)
    if not bits and octets:
        return [ex.payload(ex.NETWORK_HEADER, offset, octets), ex.compare(packed[:octets], operator)]
    mask = ((1 << 8 * size) - (1 << 8 * size - length)).to_bytes(size, "big")
    return [ex.payload(ex.NETWORK_HEADER, offset, size), ex.bitwise(mask, bytes(size)), ex.compare(packed, operator)]


def _mark(value: int, mask: int, *, inverted: bool) -> list[bytes]:
    operator = ex.NOT_EQUAL if inverted else ex.EQUAL
    masked = [ex.bitwise(struct.pack("=I", mask), bytes(4))] if mask != 0xFFFFFFFF else []
    return [ex.meta(ex.META_MARK), *masked, ex.compare(struct.pack("=I", value), operator)]


def _interface(key: int, name: str, operator: int) -> list[bytes]:
    wanted = name[:-1].encode() if name.endswith("+") else name.encode() + b"\0"
    return [ex.meta(key), ex.compare(wanted, operator)]
