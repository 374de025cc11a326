"""A fork server in scratch namespaces, driven from outside over its socket."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubewire.components.runtime.api import Disconnected, ProcessSpec, RuntimeClient

NAMESPACES = ("--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Sandbox:
    """A running fork server. directory is on the machine's disk, the same path inside and outside."""

    client: RuntimeClient
    directory: Path
    process: subprocess.Popen[bytes]
    stderr: Path

    @property
    def socket(self) -> Path:
        return self.directory / "runtime.sock"

    def inside(self, *argv: str) -> str:
        """The output of a command in the namespaces of the fork server itself."""
        return self.client.run(ProcessSpec(argv=argv), timeout=10).stdout.decode()

    def pids(self) -> set[int]:
        """Every process of the sandbox, as the fork server numbers them; without the one that looks."""
        listed = self.inside(sys.executable, "-Sc", "import os; print(os.getpid(), *os.listdir('/proc'))").split()
        return {int(name) for name in listed[1:] if name.isdigit()} - {int(listed[0])}


def start(*unshare: str) -> Sandbox:
    directory = Path(tempfile.mkdtemp(prefix="kubewire-test-runtime-"))
    socket, stderr = directory / "runtime.sock", directory / "stderr"
    server = [sys.executable, "-m", "kubewire.components.runtime", "--socket", str(socket), "--state", str(directory)]
    with stderr.open("wb") as file:
        process = subprocess.Popen(["unshare", *unshare, *NAMESPACES, *server, "--lower", "/"], stderr=file)
    deadline = time.monotonic() + 20
    while True:
        try:
            return Sandbox(RuntimeClient(socket), directory, process, stderr)
        except Disconnected:
            if process.poll() is not None or time.monotonic() > deadline:
                stop(process, directory)
                raise
            time.sleep(0.01)


def stop(process: subprocess.Popen[bytes], directory: Path) -> None:
    # unshare --kill-child: its death is that of PID 1 and so of the whole sandbox.
    process.kill()
    process.wait()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """As root; or in a user namespace when the tests do not run as root."""
    import os

    started = start(*(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
    yield started
    stop(started.process, started.directory)


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[RuntimeClient]:
    """A connection; what the test started is removed after it."""
    known = {process.id for process in sandbox.client.list()}
    with RuntimeClient(sandbox.socket, timeout=15) as connected:
        yield connected
    for process in sandbox.client.list():
        if process.id not in known:
            sandbox.client.remove(process.id, force=True)


def eventually(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout} s: {what}"
        time.sleep(0.01)
