"""Before a parent forks: leave no holes in its heap, so that what its children allocate lies in pages of their own.

A page is copied when a child first writes to it. The holes that imports leave behind are all over the parent's pages; a
child that allocates into them comes to own a copy of each, for a few bytes. Filled once, in the parent, they stay
shared, and a child's own objects lie side by side at the end of the heap.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

#: obmalloc.c of Python 3.11: blocks of up to 512 bytes in steps of 16, in aligned pools of 16 KiB.
_POOL, _POOL_HEADER = 16 * 1024, 48
_STEP, _LARGEST_SMALL = 16, 512
#: malloc(3), M_MMAP_THRESHOLD: larger blocks are mappings of their own.
_LARGEST = 128 * 1024 - 32


class _Mallinfo2(ctypes.Structure):
    """mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def fill_holes() -> None:
    """Takes every free block below the end of the heap, and never gives it back. Python's pools first: they are made
    of malloc's memory."""
    _fill_pools()
    _fill_malloc()


def _fill_pools() -> None:
    allocate = ctypes.pythonapi.PyMem_Malloc
    allocate.restype, allocate.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
    for size in range(_STEP, _LARGEST_SMALL + 1, _STEP):
        # A pool is begun only when no other has a free block of its size: once one gave us most of its blocks, there
        # are no holes in the others. (Not all of its blocks: the interpreter takes some between our calls.)
        most, given, pool = (_POOL - _POOL_HEADER) // size * 3 // 4, 0, 0
        while given < most:
            last, pool = pool, allocate(size) // _POOL
            given = given + 1 if pool == last else 0


def _fill_malloc() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallinfo2.restype = _Mallinfo2
    for size in _descending_sizes():
        while True:
            before = libc.mallinfo2()
            block = libc.malloc(size)
            after = libc.mallinfo2()
            if after.keepcost != before.keepcost or after.arena != before.arena:
                # It came from the end of the heap: there is no hole of this size.
                libc.free(block)
                break


def _descending_sizes() -> Iterator[int]:
    size = _LARGEST
    while size >= 24:
        yield size
        size -= max(16, size // 16 & ~15)
