"""Builds a container's namespaces and root in a short-lived helper process, to save memory.

After fork(2), parent and child share their pages until one of them writes to a page, and the kernel
copies it (copy on write). Python writes to nearly every page that it works with, if only to count
references. Reading the request and building the root would therefore leave about 1 MiB of private
memory with an idle container for its whole life. So the container's process forks a helper, which
does that work and ends, and its pages with it.

A namespace does not belong to the process that made it: it exists as long as a process is in it
(namespaces(7)). The container's process joins all of the helper's namespaces with a single
setns(2) on a pidfd. With the mount namespace it also gets the root into which the helper has
pivoted. This needs the helper alive, so it waits on a pipe until it is told to end. The pid
namespace is the exception: setns(2) only affects later children there, so the forking parent
prepares it (zygote.py).

Nothing is built if the helper fails: it reports why over the status socket, or it was killed.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable
from typing import Any, NoReturn

from kubewire.components.kernel import namespaces as ns


class Failed(Exception):
    """Nothing was built. reported: the work has reported why; otherwise the helper was killed."""

    def __init__(self, reported: bool) -> None:
        super().__init__("the process that builds the container's root was killed")
        self.reported = reported


def build(work: Callable[[], tuple[int, Any]]) -> Any:
    """Runs work in a helper, joins the helper's namespaces, and returns the second value of work.

    work returns the kinds of namespaces to join (CLONE_NEW... flags), and a value that marshal can
    encode. Raises Failed.
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
        # The helper lives until this process closes its end of the pipe `joined`.
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
