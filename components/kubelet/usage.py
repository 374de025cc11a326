"""How much processor time and memory containers use, from /proc, because they have no cgroups.

A container is its first process and all that descend from it: what a process leaves behind belongs
to the first one, which is PID 1 of the container's PID namespace. A rate needs two readings, so the
kubelet reads every ten seconds, as cAdvisor does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Seconds between two readings (cAdvisor's housekeeping interval).
INTERVAL = 10.0


@dataclass(frozen=True)
class Usage:
    """Processor time since the start in nanoseconds, and resident memory in bytes."""

    cpu: int
    memory: int


@dataclass(frozen=True)
class Process:
    """A container's first process; started_at is in seconds since 1970."""

    id: str
    pid: int
    started_at: float


def read(pid: int, proc: Path = Path("/proc")) -> Usage | None:
    """The usage of a process and its descendants; None if it has ended."""
    own = _stat(proc, pid)
    if own is None:
        return None
    found = [own, *(_stat(proc, child) for child in _descendants(proc, pid))]
    known = [usage for usage in found if usage is not None]
    return Usage(sum(usage.cpu for usage in known), sum(usage.memory for usage in known))


def _stat(proc: Path, pid: int) -> Usage | None:
    try:
        # The second field, the program's name in parentheses, may itself contain spaces (proc(5)).
        fields = (proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    # utime, stime, and those of children that have ended.
    ticks = sum(int(field) for field in fields[11:15])
    return Usage(ticks * 1_000_000_000 // _TICK, int(fields[21]) * _PAGE)


def _descendants(proc: Path, pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for child in _children(proc, parent):
            yield child
            waiting.append(child)


def _children(proc: Path, pid: int) -> list[int]:
    """The children of all threads of a process (CONFIG_PROC_CHILDREN)."""
    try:
        tasks = list((proc / str(pid) / "task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


@dataclass(frozen=True)
class _Reading:
    at: float
    cpu: int
    rate: float


class Meter:
    """The rates of processor time, from one reading to the next."""

    def __init__(self, reader: Callable[[int], Usage | None] = read) -> None:
        self._read = reader
        self._last: dict[str, _Reading] = {}

    def measure(self, processes: Iterable[Process], now: float) -> None:
        """Takes a reading of every running container, and forgets the others."""
        fresh: dict[str, _Reading] = {}
        for process in processes:
            usage = self._read(process.pid)
            if usage is not None:
                fresh[process.id] = self._next(process, usage.cpu, now)
        self._last = fresh

    def _next(self, process: Process, cpu: int, now: float) -> _Reading:
        before = self._last.get(process.id) or _Reading(process.started_at, 0, 0.0)
        period = max(now - before.at, 0.001)
        return _Reading(now, cpu, max(cpu - before.cpu, 0) / period)

    def rate(self, process: Process, cpu: int, now: float) -> int:
        """Nanocores in the last period; of a container that has none yet since its start."""
        held = self._last.get(process.id)
        return int(held.rate if held is not None else self._next(process, cpu, now).rate)
