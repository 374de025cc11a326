"""State directories: what a lab leaves for other commands to find, and how they know that it still runs.

All in them is written by the machine's side and trusted by it, except the folder of logs: that belongs to the lab, and
what lies in it is read with care (`read_log`). A lab sees nothing else of its state directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from kubewire.lab.errors import LabError, UsageError

_SOCKET_PATH_MAX = 107  # sun_path of unix(7), without its end
_DEADLINE = 30.0
#: Bytes of a log file that are read of its end.
_LOG_END = 64 * 1024
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
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    columns = line.rpartition(")")[2].split()
    return None if columns[0] in "ZX" else int(columns[19])


def here() -> str:
    """This boot of this kernel and this pid namespace: what a process number in a record refers to.

    A state directory may be on a file system that other machines, containers or a lab's nodes see too. There, its
    processes have other numbers or none.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


@dataclass(frozen=True)
class HostRecord:
    """A Mininet host: pid is its shell's, in the lab's pid namespace. secondary: its address of the other family."""

    name: str
    role: str
    address: str
    pid: int
    secondary: str = ""


@dataclass
class LabRecord:
    """lab.json. init_pid and init_start are the host's view of the sandbox's PID 1; 0 until it has one.

    starter and starter_start: the process that makes the sandbox. token: tells this lab from a later one of its name.
    condemned: `kubewire down` is at work on it. attached: it ends with its starter (`kubewire run`). origin: where its
    process numbers mean something (see here()).
    """

    name: str
    init_pid: int
    init_start: int
    port: int
    spec: dict[str, Any]
    ready: bool = False
    hosts: list[HostRecord] = field(default_factory=list)
    starter: int = 0
    starter_start: int = 0
    token: str = ""
    condemned: bool = False
    attached: bool = False
    origin: str = ""

    @classmethod
    def new(cls, name: str, spec: dict[str, Any], *, attached: bool = False) -> LabRecord:
        """Of a lab that this process is about to start."""
        starter = os.getpid()
        return cls(
            name,
            0,
            0,
            0,
            spec,
            starter=starter,
            starter_start=start_time(starter) or 0,
            token=uuid.uuid4().hex,
            attached=attached,
            origin=here(),
        )

    def alive(self) -> bool:
        """The lab runs, or its starter is at work on it."""
        if self.init_pid:
            return start_time(self.init_pid) == self.init_start
        return self.starter_runs()

    def starter_runs(self) -> bool:
        return self.starter != 0 and start_time(self.starter) == self.starter_start

    def kill(self) -> None:
        """End the sandbox's PID 1, and with it, by the kernel's hand, everything in the lab; wait until it is gone.

        Raises LabError when it is not gone after 30 s.
        """
        if not self.init_pid:
            return
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.init_pid)
            try:
                if start_time(self.init_pid) == self.init_start:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    if not _gone(handle):
                        raise LabError(f"lab {self.name!r}: process {self.init_pid} was killed but does not end")
            finally:
                os.close(handle)


def _require_own(base: Path) -> None:
    """Raises UsageError when somebody other than root and this user could put a state directory into base.

    Who can change what is in it could give the next `kubewire kubectl` a kubeconfig with a program to run. In a user
    namespace that has no id for root, / shows the id that stands for all others.
    """
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}
    for start in dict.fromkeys([base, base.resolve()]):
        for path in (start, *start.parents):
            with suppress(FileNotFoundError):
                found = path.lstat()
                open_to_all = found.st_mode & 0o002 and not (found.st_mode & stat.S_ISVTX and path != start)
                if found.st_uid not in trusted or (open_to_all and not stat.S_ISLNK(found.st_mode)):
                    raise UsageError(
                        f"the state directory {base} could be changed by others: {path} belongs to user "
                        f"{found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}; set KUBEWIRE_STATE_DIR to a folder "
                        "of your own"
                    )


