"""State directories: where other commands find a running lab, and how they know that it runs.

There is no daemon that knows all labs. Each lab has a folder with a record, lab.json, and every
command reads it. Two problems follow, and this module solves both:

- A record may be stale, because any process may be killed at any moment. A process number alone
  proves nothing, since the kernel reuses it; number and start time together identify a process
  (`start_time`), within one boot and one pid namespace (`here`).
- Commands run at the same time. Whoever claims, changes or removes a folder holds a lock on the
  folder of all labs (flock(2)), which the kernel releases when a process ends. A random token tells
  a lab from a later one of the same name.

The machine's side writes everything in a state directory and trusts it, except the folder of logs.
That one belongs to the lab, so it is read with care (`read_log`). The lab sees nothing else of its
state directory.
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

_SOCKET_PATH_MAX = 107  # length of sun_path (unix(7)) without the terminating null byte
#: Seconds to wait for a process that ends or for a starter that makes the sandbox.
_DEADLINE = 30.0
#: Bytes that are read from the end of a log file.
_LOG_END = 64 * 1024
NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")


def base_directory() -> Path:
    """The folder of all labs: $KUBEWIRE_STATE_DIR, or /run/kubewire for root, or the user's runtime
    or state directory."""
    if chosen := os.environ.get("KUBEWIRE_STATE_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/run/kubewire")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "kubewire")
    return Path.home() / ".local/state/kubewire"


def start_time(pid: int) -> int | None:
    """When a process started (field 22 of /proc/PID/stat, clock ticks since boot); None if it has
    ended. It tells a process from a later one with the same number."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    columns = line.rpartition(")")[2].split()
    return None if columns[0] in "ZX" else int(columns[19])


def here() -> str:
    """Identifies this boot of the kernel and this pid namespace, to which the process numbers in a
    record refer.

    Other machines, containers or a lab's nodes may see the same state directory. There, the
    processes have other numbers or none.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


@dataclass(frozen=True)
class HostRecord:
    """A Mininet host. pid: that of its shell, in the lab's pid namespace. secondary: its address of
    the other IP family."""

    name: str
    role: str
    address: str
    pid: int
    secondary: str = ""


@dataclass
class LabRecord:
    """The content of lab.json.

    init_pid, init_start: the sandbox's PID 1 as the machine numbers it; 0 until it exists.
    starter, starter_start: the process that starts the lab.
    token: tells this lab from a later one of the same name.
    condemned: `kubewire down` is ending the lab.
    attached: the lab ends with its starter (`kubewire run`).
    origin: where the process numbers are valid (see here()).
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
        """The record of a lab that this process is about to start."""
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
        """Whether the lab runs or its starter is bringing it up."""
        if self.init_pid:
            return start_time(self.init_pid) == self.init_start
        return self.starter_runs()

    def starter_runs(self) -> bool:
        return self.starter != 0 and start_time(self.starter) == self.starter_start

    def kill(self) -> None:
        """Kill the sandbox's PID 1, upon which the kernel kills all processes of the lab, and wait
        until they have ended. Raises LabError if they have not after 30 s."""
        if not self.init_pid:
            return
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.init_pid)
            try:
                if start_time(self.init_pid) == self.init_start:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    if not _gone(handle):
                        raise LabError(
                            f"lab {self.name!r}: its first process {self.init_pid} was killed but "
                            f"has not ended after {_DEADLINE:.0f} s; try again, and if it stays, "
                            f"/proc/{self.init_pid}/stack tells what it waits for"
                        )
            finally:
                os.close(handle)


def _require_own(base: Path) -> None:
    """Raise UsageError if a user other than root and the caller could put a state directory into
    base.

    Such a user could give the next `kubewire kubectl` a kubeconfig that names a program to run.
    """
    # In a user namespace that has no id for the machine's root, the owner of / is the overflow id.
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}
    for start in dict.fromkeys([base, base.resolve()]):
        for path in (start, *start.parents):
            with suppress(FileNotFoundError):
                found = path.lstat()
                mode = found.st_mode
                open_to_all = mode & 0o002 and not (mode & stat.S_ISVTX and path != start)
                if found.st_uid not in trusted or (open_to_all and not stat.S_ISLNK(mode)):
                    raise UsageError(
                        f"other users could change the state directory {base}: {path} belongs to "
                        f"user {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):04o}; set "
                        "KUBEWIRE_STATE_DIR to a folder of your own"
                    )


