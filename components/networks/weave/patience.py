"""Retries: the API server may still be starting, or the kernel be busy."""

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
#: The longest time between two attempts, in seconds.
RETRY = 5.0


async def until_available(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Repeats ask after every transient error, and returns its first answer."""
    delay = 0.02
    while True:
        try:
            return await ask()
        except TRANSIENT as error:
            log.debug("%s", error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, RETRY)
