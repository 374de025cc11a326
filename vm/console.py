"""Finds a guest kernel's panic on its console, and the cause if it is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubewire.vm.share import Follower

#: The message of panic() in kernel/panic.c, on every architecture.
PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
#: Lines shown before the panic, where its cause is, and after it, where the call trace begins.
_BEFORE = 6
_AFTER = 4


@dataclass(frozen=True)
class Cause:
    """pattern: a line of the console. why: a sentence for users, with the remedy."""

    pattern: re.Pattern[str]
    why: str


CAUSES = (
    # The message of userspace() in arch/um/os-Linux/skas/process.c; 14 is EFAULT. host_xstate.h
    # explains it.
    Cause(
        re.compile(r"ptrace set fp regs failed, errno = 14"),
        "this CPU's extended state (as with Intel AMX) is larger than the 2696 bytes that "
        "User-mode Linux before 6.13 keeps of a process; "
        "kubewire vm build --kernel uml makes one that runs here, or --kernel qemu",
    ),
)


class Watch:
    """Reads the console's file while it grows."""

    def __init__(self, path: Path) -> None:
        self._follower = Follower(path)
        self._unfinished = ""
        self._panicked = False

    def panicked(self) -> bool:
        """True if the kernel has panicked."""
        while data := self._follower.read():
            text = self._unfinished + data.decode(errors="replace")
            self._panicked = self._panicked or PANIC.search(text) is not None
            self._unfinished = text.rpartition("\n")[2][-1000:]  # a line may arrive in pieces
        return self._panicked

    def close(self) -> None:
        self._follower.close()


def panic_of(lines: Sequence[str]) -> int | None:
    """The number of the first line that reports a panic, or None."""
    return next((number for number, line in enumerate(lines) if PANIC.search(line)), None)


def why(lines: Sequence[str]) -> str:
    """The cause of the panic in one line: the known cause, else the kernel's own message; ""
    without a panic."""
    number = panic_of(lines)
    if number is None:
        return ""
    known = (cause.why for cause in CAUSES for line in lines[:number] if cause.pattern.search(line))
    return next(known, lines[number].strip())


def last_words(lines: Sequence[str], count: int = 15) -> list[str]:
    """The lines around the panic, else the last lines."""
    number = panic_of(lines)
    if number is None:
        return list(lines[-count:])
    return list(lines[max(0, number - _BEFORE) : number + _AFTER])
