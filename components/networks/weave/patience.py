"""Retries: the API server may still be starting, or the kernel be busy."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from kubewire.components.base.retrying import GrowingDelay, until_answered
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import ApiError

log = logging.getLogger("weave-net")

#: Errors that a retry may clear.
TRANSIENT = (CommandError, TimeoutError, OSError, ApiError)
#: The longest time between two attempts, in seconds.
RETRY = 5.0


async def until_available(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Repeats ask after every transient error, and returns its first answer."""
    return await until_answered(ask, TRANSIENT, GrowingDelay(0.02, RETRY), log)
