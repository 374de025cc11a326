"""The folder that host and guest share, and the protocol of its files.

    guest.json              settings for guest/init.py, written before it boots
    init.py                 a copy of guest/init.py
    up                      written by the guest: its uptime in seconds when it was ready
    jobs/N/job.json         argv, cwd, env, outputs; jobs/N appears by rename, complete
    jobs/N/outputs/I        is mounted at outputs[I] in the guest; starts as a copy of the host's folder
    jobs/N/stdout, stderr   grow while the command runs
    jobs/N/rc               the exit code; appears by rename, last of all. Without it the job has failed
    jobs/stop               tells a resident guest to end

Each file has one writer, and what must be read as a whole appears by rename. The guest runs its
users' programs, so nothing it leaves here is trusted: links are not followed, and only regular
files are copied back.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

INIT = Path(__file__).parent / "guest/init.py"
#: The user and group of the machine's processes on the host when root starts it: nobody, nogroup.
NOBODY = 65534


@dataclass(frozen=True)
class Job:
    """A command line. outputs: the host's folders that the command may write to; they are updated
    after its end.

    cwd must be visible to the guest.
    """

    argv: Sequence[str]
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[Path] = ()


class Share:
    """The host's side of the folder. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = folder / "jobs"
        self._next = 1

    def make(self, guest: Mapping[str, Any]) -> None:
        """Creates the folder. guest: the settings for the guest."""
        self.jobs.mkdir(parents=True)
        (self.folder / "guest.json").write_text(json.dumps(guest))
        shutil.copyfile(INIT, self.folder / "init.py")
        for path in (self.folder, self.jobs):
            give(path)

    def submit(self, job: Job) -> Path:
        """Puts a job where the guest looks for jobs; returns its folder."""
        unfinished = self.jobs / f"new-{self._next}"
        ready = self.jobs / str(self._next)
        self._next += 1
        (unfinished / "outputs").mkdir(parents=True)
        told = asdict(job) | {"outputs": [str(path) for path in job.outputs]}
        (unfinished / "job.json").write_text(json.dumps(told))
        for number, path in enumerate(job.outputs):
            target = unfinished / "outputs" / str(number)
            path.mkdir(parents=True, exist_ok=True)  # the guest mounts on it but cannot create it
            shutil.copytree(path, target, symlinks=True)
        give(unfinished, recursive=True)
        unfinished.rename(ready)
        return ready

    def up(self) -> bool:
        """True if the guest has been ready."""
        return os.path.lexists(self.folder / "up")

    def stop(self) -> None:
        """Asks a resident guest to end."""
        (self.jobs / "stop").touch()


def exit_code(folder: Path) -> int | None:
    """The exit code of a job, or None if there is none yet."""
    try:
        return int(_read(folder / "rc"))
    except (OSError, ValueError):
        return None


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(64)


class Follower:
    """Reads a file of the guest while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = -1

    def read(self) -> bytes:
        """The new content, or b""."""
        if self._stream < 0:
            try:
                self._stream = os.open(
                    self._path,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                )
            except FileNotFoundError:
                return b""
        return os.read(self._stream, 1 << 20)

    def close(self) -> None:
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1


def give(path: Path, *, recursive: bool = False) -> None:
    """Gives a path to the user that the machine runs as."""
    if os.geteuid() != 0:
        return
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if recursive:
        for inner in path.rglob("*"):
            os.chown(inner, NOBODY, NOBODY, follow_symlinks=False)


def collect(source: Path, target: Path) -> None:
    """Copies a tree's folders and regular files over target. Everything else, even a file replaced
    meanwhile, is skipped."""
    target.mkdir(parents=True, exist_ok=True)
    for folder, _, files, descriptor in os.fwalk(source):
        inside = target / Path(folder).relative_to(source)
        inside.mkdir(exist_ok=True)
        for name in files:
            _copy(name, descriptor, inside / name)


def _copy(name: str, folder: int, target: Path) -> None:
    try:
        descriptor = os.open(
            name,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            dir_fd=folder,
        )
    except OSError:  # a link
        return
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return
        if target.is_symlink():
            target.unlink()
        with target.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))
