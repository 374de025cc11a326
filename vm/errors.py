"""Errors of virtual machines. The text of each is a sentence that says what to do."""

from __future__ import annotations


class VMError(Exception):
    """The base class. str() is written for users."""


class NotBuilt(VMError):
    """The kernel is not in the cache."""


class Untrusted(NotBuilt):
    """A cache exists, but another user could have put the kernel there."""


class BuildFailed(VMError):
    """A step of a build failed; the text has the command and the end of its output."""


class DoesNotRun(BuildFailed):
    """The kernel's panic shows that it cannot run on this machine. why: the reason in one line."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class Ended(VMError):
    """The machine ended without an answer (no rc). str() has its console's last lines."""


class Panicked(Ended):
    """The guest's kernel panicked. why: the cause in one line, known or in the kernel's own
    words."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why
