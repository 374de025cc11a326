"""Attempts that are repeated: the delay between two of them grows up to a longest one.

This is for one activity that goes on until it succeeds, such as a watch that breaks. Where many
things wait at the same time, their queues compute when each of them is due:
controllers/workqueue.py, scheduler/queue.py, kubelet/backoff.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class GrowingDelay:
    """Seconds until the next attempt: first, then each time factor times as long, up to longest."""

    def __init__(self, first: float, longest: float, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._next = first

    def take(self) -> float:
        """The delay before the next attempt; the one after that is longer."""
        delay = self._next
        self._next = min(delay * self._factor, self._longest)
        return delay

    def reset(self) -> None:
        """After a success the delay begins anew."""
        self._next = self._first

    async def sleep(self) -> None:
        await asyncio.sleep(self.take())


async def until_answered(
    ask: Callable[[], Awaitable[T]],
    transient: tuple[type[Exception], ...],
    delay: GrowingDelay,
    log: logging.Logger,
) -> T:
    """Repeats ask after every transient error, which is logged at debug level, and returns its
    first answer."""
    while True:
        try:
            return await ask()
        except transient as error:
            log.debug("%s", error)
        await delay.sleep()
