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


class Ended(VMError):
    """The machine ended before it had an answer: no rc. console: its last lines."""
