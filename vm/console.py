"""What a guest's kernel says on its console when it gives up, and why, where the cause is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubewire.vm.share import Follower

#: panic() in kernel/panic.c says it, on every architecture.
PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
#: Lines shown before it, where the cause is, and after it, where the call trace begins.
_BEFORE = 6
_AFTER = 4


@dataclass(frozen=True)
class Cause:
    """pattern: a line of the console. why: a sentence for people, with what helps."""

    pattern: re.Pattern[str]
    why: str


CAUSES = (
    # userspace() in arch/um/os-Linux/skas/process.c says it; 14 is EFAULT. More is in host_xstate.h.
    Cause(
        re.compile(r"ptrace set fp regs failed, errno = 14"),
        "this CPU's extended state (as with Intel AMX) is larger than the 2696 bytes that "
        "User-mode Linux before 6.13 keeps of a process; "
        "kubewire vm build --kernel uml makes one that runs here, or --kernel qemu",
    ),
)


class Watch:
    """Reads the console's file as it grows."""

    def __init__(self, path: Path) -> None:
        self._follower = Follower(path)
        self._unfinished = ""
        self._panicked = False

    def panicked(self) -> bool:
        """Whether the kernel has given up by now."""
        while data := self._follower.read():
            text = self._unfinished + data.decode(errors="replace")
            self._panicked = self._panicked or PANIC.search(text) is not None
            self._unfinished = text.rpartition("\n")[2][-1000:]  # a line may come in pieces
        return self._panicked

    def close(self) -> None:
        self._follower.close()


def panic_of(lines: Sequence[str]) -> int | None:
    """Which line says that the kernel gives up: the first; None: it does not."""
    return next((number for number, line in enumerate(lines) if PANIC.search(line)), None)


def why(lines: Sequence[str]) -> str:
    """Why it gave up, in one line: the known cause, else its own words; "" when it did not."""
    number = panic_of(lines)
    if number is None:
        return ""
    known = (cause.why for cause in CAUSES for line in lines[:number] if cause.pattern.search(line))
    return next(known, lines[number].strip())


def last_words(lines: Sequence[str], count: int = 15) -> list[str]:
    """Around the panic, else the end."""
    number = panic_of(lines)
    if number is None:
        return list(lines[-count:])
    return list(lines[max(0, number - _BEFORE) : number + _AFTER])
