"""A container's namespaces and root, made by a short-lived helper, so that the container's own process stays small.

Whatever a forked Python process runs, it comes to own a copy of the pages it touches: reading the request and building
the root would stay with an idle container for all its life (1 MiB). So it forks a helper, which does that and ends;
the process itself then only joins the helper's namespaces, in one call.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable
from typing import Any, NoReturn

from kubewire.components.kernel import namespaces as ns


class Failed(Exception):
    """Nothing was built. reported: work raised, and has told why; else the helper was killed."""

    def __init__(self, reported: bool) -> None:
        super().__init__("the process that builds the container's root was killed")
        self.reported = reported


def build(work: Callable[[], tuple[int, Any]]) -> Any:
    """Run work in a forked helper, join the helper's namespaces, return what work returned.

    work returns the kinds of namespaces to join (CLONE_NEW... flags) and something that marshal can carry.
    """
    result, result_writer = os.pipe2(os.O_CLOEXEC)
    joined, joined_writer = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        os.close(result)
        os.close(joined_writer)
        _help(work, result_writer, joined)
    os.close(result_writer)
    os.close(joined)
    with open(result, "rb") as file:
        data = file.read()
    if data:
        flags, returned = marshal.loads(data)
        # setns(2): with a pidfd, all of them at once. The helper lives until we close our end of its pipe.
        pidfd = os.pidfd_open(helper)
        ns.setns(pidfd, flags)
        os.close(pidfd)
    os.close(joined_writer)
    _, status = os.waitpid(helper, 0)
    if not data:
        raise Failed(reported=os.WIFEXITED(status))
    return returned


def _help(work: Callable[[], tuple[int, Any]], result: int, joined: int) -> NoReturn:
    try:
        data = marshal.dumps(work())
        with open(result, "wb") as file:
            file.write(data)
        os.read(joined, 1)
    finally:
        os._exit(0)
