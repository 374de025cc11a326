"""A pod's pause process: holds the pod's namespaces, reaps orphans as PID 1, ends on SIGTERM or SIGINT.

As upstream's build/pause: exit code 0 on SIGTERM and SIGINT. Where the machine has catatonit (a Debian package made
for this: `catatonit -P`), that is executed instead: 0.05 MiB a pod instead of the 2 to 3 MiB that a forked Python
process comes to own.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

PROGRAM = "/usr/bin/catatonit"


def main(argv: list[str]) -> int:
    """Sleep until told to end; argv is ignored, as upstream does (but for -v, which the image's users never pass)."""
    with suppress(OSError):
        os.execv(PROGRAM, ["/pause", "-P"])
    return sleep(argv)


def sleep(argv: list[str]) -> int:
    """The same in Python."""
    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    # PID 1 gets no signal that it has no handler for; SIGCHLD's default (ignore) would discard it while blocked.
    for number in awaited:
        signal.signal(number, _nothing)
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        _reap()
        if signal.sigwait(awaited) != signal.SIGCHLD:
            return 0


def _nothing(_number: int, _frame: object) -> None:
    pass


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