class StateDirectory:
    """The 0700 directory of one lab on the machine's side."""

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
    def api_socket(self) -> Path:
        """Where the API server listens for the door."""
        return self.path / "api.sock"

    @property
    def runtime_socket(self) -> Path:
        return self.path / "runtime.sock"

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    def claim(self, record: LabRecord) -> bool:
        """Make the directory with this record in it, in place of what a dead lab has left there.

        False, and nothing is changed: a lab of this name runs or is coming up. Raises OSError.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_dead(self.path.parent)
        with self._alone():
            if self.alive():
                return False
            self._remove()
            self.path.mkdir(mode=0o700)
            self.logs.mkdir(mode=0o700)
            self._write(record)
        return True

    def update(self, record: LabRecord) -> None:
        """Replace the record of a lab that still has its name. Raises LabError when it was ended meanwhile, OSError."""
        with self._alone():
            if not self.holds(record.token):
                raise LabError(f"lab {self.name!r} was ended by somebody else while it was coming up")
            self._write(record)

    def release(self, token: str) -> None:
        """Remove the directory, unless the name belongs to another lab by now. Idempotent.

        Raises LabError when something in it cannot be removed.
        """
        if not self.path.exists():
            return
        with self._alone():
            record = self.record()
            if record is None or record.token == token:
                self._remove()

    def condemn(self, token: str) -> None:
        """Tell the starter of a lab that somebody is about to end it. Idempotent. Raises OSError."""
        with self._alone():
            record = self.record()
            if record is not None and record.token == token:
                self._write(replace(record, condemned=True))

    def holds(self, token: str) -> bool:
        """Is the directory that of the lab with this token, and nobody about to end it?"""
        record = self.record()
        return record is not None and record.token == token and not record.condemned

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of all processes, only one at a time decides whom a name belongs to: flock(2) on the base directory."""
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, record: LabRecord) -> None:
        """Atomically: a reader sees the old record or the new one."""
        temporary = self.path / ".lab.json"
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(record), indent=1))
        temporary.replace(self.path / "lab.json")

    def record(self) -> LabRecord | None:
        """None: there is none, or it is not a whole one (the machine went down while it was written).

        What a later kubewire has added is passed over: a lab that runs must not be taken for none.
        """
        try:
            raw = json.loads((self.path / "lab.json").read_text())
            raw["hosts"] = [HostRecord(**_known(HostRecord, host)) for host in raw["hosts"]]
            return LabRecord(**_known(LabRecord, raw))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read_log(self, name: str) -> str:
        """The end of a log file, "" when there is none. A lab may have put anything there: links are not followed,
        only regular files are read, and of them only the end."""
        try:
            descriptor = os.open(self.logs / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return ""
            file.seek(max(0, status.st_size - _LOG_END))
            return file.read(_LOG_END).decode(errors="replace")

    def settled(self) -> LabRecord | None:
        """The record, once its starter has made the sandbox or is gone. Raises LabError when it does not get on."""
        deadline = time.monotonic() + _DEADLINE
        while (record := self.record()) is not None and not record.init_pid and record.alive():
            if time.monotonic() > deadline:
                raise LabError(f"lab {self.name!r} is being started by process {record.starter}; end that first")
            time.sleep(0.01)
        return record

    def alive(self) -> bool:
        record = self.record()
        return record is not None and record.alive()

    def remove_if_dead(self) -> None:
        """Remove it when nobody will ask for it again, and it is certain that no process of it is left.

        That is a lab whose starter was killed: one of `kubewire run`, or one that had not come up yet. A lab that `up`
        had handed over stays when it dies: `status` shows it, its logs say why, and `down` removes it. Nothing happens
        to another user's lab, nor to one of another machine, container or boot.
        """
        with self._alone():
            record = self.record()
            ours = self.path.stat(follow_symlinks=False).st_uid == os.geteuid()
            if ours and (self._barely_begun() if record is None else _abandoned(record)):
                with suppress(OSError):  # what cannot be removed is for `down` to report
                    _remove_tree(self.path)

    def _barely_begun(self) -> bool:
        """It has nothing but what claim() makes before there is a record, so its maker was killed in between."""
        made = {path.name for path in self.path.iterdir()}
        return {"logs"} <= made <= {"logs", ".lab.json"} and not any(self.logs.iterdir())

    def _remove(self) -> None:
        if not self.path.exists():
            return
        try:
            _remove_tree(self.path)
        except OSError as error:
            raise LabError(
                f"cannot remove all of {self.path} ({error}); look what is in it and remove it by hand"
            ) from error


def _remove_tree(top: Path) -> None:
    """Remove a state directory whose lab has ended. Raises OSError.

    The lab may have made any tree below its logs: folders that nobody may read, and so deep that no recursion gets to
    the end (shutil.rmtree). Each folder is therefore opened to its owner and moved up before it is emptied.
    """
    left = [top]
    number = 0
    while left:
        folder = left.pop()
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()
                continue
            Path(entry.path).chmod(0o700)
            number += 1
            left.append(Path(entry.path).rename(top / f".removed-{number}"))
        if folder != top:
            folder.rmdir()
    top.rmdir()


def _abandoned(record: LabRecord) -> bool:
    """Both the sandbox and its starter are gone; a starter that runs still reads the logs and removes them itself."""
    handed_over = record.ready and not record.attached
    if handed_over or record.origin != here():
        return False
    return not record.starter_runs() and not record.alive()


def _known(kind: type[HostRecord | LabRecord], raw: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {key: value for key, value in raw.items() if key in names}


def _gone(pidfd: int) -> bool:
    # A pidfd becomes readable when the process has ended; for PID 1 that is after all its children have.
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(int(_DEADLINE * 1000)))


def find(name: str) -> StateDirectory:
    """The state directory a name stands for, whether or not anything is there.

    Raises UsageError for a bad name, or a place that is not ours alone.
    """
    if not NAME.match(name):
        raise UsageError(f"{name!r} is not a lab name: up to 40 lower-case letters, digits and '-', e.g. demo-1")
    base = base_directory()
    _require_own(base)
    state = StateDirectory(base / name)
    if len(os.fsencode(state.control_socket)) > _SOCKET_PATH_MAX:
        raise UsageError(
            f"the state directory {state.path} is too long for unix sockets ({_SOCKET_PATH_MAX} bytes with the "
            "socket's name); set KUBEWIRE_STATE_DIR to a shorter path"
        )
    return state


def all_labs() -> Iterator[StateDirectory]:
    """Those that run or are coming up, and those of `up` that have died."""
    base = base_directory()
    if base.is_dir():
        _require_own(base)
        remove_dead(base)
        yield from _state_directories(base)


def remove_dead(base: Path) -> None:
    """Remove what commands that were killed (kill -9) have left. Idempotent; never waits for a lab."""
    for state in _state_directories(base):
        with suppress(FileNotFoundError):  # somebody else is removing it
            state.remove_if_dead()


def _state_directories(base: Path) -> list[StateDirectory]:
    return [StateDirectory(path) for path in sorted(base.iterdir()) if NAME.match(path.name) and path.is_dir()]


def running(name: str) -> tuple[StateDirectory, LabRecord]:
    """A lab that runs. Raises UsageError that says which labs there are."""
    state = find(name)
    record = state.record()
    if record is None or not record.alive():
        others = [lab.name for lab in all_labs() if lab.alive()]
        known = f"running labs: {', '.join(others)} (choose with --name)" if others else "start one with: kubewire up"
        raise UsageError(f"lab {name!r} is not running; {known}")
    if not record.init_pid:
        raise UsageError(f"lab {name!r} is still coming up")
    return state, record
