"""Lets SIGINT and SIGTERM end a run in an orderly way."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from kubewire.scenarios.engine.scene.scene import Interrupted


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Within this context, the first SIGINT or SIGTERM raises Interrupted in the main thread. In
    any other thread this context does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # a second ctrl-C must not interrupt the clean-up
        raise Interrupted

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
