"""Waiting for what is not there yet: an API server that still starts, a kernel that is busy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import ApiError

log = logging.getLogger("weave-net")

#: Errors that a retry may clear.
TRANSIENT = (CommandError, TimeoutError, OSError, ApiError)
#: Seconds between two attempts at most.
RETRY = 5.0


async def until_available(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Asks again after every transient error; returns the first answer."""
    delay = 0.02
    while True:
        try:
            return await ask()
        except TRANSIENT as error:
            log.debug("%s", error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, RETRY)
