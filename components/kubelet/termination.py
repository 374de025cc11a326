"""Ending containers: preStop, SIGTERM, the grace period, SIGKILL
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination)."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from components.kubelet import pods
from components.kubelet.records import ContainerRecord
from components.machinery.resources import KubeObject
from components.runtime.api import RuntimeApiError

#: Even with no grace period left, a container gets this long between SIGTERM and SIGKILL (upstream).
MINIMUM_GRACE = 2.0

#: Seconds from now until SIGKILL; asked again whenever the pod changes, as a deletion may be hastened.
Grace = Callable[[], float]


class Signaller(Protocol):
    async def signal(self, process_id: str, number: int) -> None: ...


class Exits:
    """Lets anyone wait for the end of a process by its id."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def event(self, process_id: str) -> asyncio.Event:
        return self._events.setdefault(process_id, asyncio.Event())

    def ended(self, process_id: str) -> None:
        if event := self._events.pop(process_id, None):
            event.set()


async def stop_container(
    record: ContainerRecord,
    runtime: Signaller,
    exits: Exits,
    grace: Grace,
    pre_stop: Callable[[float], Awaitable[None]] | None,
) -> None:
    """Returns when the process has ended. pre_stop(timeout) runs first and uses up the same grace period."""
    exited = exits.event(record.id)
    begun = time.monotonic()
    if pre_stop is not None and grace() > 0:
        hook = asyncio.ensure_future(pre_stop(grace()))
        gone = asyncio.ensure_future(exited.wait())
        try:
            await asyncio.wait({hook, gone}, timeout=max(grace(), 0.01), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hook.cancel()
            gone.cancel()
    spent = time.monotonic() - begun if pre_stop else 0.0
    try:
        if grace() > 0:
            await runtime.signal(record.id, signal.SIGTERM)
            if await _ended_within(exited, grace, spent):
                return
        await runtime.signal(record.id, signal.SIGKILL)
    except RuntimeApiError:
        # Gone already, or the fork server is: then the kernel has ended the process.
        return
    await exited.wait()


async def _ended_within(exited: asyncio.Event, grace: Grace, spent: float) -> bool:
    begun = time.monotonic()
    while True:
        left = max(grace() - spent, min(MINIMUM_GRACE, grace())) - (time.monotonic() - begun)
        if left <= 0:
            return False
        try:
            # Short rounds, so that a grace period that has been shortened meanwhile counts.
            async with asyncio.timeout(min(left, 1.0)):
                await exited.wait()
            return True
        except TimeoutError:
            continue


def termination_order(pod: KubeObject, running: list[ContainerRecord]) -> list[list[ContainerRecord]]:
    """Groups to end one after the other: first the app containers, then sidecars last to first (KEP-753)."""
    sidecars = {item["name"]: index for index, item in enumerate(pods.init_containers(pod)) if pods.is_sidecar(item)}
    first = [record for record in running if record.name not in sidecars]
    rest = sorted((record for record in running if record.name in sidecars), key=lambda r: -sidecars[r.name])
    return [group for group in [first, *([record] for record in rest)] if group]
