"""Shared by the main functions of long-running components: log lines in klog's format, and the end
by signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any


def log_to_stderr(verbosity: int) -> None:
    """verbosity: the value of -v. Debug lines are shown from 4 on ("debug level verbosity" in
    klog's convention)."""
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(levelname).1s%(asctime)s %(name)s] %(message)s")


def termination() -> asyncio.Event:
    """Returns an event that SIGTERM and SIGINT set. Call it in the running loop."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    return asked


async def until_asked(
    work: Coroutine[Any, Any, None], program: str, expected: tuple[type[Exception], ...]
) -> int:
    """Runs work, which ends only by cancellation or an error, until a signal. Returns the exit
    code.

    The code is 0 after SIGTERM, and 1 after an expected error, alone or in a task group's, which is
    printed on stderr. Raises any other error.
    """
    asked = termination()
    task = asyncio.ensure_future(work)
    ending = asyncio.ensure_future(asked.wait())
    await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except expected as error:
        print(f"{program}: {error}", file=sys.stderr)
    except BaseExceptionGroup as group:
        known, rest = group.split(expected)
        if rest is not None:
            raise
        for leaf in _leaves(known):
            print(f"{program}: {leaf}", file=sys.stderr)
    return 1


def _leaves(error: BaseException | None) -> list[BaseException]:
    """The errors inside a task group's nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error] if error else []
