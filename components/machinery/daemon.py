"""What the main functions of long-running components share: klog's kind of log lines, and how they are told to end."""

from __future__ import annotations

import asyncio
import logging
import signal


def log_to_stderr(verbosity: int) -> None:
    """verbosity is -v of the command line; from 4 on ("debug level verbosity", klog's convention) debug lines show."""
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(levelname).1s%(asctime)s %(name)s] %(message)s")


def termination() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; to be called in the running loop."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    return asked
