"""Brings the kernel of a node to what render.py made: sets first, then chains, then the sets that no
rule needs any more, so that a packet never meets a rule whose set is missing."""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.kernel import command, ipset, iptables
from kubewire.components.policy.engines.weave_npc import names
from kubewire.components.policy.engines.weave_npc.render import IPSet, Rendered

_SECONDS = 30


class Kernel:
    """Remembers what it has written, to write only what differs."""

    def __init__(self) -> None:
        self._sets: dict[str, IPSet] | None = None

    async def apply(self, rendered: Rendered) -> None:
        """Raises CommandError; the next call then writes everything anew."""
        wanted = {one.name: one for one in rendered.sets}
        known, self._sets = self._sets, None
        present = await existing_sets() if known is None else [*known]
        changed = [one for name, one in wanted.items() if (known or {}).get(name) != one]
        if changed:
            await ipset.restore(_replacements(changed))
        await iptables.ensure(rendered.ruleset)
        if gone := [name for name in present if name not in wanted]:
            await ipset.restore(removal(gone))
        self._sets = wanted


def _replacements(sets: Iterable[IPSet]) -> str:
    lines = [line for one in sets for line in ipset.replacement(one.name, one.kind, one.members)]
    return "".join(f"{line}\n" for line in lines)


def removal(sets: Iterable[str]) -> str:
    """`ipset restore` input. All are emptied first, because a list may name other sets."""
    every = list(sets)
    lines = [*(f"flush {name}" for name in every), *(f"destroy {name}" for name in every)]
    return "".join(f"{line}\n" for line in lines)


async def existing_sets() -> list[str]:
    """The names of the sets that weave-npc has in this network namespace. Raises CommandError."""
    listed = await command.run(["ipset", "list", "-name"], timeout=_SECONDS, check=True)
    found = listed.stdout.decode().split()
    return [name for name in found if name.startswith(names.SET_PREFIX)]
