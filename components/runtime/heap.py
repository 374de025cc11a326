"""Fills the holes in a forking parent's heap, so that its children share more of it.

The kernel copies a page when a child first writes to it. Imports leave holes in all pages of the
parent's heap. A child that allocates into such holes causes a copy of each page, for a few bytes in
it. If the parent fills the holes once, these pages stay shared, and the objects of a child are
together at the end of the heap.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

#: Python 3.11's obmalloc.c: blocks of up to 512 bytes in steps of 16, in aligned pools of 16 KiB.
_POOL = 16 * 1024
_POOL_HEADER = 48
_STEP = 16
_LARGEST_SMALL = 512
#: malloc(3) serves larger blocks with mappings of their own (mallopt(3), M_MMAP_THRESHOLD).
_LARGEST = 128 * 1024 - 32


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def fill_holes() -> None:
    """Allocates every free block below the end of the heap, for good.

    Python's pools come first, because they consist of malloc's memory.
    """
    _fill_pools()
    _fill_malloc()


def _fill_pools() -> None:
    allocate = ctypes.pythonapi.PyMem_Malloc
    allocate.restype = ctypes.c_size_t
    allocate.argtypes = [ctypes.c_size_t]
    for size in range(_STEP, _LARGEST_SMALL + 1, _STEP):
        # Python takes a new pool only when no other pool has a free block of this size. So once
        # most blocks come from the same pool, the others have no holes. (Not all blocks: the
        # interpreter takes some between the calls.)
        most = (_POOL - _POOL_HEADER) // size * 3 // 4
        given = 0
        pool = 0
        while given < most:
            last = pool
            pool = allocate(size) // _POOL
            given = given + 1 if pool == last else 0


def _fill_malloc() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallinfo2.restype = _Mallinfo2
    for size in _descending_sizes():
        while True:
            before = libc.mallinfo2()
            block = libc.malloc(size)
            after = libc.mallinfo2()
            if after.keepcost != before.keepcost or after.arena != before.arena:
                # The block came from the end of the heap, so there is no hole of this size.
                libc.free(block)
                break


def _descending_sizes() -> Iterator[int]:
    size = _LARGEST
    while size >= 24:
        yield size
        size -= max(16, size // 16 & ~15)
