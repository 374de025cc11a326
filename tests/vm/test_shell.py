"""`kubewire vm shell` on a pseudo-terminal: job control works inside, and the terminal is as it was afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.vm.cache import Built
from kubewire.vm.kernels.base import Kernel

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


class Terminal:
    """A user's terminal with a shell of a virtual machine on it."""

    def __init__(self, kernel: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 132, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kubewire.lab", "vm", "shell", "--kernel", kernel],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm-256color"},
            start_new_session=True,
        )

        self._ahead = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str, seconds: float = 60.0) -> str:
        """What comes, up to text; what comes with it is for the next one."""
        seen, deadline = self._ahead, time.monotonic() + seconds
        while text not in seen:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.master], [], [], left)[0], f"no {text!r} in {seen!r}"
            seen += os.read(self.master, 4096).decode(errors="replace")
        before, _, self._ahead = seen.partition(text)
        return before + text


@pytest.fixture
def terminal(kernel: tuple[Kernel, Built]) -> Iterator[Terminal]:
    one = Terminal(kernel[0].name)
    yield one
    one.process.terminate()
    one.process.wait(30)
    os.close(one.master)
    os.close(one.slave)


def test_a_shell_has_job_control_and_the_terminal_comes_back(terminal: Terminal) -> None:
    greeting = terminal.until("# ")
    assert "no job control" not in greeting and "Permission denied" not in greeting
    terminal.type("stty size\n")
    terminal.until("40 132")
    terminal.until("# ")
    terminal.type("echo $((6*7)); cat\n")
    terminal.until("42\r\n")
    terminal.type("are you there\n")
    terminal.until("are you there\r\nare you there\r\n")
    terminal.type("\x1a")
    terminal.until("Stopped")
    terminal.until("# ")
    terminal.type("fg\n")
    terminal.until("cat\r\n")  # bash says what it continues
    terminal.type("and now\n")
    terminal.until("and now\r\nand now\r\n")
    terminal.type("\x03")
    terminal.until("# ")
    terminal.type("echo $TERM; exit\n")
    terminal.until("xterm-256color\r\n")
    terminal.process.wait(30)
    assert termios.tcgetattr(terminal.slave) == terminal.before
