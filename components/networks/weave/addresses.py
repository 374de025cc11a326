"""Addresses for containers: a request waits until the allocator has an answer, which may need other
peers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from ipaddress import IPv4Network

from kubewire.components.networks.weave.allocator import Allocator, Message
from kubewire.components.networks.weave.store import Store


class Addresses:
    """say: sends one of the allocator's messages. saved: is called after its state was saved. tick:
    in seconds."""

    def __init__(
        self,
        allocator: Allocator,
        store: Store,
        say: Callable[[Message], None],
        saved: Callable[[], None],
        tick: float,
    ) -> None:
        self._allocator, self._store, self._say, self._saved, self._tick = (
            allocator,
            store,
            say,
            saved,
            tick,
        )
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        """The number of requests that have no answer yet."""
        return len(self._waiters)

    async def allocate(self, container: str, subnet: IPv4Network) -> int:
        return await self._until(lambda: self._allocator.allocate(container, subnet))

    async def claim(self, container: str, address: int) -> None:
        await self._until(lambda: 0 if self._allocator.claim(container, address) else None)

    def lookup(self, container: str, subnet: IPv4Network) -> list[int]:
        return self._allocator.lookup(container, subnet)

    def containers(self) -> list[str]:
        return sorted(name for name in self._allocator.owned if not name.startswith("weave:"))

    def release(self, container: str) -> None:
        self._allocator.release(container)
        self.flush()

    def free(self, container: str, address: int) -> None:
        self._allocator.free(container, address)
        self.flush()

    def takeover(self, peer: str) -> int:
        taken = self._allocator.takeover(peer)
        self.flush()
        return taken

    def shutdown(self) -> None:
        self._allocator.shutdown()
        self.flush()

    async def _until(self, attempt: Callable[[], int | None]) -> int:
        """Repeats attempt whenever the allocator has received something. Raises what attempt
        raises."""
        while True:
            try:
                result = attempt()
            finally:
                self.flush()
            if result is not None:
                return result
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def flush(self) -> None:
        """Saves the allocator's state, sends its messages, and wakes waiting requests if they may
        succeed now."""
        if self._allocator.dirty:
            self._store.save(self._allocator.saved())
            self._saved()
        for message in self._allocator.sent():
            self._say(message)
        if self._allocator.retry:
            self._allocator.retry = False
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def tick(self) -> None:
        """Calls the allocator's tick() regularly, until cancelled."""
        while True:
            await asyncio.sleep(self._tick * random.uniform(0.5, 1.5))  # not all at once
            self._allocator.tick()
            self.flush()
