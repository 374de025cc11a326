"""After the first rules are written: give back what that took, and leave alone what stays."""

from __future__ import annotations

import ctypes
import gc


def settle() -> None:
    """Services, endpoints and rules live as long as the process: frozen, so that no later collection looks through a
    million objects while a change waits (gc.freeze). What reading and writing them took goes back to the kernel
    (malloc_trim(3), which other libcs do not have)."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
