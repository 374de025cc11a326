"""iproute2's tools: queries as JSON, and commands in batches.

A batch is one process and one netlink socket for any number of lines, so an agent that sets a
hundred routes starts one program. With `force` every line is tried, and the error names the lines
that the kernel refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kubewire.components.kernel import command

_QUERY_SECONDS = 10
_BATCH_SECONDS = 30


async def query(program: str, *arguments: str, check: bool = True) -> list[dict[str, Any]]:
    """The entries that `ip -json` or `bridge -json` prints. Raises CommandError; without check the
    result is then empty."""
    completed = await command.run(
        [program, "-json", *arguments],
        timeout=_QUERY_SECONDS,
        check=check,
    )
    if completed.returncode:
        return []
    return [entry for entry in json.loads(completed.stdout or b"[]") if entry]


def text(lines: Iterable[str]) -> str:
    """The lines of a batch as text."""
    return "".join(f"{line}\n" for line in lines)


async def batch(program: str, text: str, *, force: bool = True, check: bool = True) -> None:
    """Runs the lines of text in one process. force: continue after a failing line. check: raise
    CommandError."""
    if text:
        argv = [program, *(["-force"] if force else []), "-batch", "-"]
        await command.run(argv, stdin=text.encode(), timeout=_BATCH_SECONDS, check=check)
