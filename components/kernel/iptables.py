"""Chains of ours in iptables, and the rules in other chains that lead to them.

An agent states both as values. A rule is a value too (nfnetlink/xtables.py), with its matches in
the order in which iptables-save prints them, or that text (without `-A CHAIN`). `ensure` saves what
is there, and restores in one transaction for each table what differs: one chain as a whole, one
missing rule alone. When nothing differs, nothing is written, so it can be called as often as one
likes, and never makes a rule twice.

Rules in a chain that is not ours stand among those of other programs. They are appended, or put at
the head in their order; where they stand afterwards is not looked at, or two agents would push each
other away for ever.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kubewire.components.kernel import command
from kubewire.components.kernel.nfnetlink.netlink import NfTablesSocket
from kubewire.components.kernel.nfnetlink.xtables import Rule

_SECONDS = 30
#: To wait for the lock of iptables-legacy (`--wait`).
_LOCK_SECONDS = "5"
#: An address after -s or -d that has no prefix length.
_ADDRESS = re.compile(r"(?<=-[sd] )[0-9a-fA-F:.]+(?![0-9a-fA-F:./])")


@dataclass(frozen=True)
class Chain:
    """A chain of ours with all of its rules."""

    table: str
    name: str
    rules: tuple[Rule | str, ...]


@dataclass(frozen=True)
class Lead:
    """Rules of ours in a chain of others: mostly the jump to one of our chains."""

    table: str
    chain: str
    rules: tuple[Rule | str, ...]
    at_head: bool = False


@dataclass(frozen=True)
class Ruleset:
    """All that an agent wants of one IP version.

    owned: (table, beginning of a name): other chains with such a name are the agent's, and are
    deleted if they are not among chains.
    """

    chains: tuple[Chain, ...] = ()
    leads: tuple[Lead, ...] = ()
    owned: tuple[tuple[str, str], ...] = ()

    def __or__(self, other: Ruleset) -> Ruleset:
        return Ruleset(
            self.chains + other.chains, self.leads + other.leads, self.owned + other.owned
        )


@dataclass(frozen=True)
class Table:
    """What iptables-save prints of a table. rules: `-A CHAIN ...` lines in their order."""

    chains: set[str] = field(default_factory=set)
    rules: list[str] = field(default_factory=list)

    def of(self, chain: str) -> list[str]:
        """The rules of a chain, without `-A CHAIN`."""
        head = f"-A {chain} "
        return [rule[len(head) :] for rule in self.rules if rule.startswith(head)]


def parse(saved: str) -> dict[str, Table]:
    """Table name -> what iptables-save printed of it; a table that it did not print is absent."""
    tables: dict[str, Table] = {}
    current = Table()
    for line in saved.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:].strip(), Table())
        elif line.startswith(":"):
            current.chains.add(line[1:].split(" ", 1)[0])
        elif line.startswith("-A "):
            current.rules.append(line)
    return tables


def transaction(wanted: Ruleset, saved: Mapping[str, Table]) -> str:
    """Input of `iptables-restore --noflush` that sets right what differs; "" when nothing does."""
    changed = [
        chain for chain in wanted.chains if not _is_like(saved.get(chain.table, Table()), chain)
    ]
    declared: dict[str, list[str]] = {}
    filled: dict[str, list[str]] = {}
    for chain in changed:
        # Naming a chain with --noflush makes it, or empties it, within the transaction.
        declared.setdefault(chain.table, []).append(f":{chain.name} - [0:0]")
        filled.setdefault(chain.table, []).extend(f"-A {chain.name} {rule}" for rule in chain.rules)
    for lead in wanted.leads:
        if lines := _leading(lead, saved.get(lead.table, Table()).of(lead.chain)):
            filled.setdefault(lead.table, []).extend(lines)
    for table, name in _obsolete(wanted, saved):
        # Emptied with the others, because it may lead to another one of them.
        declared.setdefault(table, []).append(f":{name} - [0:0]")
        filled.setdefault(table, []).append(f"-X {name}")
    tables = {table: [*declared.get(table, ()), *lines] for table, lines in filled.items()}
    return "".join(
        f"*{table}\n" + "".join(f"{line}\n" for line in lines) + "COMMIT\n"
        for table, lines in tables.items()
    )


def _obsolete(wanted: Ruleset, saved: Mapping[str, Table]) -> list[tuple[str, str]]:
    """The chains to delete, with their tables. Nothing leads to them but chains of the agent, which
    the same transaction has written anew."""
    kept = {(chain.table, chain.name) for chain in wanted.chains}
    return [
        (table, name)
        for table, beginning in wanted.owned
        for name in sorted(saved.get(table, Table()).chains)
        if name.startswith(beginning) and (table, name) not in kept
    ]


def _is_like(table: Table, chain: Chain) -> bool:
    """An empty chain is not the same as none."""
    return chain.name in table.chains and table.of(chain.name) == [
        _canonical(rule) for rule in chain.rules
    ]


def _leading(lead: Lead, present: list[str]) -> list[str]:
    wanted = [_canonical(rule) for rule in lead.rules]
    doubles = [
        f"-D {lead.chain} {rule}" for rule in wanted for _ in range(max(present.count(rule) - 1, 0))
    ]
    missing = [rule for rule in wanted if rule not in present]
    if not missing:
        return doubles
    if not lead.at_head:
        return [*doubles, *(f"-A {lead.chain} {rule}" for rule in missing)]
    # Their order among each other counts, so all of them are put at the head anew.
    old = [f"-D {lead.chain} {rule}" for rule in wanted if rule in present]
    return [
        *doubles,
        *old,
        *(f"-I {lead.chain} {number} {rule}" for number, rule in enumerate(wanted, start=1)),
    ]


def _canonical(rule: Rule | str) -> str:
    """As iptables-save prints an address: with its prefix length."""
    return _ADDRESS.sub(lambda match: f"{match[0]}/{128 if ':' in match[0] else 32}", str(rule))


def program(version: int) -> str:
    return "iptables" if version == 4 else "ip6tables"


async def save(version: int = 4) -> dict[str, Table]:
    """All tables of an IP version. Raises CommandError."""
    saved = await command.run([f"{program(version)}-save"], timeout=_SECONDS, check=True)
    return parse(saved.stdout.decode())


async def restore(text: str, version: int = 4) -> None:
    """All of a table or nothing; what text does not name stays. Raises CommandError."""
    argv = [f"{program(version)}-restore", "--wait", _LOCK_SECONDS, "--noflush"]
    await command.run(argv, stdin=text.encode(), timeout=_SECONDS, check=True)


async def create(table: str, chain: str, version: int = 4) -> None:
    """A chain that another program fills, so that a rule can lead to it; one that exists is left
    alone. Raises CommandError."""
    argv = [program(version), "--wait", _LOCK_SECONDS, "-t", table, "-N", chain]
    made = await command.run(argv, timeout=_SECONDS)
    if made.returncode and b"already exists" not in made.stderr:
        raise command.CommandError(made)


async def ensure(wanted: Ruleset, version: int = 4) -> bool:
    """Bring the kernel to it; True when something had to change. Raises CommandError."""
    text = transaction(wanted, await save(version))
    if text:
        await restore(text, version)
    return bool(text)


def generation() -> int | None:
    """The number of the last nf_tables transaction in this network namespace; None where it cannot
    be had.

    iptables-nft changes it with every change, so an unchanged number means unchanged rules: one
    message instead of an iptables-save every few seconds on each of a hundred nodes
    (iptables-legacy must always look).
    """
    try:
        with NfTablesSocket() as kernel:
            return kernel.generation()
    except OSError:
        return None


def is_nf_tables() -> bool:
    """Do the iptables commands write to nf_tables (Debian's default)?"""
    found = shutil.which("iptables-restore")
    return found is not None and "nft" in Path(found).resolve().name


async def keep(make: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Calls make every so many seconds, unless nothing can have changed since it last looked. Runs
    until it is cancelled."""
    nf_tables = is_nf_tables()
    known: int | None = None
    while True:
        await asyncio.sleep(seconds)
        # Asked before the look, so that no change is missed that comes during it.
        present = generation() if nf_tables else None
        if present is None or present != known:
            await make()
            known = present
