"""Brings iptables and ipset of a node to what an engine has rendered.

Sets come first, then chains, then the sets that no rule needs any more, so that a packet never meets
a rule whose set is missing. Chains change in one transaction for each table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubewire.components.kernel import command, ipset, iptables
from kubewire.components.kernel.iptables import Ruleset

_SECONDS = 30
_RETRY = 1.0


@dataclass(frozen=True)
class IPSet:
    """kind: type and options of `ipset create`. members: as `ipset add` takes them, with their
    options."""

    name: str
    kind: str
    members: tuple[str, ...] = ()


class Applier:
    """Remembers what it has written, to write only what differs."""

    def __init__(self, prefix: str, version: int = 4) -> None:
        """prefix: of the names of the engine's sets, which no other program uses."""
        self._prefix, self._version = prefix, version
        self._sets: dict[str, IPSet] | None = None

    async def apply(self, ruleset: Ruleset, sets: Iterable[IPSet]) -> None:
        """sets: lists of sets come after the sets that they list. Raises CommandError; the next
        call then writes everything anew."""
        wanted = {one.name: one for one in sets}
        known, self._sets = self._sets, None
        present = await self._existing() if known is None else [*known]
        changed = [one for name, one in wanted.items() if (known or {}).get(name) != one]
        if changed:
            await ipset.restore(_replacements(changed))
        await iptables.ensure(ruleset, self._version)
        if gone := [name for name in present if name not in wanted]:
            await ipset.restore(_removal(gone))
        self._sets = wanted

    async def settle(
        self, ruleset: Ruleset, sets: Iterable[IPSet], failed: Callable[[Exception], None]
    ) -> None:
        """As apply, again after each error, of which failed is told."""
        every = tuple(sets)
        while True:
            try:
                await self.apply(ruleset, every)
                return
            except (command.CommandError, TimeoutError) as error:
                failed(error)
                await asyncio.sleep(_RETRY)

    async def _existing(self) -> list[str]:
        """The engine's sets in this network namespace. Raises CommandError."""
        listed = await command.run(["ipset", "list", "-name"], timeout=_SECONDS, check=True)
        return [name for name in listed.stdout.decode().split() if name.startswith(self._prefix)]


def _replacements(sets: Iterable[IPSet]) -> str:
    lines = [line for one in sets for line in ipset.replacement(one.name, one.kind, one.members)]
    return "".join(f"{line}\n" for line in lines)


def _removal(sets: Iterable[str]) -> str:
    """`ipset restore` input. All are emptied first, because a list may name other sets."""
    every = list(sets)
    lines = [*(f"flush {name}" for name in every), *(f"destroy {name}" for name in every)]
    return "".join(f"{line}\n" for line in lines)
