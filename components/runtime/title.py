"""A process's name and command line as ps and top show them, for programs that are forked and not executed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.kernel.namespaces import set_process_name

_PR_SET_MM = 35
_PR_SET_MM_ARG_END = 9


@dataclass(frozen=True)
class ArgvArea:
    """Where this process's arguments and then its environment lie in memory (proc(5), stat fields 48 to 51)."""

    start: int
    arguments_end: int
    end: int


def argv_area() -> ArgvArea | None:
    """The area of this process and of all it forks; None when the kernel does not tell."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    # The text after the command name starts with field 3.
    start, arguments_end, environment_start, end = (int(fields[number - 3]) for number in (48, 49, 50, 51))
    if not start or environment_start != arguments_end or end <= start:
        return None
    return ArgvArea(start, arguments_end, end)


def set_title(area: ArgvArea | None, name: str, args: Sequence[str] = ()) -> None:
    """Show name (15 bytes of it in /proc/PID/comm) and args; the C environment must have been cleared before."""
    set_process_name(name)
    if area is None:
        return
    room = area.end - area.start
    text = b"\0".join(part.encode() for part in (name, *args))[: room - 1] + b"\0"
    ctypes.memset(area.start, 0, max(len(text), area.arguments_end - area.start))
    ctypes.memmove(area.start, text, len(text))
    # Needs CAP_SYS_RESOURCE outside user namespaces; without it ps shows trailing blanks.
    ctypes.CDLL(None).prctl(_PR_SET_MM, _PR_SET_MM_ARG_END, ctypes.c_ulong(area.start + len(text)), 0, 0)
