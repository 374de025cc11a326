"""The collector leaves alone what stays: while rules are planned and written, and afterwards."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For a sync: what a plan is made of stays, and while it grows the collector would look through
    all of it again and again. With 5,000 Services that takes two fifths of the time of planning."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def settle() -> None:
    """Services, endpoints and rules live as long as the process: frozen, so that no later
    collection looks through a million objects while a change waits (gc.freeze). What reading and
    writing them took goes back to the kernel (malloc_trim(3), which other libcs do not have)."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
