"""Runs a job often enough and not too often: upstream's BoundedFrequencyRunner.

The first requests run at once (a burst of two), later ones a minimum interval apart; a failure is
tried again after the retry interval; and once per maximum interval it runs without being asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class TokenBucket:
    """Pure: the caller brings the clock. A token comes every interval seconds, burst at most."""

    def __init__(self, interval: float, burst: int, now: float) -> None:
        self._interval, self._burst = interval, burst
        self._tokens, self._updated = float(burst), now

    def reserve(self, now: float) -> float:
        """Takes a token, if need be one of the future; returns the seconds until it is there."""
        if self._interval <= 0:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._updated) / self._interval) - 1
        self._updated = now
        return max(0.0, -self._tokens * self._interval)


class BoundedFrequencyRunner:
    """job raises to say that it failed."""

    def __init__(
        self,
        job: Callable[[], Awaitable[None]],
        *,
        min_interval: float,
        retry_interval: float,
        max_interval: float,
        burst: int = 2,
    ) -> None:
        self._job = job
        self._retry, self._max = retry_interval, max_interval
        self._asked = asyncio.Event()
        self._bucket = TokenBucket(min_interval, burst, time.monotonic())

    def request(self) -> None:
        """Returns at once; requests while one waits or runs are one."""
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause = self._max
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(self._bucket.reserve(time.monotonic()))
            self._asked.clear()
            pause = self._max
            try:
                await self._job()
            except (
                Exception
            ) as error:  # the rules stay as they are until the next try, as upstream's do
                log.error("Sync failed, retrying in %gs: %s", self._retry, error)
                log.debug("Sync failed", exc_info=error)
                pause = self._retry
