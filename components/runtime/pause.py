"""A pod's pause process: holds the pod's namespaces, reaps orphans as PID 1, ends on SIGTERM or SIGINT.

As upstream's build/pause: exit code 0 on SIGTERM and SIGINT. Costs what a sleeping fork costs.
"""

from __future__ import annotations

import os
import signal


def main(argv: list[str]) -> int:
    """Sleep until told to end; argv is ignored, as upstream does (but for -v, which the image's users never pass)."""
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
