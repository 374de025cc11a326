"""What can go wrong with a virtual machine: each error is a sentence that says what to do."""

from __future__ import annotations


class VMError(Exception):
    """Base of all; str() is for people."""


class NotBuilt(VMError):
    """A kernel is not in the cache."""


class Untrusted(NotBuilt):
    """There is a cache, but somebody else could have put the kernel there."""


class BuildFailed(VMError):
    """A step of a build: which command, with its last words."""


class DoesNotRun(BuildFailed):
    """A kernel whose panic says that it cannot run on this machine. why: that, in one line."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class Ended(VMError):
    """The machine ended before it had an answer: no rc. str() has its console's last lines."""


class Panicked(Ended):
    """Its kernel gave up. why: the cause in one line, known or in the kernel's own words."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why
