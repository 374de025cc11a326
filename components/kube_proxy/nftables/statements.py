"""What a transaction says, as data. text() writes it for `nft -f`; another applier may take the
same objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from kubewire.components.kube_proxy.nftables import chains
from kubewire.components.kube_proxy.nftables.expressions import Expression, Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    expressions: tuple[Expression, ...]
    comment: str = ""

    def text(self, ip: str) -> str:
        comment = f' comment "{self.comment}"' if self.comment else ""
        return " ".join(expression.text(ip) for expression in self.expressions) + comment


@dataclass(frozen=True, slots=True)
class Element:
    """Of a set; of a map when it has a verdict."""

    container: str
    key: tuple[str, ...]
    verdict: Verdict | None = None
    comment: str = ""

    def text(self, ip: str) -> str:
        comment = f' comment "{self.comment}"' if self.comment else ""
        return f"{self.name}{comment}" + (f" : {self.verdict.text(ip)}" if self.verdict else "")

    @property
    def name(self) -> str:
        return " . ".join(self.key)


@dataclass(frozen=True, slots=True)
class AddTable:
    comment: str = ""


@dataclass(frozen=True, slots=True)
class DeleteTable:
    pass


@dataclass(frozen=True, slots=True)
class AddChain:
    """No error when it is there. hook: for a base chain."""

    name: str
    comment: str = ""
    hook: chains.Hook | None = None


@dataclass(frozen=True, slots=True)
class FlushChain:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteChain:
    name: str


@dataclass(frozen=True, slots=True)
class AddRule:
    chain: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class AddContainer:
    """A set or map; no error when the same one is there."""

    container: chains.Container


@dataclass(frozen=True, slots=True)
class AddAffinitySet:
    """Addresses that rules put in, each for timeout seconds after its last packet."""

    name: str
    timeout: int


@dataclass(frozen=True, slots=True)
class FlushContainer:
    container: chains.Container


@dataclass(frozen=True, slots=True)
class DeleteSet:
    name: str


@dataclass(frozen=True, slots=True)
class AddElement:
    element: Element


@dataclass(frozen=True, slots=True)
class DeleteElement:
    element: Element


Statement = (
    AddTable
    | DeleteTable
    | AddChain
    | FlushChain
    | DeleteChain
    | AddRule
    | AddContainer
    | AddAffinitySet
    | FlushContainer
    | DeleteSet
    | AddElement
    | DeleteElement
)


def text(statements: Iterable[Statement], ip: str) -> str:
    """Input for `nft -f`, one transaction; ip is the table's family, "ip" or "ip6"."""
    return "".join(f"{line}\n" for line in _lines(statements, ip))


def _lines(statements: Iterable[Statement], ip: str) -> Iterator[str]:
    for key, group in groupby(statements, _together):
        if key is None:
            yield from (_line(statement, ip) for statement in group)
        else:
            # A command per element costs a fifth more of nft's time than one with a list.
            verb, container = key
            elements = ",\n\t".join(_element(statement, ip) for statement in group)
            yield f"{verb} element {ip} {chains.TABLE} {container} {{\n\t{elements}\n}}"


def _together(statement: Statement) -> tuple[str, str] | None:
    if isinstance(statement, AddElement):
        return "add", statement.element.container
    return ("delete", statement.element.container) if isinstance(statement, DeleteElement) else None


def _element(statement: Statement, ip: str) -> str:
    if isinstance(statement, AddElement):
        return statement.element.text(ip)
    assert isinstance(statement, DeleteElement)
    return statement.element.name


def _line(statement: Statement, ip: str) -> str:
    table = f"{ip} {chains.TABLE}"
    address = "ipv6_addr" if ip == "ip6" else "ipv4_addr"
    match statement:
        case AddTable(comment):
            return f"add table {table}" + (f' {{ comment "{comment}" ; }}' if comment else "")
        case DeleteTable():
            return f"delete table {table}"
        case AddChain(name, comment, None):
            return f"add chain {table} {name}" + (
                f' {{ comment "{comment}" ; }}' if comment else ""
            )
        case AddChain(name, _, (_, kind, hook, priority)):
            return f"add chain {table} {name} {{ type {kind} hook {hook} priority {priority} ; }}"
        case FlushChain(name):
            return f"flush chain {table} {name}"
        case DeleteChain(name):
            return f"delete chain {table} {name}"
        case AddRule(chain, rule):
            return f"add rule {table} {chain} {rule.text(ip)}"
        case AddContainer((name, kind, comment, verdicts)):
            what, to = ("map", " : verdict") if verdicts else ("set", "")
            kind = kind.replace("ADDR", address)
            return f'add {what} {table} {name} {{ type {kind}{to} ; comment "{comment}" ; }}'
        case AddAffinitySet(name, timeout):
            return f"add set {table} {name} {{ type {address} ; flags dynamic,timeout ; timeout {timeout}s ; }}"
        case FlushContainer((name, _, _, verdicts)):
            return f"flush {'map' if verdicts else 'set'} {table} {name}"
        case DeleteSet(name):
            return f"delete set {table} {name}"
    raise TypeError(statement)
