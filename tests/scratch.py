"""Run a test's body as PID 1 of fresh namespaces, so that what it makes ends with it.

def test_something():
    isolated(body, argument)          # body(argument) -> picklable; an AssertionError there fails here
"""

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubewire.components.kernel import namespaces

#: Directories that programs under test write to; each becomes an empty tmpfs.
SCRATCH = ("/run", "/tmp", "/var/lib")


class BodyFailed(AssertionError):
    """The traceback of a body that raised."""


def isolated(body: Callable[..., Any], *arguments: Any, timeout: float = 60) -> Any:
    """body's result. It has its own network (lo up, nothing else), mounts (private, SCRATCH empty) and pids."""
    read, write = os.pipe()
    outer = os.fork()
    if outer == 0:
        os.close(read)
        _outer(body, arguments, write, timeout)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        data = answers.read()
    os.waitpid(outer, 0)
    ok, value = pickle.loads(data) if data else (False, f"the body was killed or did not end in {timeout:g} s")
    if not ok:
        raise BodyFailed(value)
    return value


def _outer(body: Callable[..., Any], arguments: tuple[Any, ...], write: int, timeout: float) -> None:
    try:
        namespaces.set_parent_death_signal(signal.SIGKILL)
        namespaces.unshare(namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID)
        inner = os.fork()
        if inner == 0:
            namespaces.set_parent_death_signal(signal.SIGKILL)
            signal.alarm(int(timeout) + 1)
            _inner(body, arguments, write)
        os.close(write)
        os.waitpid(inner, 0)
    finally:
        os._exit(0)


def _inner(body: Callable[..., Any], arguments: tuple[Any, ...], write: int) -> None:
    try:
        fresh_mounts()
        os.system("ip link set lo up")
        answer: tuple[bool, Any] = (True, body(*arguments))
    except BaseException:
        answer = (False, traceback.format_exc())
    with os.fdopen(write, "wb") as answers:
        pickle.dump(answer, answers)
    os._exit(0)


@contextmanager
def code_visible() -> Iterator[None]:
    """The checkout and its venv stay where they are while the body mounts things over them (a clone in /tmp)."""
    root = Path(__file__).resolve().parent.parent
    held = {
        path: os.open(path, os.O_PATH) for path in {root, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    }
    yield
    for path, descriptor in sorted(held.items()):
        if not path.exists():
            path.mkdir(parents=True)
            namespaces.bind(f"/proc/self/fd/{descriptor}", path, recursive=True)
        os.close(descriptor)
    os.chdir(root)  # the old working directory may be the covered one


def fresh_mounts() -> None:
    """In a new mount namespace: nothing propagates, SCRATCH directories are empty, /proc and /sys are this one's."""
    namespaces.mount("none", "/", "", namespaces.MS_REC | namespaces.MS_PRIVATE)
    with code_visible():
        for path in SCRATCH:
            namespaces.mount("tmpfs", path, "tmpfs", 0, "mode=755")
    namespaces.mount("proc", "/proc", "proc")
    namespaces.mount("sysfs", "/sys", "sysfs")
    Path("/run/netns").mkdir()
    Path("/run/lock").mkdir()
