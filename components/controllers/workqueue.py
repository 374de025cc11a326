"""A work queue like client-go's: one entry and one worker for each key, retries with back-off."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from kubewire.components.kubeapi.client import ApiError

log = logging.getLogger(__name__)
K = TypeVar("K")


def _log(key: object, error: Exception) -> None:
    """What the API server refuses is one line; where another error was raised is shown, too.

    A conflict, or no answer, is no news: the key soon comes back and sees the newer objects.
    """
    if isinstance(error, ApiError):
        log.log(
            logging.DEBUG if error.status in (0, 409) else logging.WARNING, "%s: %s", key, error
        )
    else:
        log.warning("%s: %s", key, error, exc_info=True)


class WorkQueue(Generic[K]):
    """Keys wait in order of arrival; a key added while it is worked on runs again afterwards.

    The back-off of a key doubles from base_delay to max_delay seconds and is forgotten on success.
    """

    def __init__(self, *, base_delay: float = 0.005, max_delay: float = 60.0) -> None:
        self._order: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._base_delay = base_delay
        self._max_delay = max_delay

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: K) -> None:
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._order.append(key)
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Adds the key after a delay, or earlier if an earlier timer of the key exists."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, 0.0)
        standing = self._timers.get(key)
        if standing is not None:
            if standing.when() <= when:
                return
            standing.cancel()
        self._timers[key] = loop.call_at(when, self._fire, key)

    def add_rate_limited(self, key: K) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(self._base_delay * 2**failures, self._max_delay))

    def forget(self, key: K) -> None:
        self._failures.pop(key, None)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> K:
        while not self._order:
            self._wake.clear()
            await self._wake.wait()
        key = self._order.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._dirty:
            self._order.append(key)
            self._wake.set()

    async def run(self, work: Callable[[K], Awaitable[None]], *, workers: int = 1) -> None:
        """Works on keys until cancelled; a key whose work raises is logged and retried with
        back-off.
        """
        await asyncio.gather(*(self._worker(work) for _ in range(workers)))

    async def _worker(self, work: Callable[[K], Awaitable[None]]) -> None:
        while True:
            key = await self.get()
            try:
                await work(key)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # an error of one key must not stop work on the others
                _log(key, error)
                self.add_rate_limited(key)
            else:
                self.forget(key)
            finally:
                self.done(key)
