"""Sets of addresses and networks for iptables' `-m set`. They are replaced as a whole and never
empty in between."""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.kernel import command

_SECONDS = 30
#: IPSET_MAXNAMELEN without the final zero byte.
_LONGEST_NAME = 31


def replacement(name: str, kind: str, members: Iterable[str]) -> list[str]:
    """Lines of `ipset restore -exist`: fill a second set and swap it in. kind: type and options of
    `create`."""
    # Each second set is gone before the next is made, so a shortened name does not meet another.
    new = f"{name[: _LONGEST_NAME - 4]}-tmp"
    return [
        f"create {name} {kind}",
        f"create {new} {kind}",
        f"flush {new}",
        *(f"add {new} {member}" for member in members),
        f"swap {name} {new}",
        f"destroy {new}",
    ]


async def restore(text: str) -> None:
    """Raises CommandError."""
    await command.run(
        ["ipset", "restore", "-exist"],
        stdin=text.encode(),
        timeout=_SECONDS,
        check=True,
    )