class StateDirectory:
    """The directory of one lab on the machine's side; its mode is 0700."""

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
        """The socket on which the API server serves the door."""
        return self.path / "api.sock"

    @property
    def runtime_socket(self) -> Path:
        return self.path / "runtime.sock"

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    def claim(self, record: LabRecord) -> bool:
        """Make the directory with this record in it, and remove what a dead lab has left there.

        Returns False, and changes nothing, if a lab of this name runs or is coming up. Raises
        OSError.
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
        """Replace the record. Raises LabError if the lab has been ended meanwhile, and OSError."""
        with self._alone():
            if not self.holds(record.token):
                raise LabError(
                    f"lab {self.name!r} was ended by another command while it was coming up",
                )
            self._write(record)

    def release(self, token: str) -> None:
        """Remove the directory, unless the name belongs to a later lab by now. Idempotent.

        Raises LabError if something in it cannot be removed.
        """
        if not self.path.exists():
            return
        with self._alone():
            record = self.record()
            if record is None or record.token == token:
                self._remove()

    def condemn(self, token: str) -> None:
        """Record, for the starter of a lab, that a command is about to end it. Idempotent. Raises
        OSError."""
        with self._alone():
            record = self.record()
            if record is not None and record.token == token:
                self._write(replace(record, condemned=True))

    def holds(self, token: str) -> bool:
        """Whether the directory is that of the lab with this token, and no command is ending it."""
        record = self.record()
        return record is not None and record.token == token and not record.condemned

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock on the folder of all labs (flock(2)): only one process at a time decides to
        which lab a name belongs."""
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, record: LabRecord) -> None:
        """Write the record atomically: a reader sees either the old one or the new one."""
        temporary = self.path / ".lab.json"
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(record), indent=1))
        temporary.replace(self.path / "lab.json")

    def record(self) -> LabRecord | None:
        """The record; None if there is none or it is incomplete (the machine went down while it was
        written).

        Ignores fields that a later version of kubewire has added, so that a running lab of that
        version is still recognized.
        """
        try:
            raw = json.loads((self.path / "lab.json").read_text())
            raw["hosts"] = [HostRecord(**_known(HostRecord, host)) for host in raw["hosts"]]
            return LabRecord(**_known(LabRecord, raw))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read_log(self, name: str) -> str:
        """The end of a log file, "" if there is none. A lab may have put anything there, so links
        are not followed and only regular files are read."""
        try:
            descriptor = os.open(
                self.logs / name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
        except OSError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return ""
            file.seek(max(0, status.st_size - _LOG_END))
            return file.read(_LOG_END).decode(errors="replace")

    def settled(self) -> LabRecord | None:
        """Wait until the starter has made the sandbox or has ended, and return the record. Raises
        LabError if neither happens within 30 s."""
        deadline = time.monotonic() + _DEADLINE
        while (record := self.record()) is not None and not record.init_pid and record.alive():
            if time.monotonic() > deadline:
                raise LabError(
                    f"process {record.starter} is still starting lab {self.name!r}; end it first",
                )
            time.sleep(0.01)
        return record

    def alive(self) -> bool:
        record = self.record()
        return record is not None and record.alive()

    def remove_if_dead(self) -> None:
        """Remove the directory of a lab whose starter was killed, if no process of the lab is left.

        This concerns labs of `kubewire run`, and labs that had not come up yet. A lab of `up` that
        was ready and has died keeps its directory: `status` shows it, its logs tell the reason, and
        `down` removes it. Labs of another user, machine, container or boot are left alone.
        """
        with self._alone():
            record = self.record()
            ours = self.path.stat(follow_symlinks=False).st_uid == os.geteuid()
            if ours and (self._barely_begun() if record is None else _abandoned(record)):
                with suppress(OSError):  # `down` reports what cannot be removed
                    _remove_tree(self.path)

    def _barely_begun(self) -> bool:
        """Whether the directory has only what claim() makes before the record; its starter was
        killed in between then."""
        made = {path.name for path in self.path.iterdir()}
        return {"logs"} <= made <= {"logs", ".lab.json"} and not any(self.logs.iterdir())

    def _remove(self) -> None:
        if not self.path.exists():
            return
        try:
            _remove_tree(self.path)
        except OSError as error:
            raise LabError(
                f"cannot remove the state directory {self.path}: {error}; remove it by hand"
            ) from error


def _remove_tree(top: Path) -> None:
    """Remove a state directory whose lab has ended. Raises OSError.

    The lab may have made any tree below its logs: unreadable folders, or folders nested so deeply
    that recursion (shutil.rmtree) fails. So each folder is made accessible to its owner and moved
    to the top before it is emptied.
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
    """Whether both the sandbox and its starter have ended. A starter that runs still reads the logs
    and removes the directory itself."""
    handed_over = record.ready and not record.attached
    if handed_over or record.origin != here():
        return False
    return not record.starter_runs() and not record.alive()


def _known(kind: type[HostRecord | LabRecord], raw: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {key: value for key, value in raw.items() if key in names}


def _gone(pidfd: int) -> bool:
    # A pidfd becomes readable when its process has ended (pidfd_open(2)). PID 1 of a pid namespace
    # ends only after all other processes in it (zap_pid_ns_processes in kernel/pid_namespace.c).
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(int(_DEADLINE * 1000)))


def find(name: str) -> StateDirectory:
    """The state directory for a name, whether or not it exists.

    Raises UsageError for a malformed name, or if other users could change the directory.
    """
    if not NAME.match(name):
        raise UsageError(
            f"{name!r} is not a lab name; use up to 40 lower-case letters, digits and '-'",
        )
    base = base_directory()
    _require_own(base)
    state = StateDirectory(base / name)
    if len(os.fsencode(state.control_socket)) > _SOCKET_PATH_MAX:
        raise UsageError(
            f"the path of the state directory {state.path} is too long for unix sockets (with the "
            f"socket's name at most {_SOCKET_PATH_MAX} bytes); set KUBEWIRE_STATE_DIR to a shorter "
            "path"
        )
    return state


def all_labs() -> Iterator[StateDirectory]:
    """The labs that run or are coming up, and those of `up` that have died."""
    base = base_directory()
    if base.is_dir():
        _require_own(base)
        remove_dead(base)
        yield from _state_directories(base)


def remove_dead(base: Path) -> None:
    """Remove the directories that killed commands (kill -9) have left. Idempotent; never waits for
    a lab."""
    for state in _state_directories(base):
        with suppress(FileNotFoundError):  # another command is removing it
            state.remove_if_dead()


def _state_directories(base: Path) -> list[StateDirectory]:
    paths = [path for path in sorted(base.iterdir()) if NAME.match(path.name) and path.is_dir()]
    return [StateDirectory(path) for path in paths]


def running(name: str) -> tuple[StateDirectory, LabRecord]:
    """A lab that runs. Raises UsageError, which names the running labs, if it does not."""
    state = find(name)
    record = state.record()
    if record is None or not record.alive():
        others = [lab.name for lab in all_labs() if lab.alive()]
        known = "start one with: kubewire up"
        if others:
            known = f"running labs: {', '.join(others)} (choose one with --name)"
        raise UsageError(f"lab {name!r} is not running; {known}")
    if not record.init_pid:
        raise UsageError(f"lab {name!r} is still coming up; try again in a moment")
    return state, record


def down(state: StateDirectory) -> bool:
    """End a lab, also one that is coming up, and remove its state directory. Returns whether there
    was one. Idempotent."""
    existed = state.path.exists()
    record = state.settled()
    if record is not None:
        if not record.ready:
            with suppress(OSError):  # on a full disk, the starter cannot report the reason
                state.condemn(record.token)
        record.kill()
    state.release(record.token if record else "")
    return existed
