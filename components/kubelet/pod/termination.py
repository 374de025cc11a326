"""Ends containers: preStop hook, SIGTERM, grace period, SIGKILL
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination)."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import ContainerRecord
from kubewire.components.runtime.api import ExitStatus, RuntimeApiError

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod

log = logging.getLogger(__name__)

#: The least time between SIGTERM and SIGKILL, in seconds, even with no grace period left
#: (upstream).
MINIMUM_GRACE = 2.0

#: Returns the seconds from the beginning until SIGKILL. It is called repeatedly, because a second
#: deletion with a shorter grace period must take effect.
Grace = Callable[[], float]


class Processes(Protocol):
    """The part of the runtime's client that is needed to end a process."""

    async def signal(self, process_id: str, number: int) -> None: ...
    async def wait(self, process_id: str) -> ExitStatus: ...


async def stop_container(
    record: ContainerRecord,
    runtime: Processes,
    grace: Grace,
    pre_stop: Callable[[float], Awaitable[None]] | None,
) -> None:
    """Ends a container and returns when its process has ended.

    pre_stop(timeout) runs first, and its time counts as part of the grace period.
    """
    gone = asyncio.ensure_future(_gone(record, runtime))
    begun = time.monotonic()
    try:
        if pre_stop is not None and grace() > 0:
            await _first_of(pre_stop(grace()), gone, grace())
        await runtime.signal(record.id, signal.SIGTERM)
        if not await _ended_in_time(gone, grace, begun):
            await runtime.signal(record.id, signal.SIGKILL)
            await asyncio.wait({gone})
    except RuntimeApiError as error:
        log.debug("stopping %s: %s", record.name, error)
    finally:
        gone.cancel()


async def _gone(record: ContainerRecord, runtime: Processes) -> None:
    try:
        await runtime.wait(record.id)
    except RuntimeApiError as error:
        log.debug("waiting for %s: %s", record.name, error)


async def _first_of(hook: Awaitable[None], gone: asyncio.Future[None], timeout: float) -> None:
    running = asyncio.ensure_future(hook)
    try:
        await asyncio.wait({running, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        running.cancel()


async def _ended_in_time(gone: asyncio.Future[None], grace: Grace, begun: float) -> bool:
    signalled = time.monotonic()
    while not gone.done():
        now = time.monotonic()
        left = max(begun + grace(), signalled + MINIMUM_GRACE) - now
        if left <= 0:
            return False
        # Wake up regularly, in case the grace period has been shortened meanwhile.
        await asyncio.wait({gone}, timeout=min(left, 0.5))
    return True


def termination_order(
    pod: Pod,
    running: list[ContainerRecord],
) -> list[list[ContainerRecord]]:
    """The groups of containers to end one after the other.

    App containers end first, then each sidecar, in the reverse order of their start (KEP-753).
    """
    init_containers = enumerate(pods.init_containers(pod))
    order = {item["name"]: index for index, item in init_containers if pods.is_sidecar(item)}
    first = [record for record in running if record.name not in order]
    sidecars = [record for record in running if record.name in order]
    sidecars.sort(key=lambda record: -order[record.name])
    return [group for group in [first, *([record] for record in sidecars)] if group]
