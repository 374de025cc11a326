"""Sets a process's name and command line for ps and top, for programs that are not executed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.kernel.namespaces import set_process_name

_PR_SET_MM = 35
_PR_SET_MM_ARG_END = 9


@dataclass(frozen=True)
class ArgvArea:
    """The memory of this process's arguments, then of its environment (proc(5), stat 48 to 51)."""

    start: int
    arguments_end: int
    end: int


def argv_area() -> ArgvArea | None:
    """The area of this process and of all its forks; None if the kernel does not show it."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    # The text after the command name begins with field 3.
    start, arguments_end, environment_start, end = map(int, fields[48 - 3 : 51 - 3 + 1])
    if not start or environment_start != arguments_end or end <= start:
        return None
    return ArgvArea(start, arguments_end, end)


def set_title(area: ArgvArea | None, name: str, args: Sequence[str] = ()) -> None:
    """Sets name (15 bytes of it in /proc/PID/comm) and args.

    The text may cover the environment, so the C environment must have been cleared before.
    """
    set_process_name(name)
    if area is None:
        return
    room = area.end - area.start
    text = b"\0".join(part.encode() for part in (name, *args))[: room - 1] + b"\0"
    ctypes.memset(area.start, 0, max(len(text), area.arguments_end - area.start))
    ctypes.memmove(area.start, text, len(text))
    # This needs CAP_SYS_RESOURCE (prctl(2)); without it, ps shows trailing blanks.
    end = ctypes.c_ulong(area.start + len(text))
    ctypes.CDLL(None).prctl(_PR_SET_MM, _PR_SET_MM_ARG_END, end, 0, 0)
