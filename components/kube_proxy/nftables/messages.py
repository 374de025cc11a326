"""Statements -> netlink messages, for those that change all the time; nft is for the rest. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink.netlink import Message
from kubewire.components.kernel.nfnetlink.tables import NFPROTO, PROTOCOLS, Table, element, key
from kubewire.components.kube_proxy.nftables import chains
from kubewire.components.kube_proxy.nftables.expressions import (
    Dnat,
    DnatRandom,
    Drop,
    Expression,
    FromThisNode,
    Goto,
    GotoRandom,
    InSet,
    LocalPod,
    Mark,
    Remember,
    Source,
    Verdict,
)
from kubewire.components.kube_proxy.nftables.statements import (
    AddAffinitySet,
    AddChain,
    AddElement,
    AddRule,
    DeleteChain,
    DeleteElement,
    DeleteSet,
    Element,
    FlushChain,
    Rule,
    Statement,
)

_ALL_BITS = 0xFFFFFFFF
_LOCAL = struct.pack("=I", 2)  # RTN_LOCAL


class Unencodable(Exception):
    """A statement or expression that is left to nft."""


class Encoder:
    """One family's table, all its life: anonymous maps are numbered."""

    def __init__(self, ip: str) -> None:
        self._ip, self._protocol = ip, NFPROTO[ip]
        self._table = Table(ip, chains.TABLE)
        self._saddr = ex.payload(ex.NETWORK_HEADER, *ex.HEADER[ip]["saddr"])

    def messages(self, statements: Iterable[Statement]) -> list[Message]:
        """In the same order. Raises Unencodable with the first statement that is for nft."""
        found: list[Message] = []
        for container, group in groupby(statements, _container):
            together = list(group)
            if container:
                found += self._elements(container, together)
            else:
                for statement in together:
                    found += self.encode(statement)
        return found

    def encode(self, statement: Statement) -> Sequence[Message]:
        """Raises Unencodable."""
        table = self._table
        match statement:
            case AddChain(name, comment, None):
                return (table.add_chain(name, comment, statement),)
            case FlushChain(name):
                return (table.flush_chain(name, statement),)
            case DeleteChain(name):
                return (table.delete_chain(name, statement),)
            case AddRule(chain, rule):
                return self._rule(chain, rule, statement)
            case AddAffinitySet(name, timeout):
                return (table.add_affinity_set(name, timeout, statement),)
            case DeleteSet(name):
                return (table.delete_set(name, statement),)
            case AddElement(item) | DeleteElement(item):
                return self._elements(
                    (isinstance(statement, AddElement), item.container), [statement]
                )
        raise Unencodable(statement)

    def _elements(
        self, container: tuple[bool, str], statements: Sequence[Statement]
    ) -> Sequence[Message]:
        add, name = container
        items = [_item(statement) for statement in statements]
        if add:
            return self._table.add_elements(name, [_element(item) for item in items], statements[0])
        return self._table.delete_elements(
            name, [element(key(item.key)) for item in items], statements[0]
        )

    def _rule(self, chain: str, rule: Rule, statement: Statement) -> Sequence[Message]:
        before: list[Message] = []
        parts: list[bytes] = []
        for expression in rule.expressions:
            parts += self._expression(expression, before, statement)
        return (*before, self._table.add_rule(chain, parts, rule.comment, statement))

    def _expression(
        self, expression: Expression, before: list[Message], statement: Statement
    ) -> Iterator[bytes]:
        """before takes the anonymous map that it needs."""
        match expression:
            case Dnat(protocol, ip, port):
                yield from _l4proto(protocol)
                yield ex.immediate(ex.address(ip), ex.REGISTER_1)
                yield ex.immediate(port.to_bytes(2, "big"), ex.REGISTER_2)
                yield ex.dnat(self._protocol, with_port=True)
            case DnatRandom(protocol, endpoints):
                maps, lookup = self._table.endpoint_map(
                    [(ex.address(ip), port) for ip, port in endpoints], statement
                )
                before += maps
                yield from (*_l4proto(protocol), ex.numgen_random(len(endpoints)), lookup)
                yield ex.dnat_from_map(self._protocol)
            case GotoRandom(targets):
                maps, lookup = self._table.verdict_map(
                    [("goto", target) for target in targets], statement
                )
                before += maps
                yield from (ex.numgen_random(len(targets)), lookup)
            case InSet(name):
                yield from (self._saddr, ex.lookup(name))
            case Remember(name):
                yield from (self._saddr, ex.dynset_update(name))
            case Mark(value):
                kept = struct.pack("=I", _ALL_BITS & ~value)
                yield from (ex.meta(ex.META_MARK), ex.bitwise(kept, struct.pack("=I", value)))
                yield ex.meta_set(ex.META_MARK)
            case FromThisNode():
                yield from (ex.fib_address_type(ex.FIB_SADDR), ex.compare(_LOCAL))
            case LocalPod(cidr, interface, prefix, negated):
                operator = _operator(negated)
                yield (
                    ex.network(self._ip, "saddr", cidr, operator)
                    if cidr
                    else _interface(interface, prefix, operator)
                )
            case Source((cidr,), negated):
                yield ex.network(self._ip, "saddr", cidr, _operator(negated))
            case Source(ranges, negated):
                sets, lookup = self._table.range_set(ranges, statement, inverted=negated)
                before += sets
                yield from (self._saddr, lookup)
            case Goto() | Drop():
                yield ex.immediate_verdict(*_verdict(expression))
            case _:
                raise Unencodable(expression)


def _operator(negated: bool) -> int:
    return ex.NOT_EQUAL if negated else ex.EQUAL


def _container(statement: Statement) -> tuple[bool, str] | None:
    """Neighbouring elements of one container go together."""
    if isinstance(statement, AddElement | DeleteElement):
        return isinstance(statement, AddElement), statement.element.container
    return None


def _item(statement: Statement) -> Element:
    assert isinstance(statement, AddElement | DeleteElement)
    return statement.element


def _element(item: Element) -> bytes:
    return element(key(item.key), _verdict(item.verdict) if item.verdict else None, item.comment)


def _verdict(verdict: Verdict) -> tuple[str, str]:
    return ("goto", verdict.chain) if isinstance(verdict, Goto) else ("drop", "")


def _l4proto(protocol: str) -> tuple[bytes, bytes]:
    return ex.meta(ex.META_L4PROTO), ex.compare(bytes([PROTOCOLS[protocol]]))


def _interface(name: str, prefix: str, operator: int) -> bytes:
    wanted = name.encode().ljust(16, b"\0") if name else prefix.encode()
    return ex.meta(ex.META_IIFNAME) + ex.compare(wanted, operator)
