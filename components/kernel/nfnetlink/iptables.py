"""A change of iptables' tables as values: iptables-restore's input, or the messages iptables-nft
would send. Pure.

iptables-nft-restore reads all chains back before each change and keeps them sorted: a first load of
5,000 Services takes tens of seconds, a change tenths. Messages read nothing. They are only for
iptables' nf_tables variant, and not for chains that are built in: the tool makes those with their
hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from kubewire.components.kernel.nfnetlink.netlink import NLM_F_APPEND, NLM_F_CREATE, Message, text
from kubewire.components.kernel.nfnetlink.tables import NFPROTO
from kubewire.components.kernel.nfnetlink.xtables import Rule

_NEW_TABLE, _NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE = 0, 3, 5, 6, 8


class Append(NamedTuple):
    """A rule at the end of a chain."""

    chain: str
    rule: Rule

    def __str__(self) -> str:
        return f"-A {self.chain} {self.rule}"


@dataclass(frozen=True)
class TableChange:
    """One transaction of iptables-restore --noflush, in this order. chains: are made, or emptied if
    they are there; first: rules for the heads of built-in chains, each before those that come
    earlier in the sequence; rules; deleted: chains that nothing leads to any more."""

    table: str
    chains: Sequence[str] = ()
    first: Sequence[Append] = ()
    rules: Sequence[Append] = ()
    deleted: Sequence[str] = ()

    def text(self) -> str:
        """Input of iptables-restore."""
        lines = [f"*{self.table}"]
        lines += [f":{chain} - [0:0]" for chain in self.chains]
        lines += [f"-I {chain} 1 {rule.text()}" for chain, rule in self.first]
        lines += [f"-A {chain} {rule.text()}" for chain, rule in self.rules]
        lines += [f"-X {chain}" for chain in self.deleted]
        return "\n".join((*lines, "COMMIT\n"))

    def messages(self, ip: str) -> Iterator[Message]:
        """All but `first`, for "ip" or "ip6"; the table is made if need be. Raises Unsupported."""
        table, protocol = text(1, self.table), NFPROTO[ip]
        yield Message(_NEW_TABLE, NLM_F_CREATE, protocol, table, f"*{self.table}")
        for chain in self.chains:
            yield Message(_NEW_CHAIN, NLM_F_CREATE, protocol, table + text(3, chain), f":{chain}")
            yield Message(_DELETE_RULE, 0, protocol, table + text(2, chain), f":{chain}")
        for append in self.rules:
            payload = table + _chain_of_rule(append.chain) + append.rule.attributes(ip)
            yield Message(_NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, protocol, payload, append)
        for chain in self.deleted:
            yield Message(_DELETE_CHAIN, 0, protocol, table + text(3, chain), f"-X {chain}")

    def for_the_tool(self) -> TableChange:
        """What the messages leave: jumps from built-in chains. They lead to chains of the messages,
        so they come second."""
        return TableChange(self.table, first=self.first)

    def __bool__(self) -> bool:
        return bool(self.chains or self.first or self.rules or self.deleted)


@lru_cache(maxsize=256)
def _chain_of_rule(name: str) -> bytes:
    return text(2, name)


def restore_input(changes: Iterable[TableChange]) -> str:
    """For iptables-restore --noflush; "" when there is nothing to do."""
    return "".join(change.text() for change in changes if change)
