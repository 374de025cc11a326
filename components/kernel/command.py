"""Runs a program from asyncio without a thread or pipes: posix_spawn(3), a pidfd to wait on, memfds
for its streams.

asyncio's own subprocess support starts one waiting thread per child in Python 3.11. A node runs
thousands of short programs (CNI plugins, ip, iptables-restore), so this module avoids that.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Signals that Python ignores and programs expect at their default (subprocess restores the same
#: ones).
_RESTORED_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ]
#: How tools name the line of their input that failed: iptables-restore, ipset, nft, ip and bridge.
_NAMES_A_LINE = re.compile(r"(?:\bline:? |/dev/stdin:|Command failed -:)(\d+)")
_LINES_AROUND = 3
#: Program -> Debian package, for programs that a machine may lack.
_PACKAGES = {
    "bridge": "iproute2",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "ip6tables": "iptables",
    "ipset": "ipset",
    "iptables": "iptables",
    "ipvsadm": "ipvsadm",
    "nft": "nftables",
}


@dataclass(frozen=True)
class Completed:
    """A program that has ended. returncode is negative if a signal ended it, as in subprocess."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


class CommandError(Exception):
    """A program failed. The text is a sentence with its argv, exit status and output. If the output
    names a line of the program's input, the surrounding lines follow.

    said: the program's own output.
    """

    def __init__(self, completed: Completed, stdin: bytes = b"") -> None:
        self.completed = completed
        self.said = (completed.stderr or completed.stdout).decode(errors="replace").strip()
        ended = ending(completed.returncode)
        text = f"{' '.join(completed.argv)}: {ended}" + (f": {self.said}" if self.said else "")
        if stdin and (found := _NAMES_A_LINE.search(self.said)):
            text += f"\n{_around(stdin.decode(errors='replace'), int(found[1]))}"
        super().__init__(text)


def _around(text: str, number: int) -> str:
    """The lines surrounding a line, with their numbers, which count from 1."""
    first = max(number - _LINES_AROUND, 1)
    shown = text.splitlines()[first - 1 : number + _LINES_AROUND - 1]
    return "\n".join(f"{first + i:6} {line}" for i, line in enumerate(shown))


def ending(returncode: int) -> str:
    """ "exit status 2", or "signal: killed", as Go's os/exec words it."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"signal: {signal.strsignal(-returncode) or -returncode}".lower()
    except ValueError:
        return f"signal: {-returncode}"


class _Streams:
    """Three memfds. Nothing blocks, and a program that leaves a child behind does not keep a pipe
    open."""

    def __init__(self, stdin: bytes) -> None:
        self.fds: list[int] = []
        try:
            for name in ("stdin", "stdout", "stderr"):
                self.fds.append(os.memfd_create(name, os.MFD_CLOEXEC))
            view = memoryview(stdin)
            while view:
                view = view[os.write(self.fds[0], view) :]
            os.lseek(self.fds[0], 0, os.SEEK_SET)
        except OSError:
            self.close()
            raise

    def file_actions(self) -> list[tuple[int, int, int]]:
        return [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(self.fds)]

    def read(self, index: int) -> bytes:
        fd = self.fds[index]
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []


async def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    check: bool = False,
) -> Completed:
    """Runs argv (found in PATH) in its own process group, until it ends.

    timeout is in seconds. After it, or if the caller is cancelled, the whole group is killed.
    Raises OSError if the program cannot start (FileNotFoundError names the Debian package),
    TimeoutError, and with check CommandError if it does not exit with 0.
    """
    streams = _Streams(stdin)
    try:
        pid = os.posix_spawnp(  # noqa: ASYNC221 (returns at the exec, well under a millisecond)
            argv[0],
            list(argv),
            dict(os.environ if env is None else env),
            file_actions=streams.file_actions(),
            setpgroup=0,
            setsigdef=_RESTORED_SIGNALS,
        )
        status = await _ended(pid, timeout)
        completed = Completed(tuple(argv), status, streams.read(1), streams.read(2))
    except FileNotFoundError as error:
        raise _missing(argv[0]) from error
    finally:
        streams.close()
    if check and completed.returncode != 0:
        raise CommandError(completed, stdin)
    return completed


def run_blocking(
    argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0, check: bool = False
) -> Completed:
    """run() for a program without an event loop. Raises the same errors."""
    try:
        done = subprocess.run(list(argv), input=stdin, capture_output=True, timeout=timeout)
    except FileNotFoundError as error:
        raise _missing(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{' '.join(argv)}: no end in {timeout:g} s") from error
    completed = Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
    if check and completed.returncode != 0:
        raise CommandError(completed, stdin)
    return completed


def _missing(program: str) -> FileNotFoundError:
    package = _PACKAGES.get(program.partition("-")[0])
    advice = f"; install the Debian package {package}" if package else ""
    return FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}{advice}", program)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


async def _ended(pid: int, timeout: float) -> int:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, _settle, ended)
    try:
        async with asyncio.timeout(timeout):
            await ended
    except (TimeoutError, asyncio.CancelledError):
        # The child is not reaped yet, so its pid and process group cannot belong to another
        # process.
        os.killpg(pid, signal.SIGKILL)
        raise
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 (it has ended, or was just killed)
    return os.waitstatus_to_exitcode(status)
