"""State directories: what a lab leaves for other commands to find, and how they know that it still runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import UsageError

_SOCKET_PATH_MAX = 107  # sun_path of unix(7), without its end
NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")


def base_directory() -> Path:
    """$KUBEWIRE_STATE_DIR, or /run/kubewire for root, or a user's own runtime or state directory."""
    if chosen := os.environ.get("KUBEWIRE_STATE_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/run/kubewire")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "kubewire")
    return Path.home() / ".local/state/kubewire"


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (clock ticks since boot): tells a process from a later one with its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class HostRecord:
    """A Mininet host: pid is its shell's, in the lab's pid namespace."""

    name: str
    role: str
    address: str
    pid: int


@dataclass
class LabRecord:
    """lab.json. init_pid and init_start are the host's view of the sandbox's PID 1."""

    name: str
    init_pid: int
    init_start: int
    port: int
    spec: dict[str, Any]
    ready: bool = False
    hosts: list[HostRecord] = field(default_factory=list)


class StateDirectory:
    """The 0700 directory of one lab, seen under the same path inside and outside its sandbox."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def captures(self) -> Path:
        return self.path / "captures"

    @property
    def runtime_socket(self) -> Path:
        return self.path / "runtime.sock"

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    def create(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)
        for folder in (self.logs, self.captures):
            folder.mkdir(mode=0o700)

    def write(self, record: LabRecord) -> None:
        """Atomically: a reader sees the old record or the new one."""
        temporary = self.path / ".lab.json"
        temporary.write_text(json.dumps(asdict(record), indent=1))
        temporary.chmod(0o600)
        temporary.replace(self.path / "lab.json")

    def record(self) -> LabRecord | None:
        try:
            raw = json.loads((self.path / "lab.json").read_text())
        except (OSError, json.JSONDecodeError):
            return None
        raw["hosts"] = [HostRecord(**host) for host in raw["hosts"]]
        return LabRecord(**raw)

    def alive(self) -> bool:
        record = self.record()
        return record is not None and start_time(record.init_pid) == record.init_start

    def kill(self) -> None:
        """End the sandbox's PID 1, and with it, by the kernel's hand, everything in the lab; wait until it is gone."""
        record = self.record()
        if record is None:
            return
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(record.init_pid)
            try:
                if start_time(record.init_pid) == record.init_start:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _wait_gone(handle)
            finally:
                os.close(handle)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _wait_gone(pidfd: int) -> None:
    # A pidfd becomes readable when the process has ended; for PID 1 that is after all its children have.
    import select

    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll(30_000)


def find(name: str) -> StateDirectory:
    """The state directory a name stands for, whether or not anything is there. Raises UsageError for a bad name."""
    if not NAME.match(name):
        raise UsageError(f"{name!r} is not a lab name: up to 40 lower-case letters, digits and '-', e.g. demo-1")
    state = StateDirectory(base_directory() / name)
    if len(os.fsencode(state.control_socket)) > _SOCKET_PATH_MAX:
        raise UsageError(
            f"the state directory {state.path} is too long for unix sockets ({_SOCKET_PATH_MAX} bytes with the "
            "socket's name); set KUBEWIRE_STATE_DIR to a shorter path"
        )
    return state


def all_labs() -> Iterator[StateDirectory]:
    base = base_directory()
    if base.is_dir():
        yield from (StateDirectory(path) for path in sorted(base.iterdir()) if NAME.match(path.name) and path.is_dir())


def running(name: str) -> tuple[StateDirectory, LabRecord]:
    """A lab that runs. Raises UsageError that says which labs there are."""
    state = find(name)
    record = state.record()
    if record is None or not state.alive():
        others = [lab.name for lab in all_labs() if lab.alive()]
        known = f"running labs: {', '.join(others)} (choose with --name)" if others else "start one with: kubewire up"
        raise UsageError(f"lab {name!r} is not running; {known}")
    return state, record
