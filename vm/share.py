"""The folder that host and guest share, and what they say to each other in it.

    guest.json              what guest/init.py makes of itself (written before it boots)
    init.py                 a copy of guest/init.py
    up                      written by the guest: its uptime in seconds when it was ready
    jobs/N/job.json         argv, cwd, env, outputs; jobs/N appears by rename, complete
    jobs/N/outputs/I        stands for outputs[I] inside; holds what the host had there before
    jobs/N/stdout, stderr   grow while the command runs
    jobs/N/rc               its exit code; appears by rename, last of all. None: it failed, whatever else there is
    jobs/stop               a resident guest ends

The guest runs what users give it, so nothing it leaves here is trusted: links are not followed, only regular
files come back.
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
#: Who the machine's processes are on the host when root starts it: nobody, nogroup.
NOBODY = 65534


@dataclass(frozen=True)
class Job:
    """A command line. outputs: folders of the host that the command may write to; they are brought up to date after.

    cwd must be visible to the guest.
    """

    argv: Sequence[str]
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[Path] = ()


class Share:
    """The host's side. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = folder / "jobs"
        self._next = 1

    def make(self, guest: Mapping[str, Any]) -> None:
        """An empty one, for a guest to be told guest."""
        self.jobs.mkdir(parents=True)
        (self.folder / "guest.json").write_text(json.dumps(guest))
        shutil.copyfile(INIT, self.folder / "init.py")
        for path in (self.folder, self.jobs):
            give(path)

    def submit(self, job: Job) -> Path:
        """Put a job where the guest looks; returns its folder."""
        unfinished = self.jobs / f"new-{self._next}"
        ready = self.jobs / str(self._next)
        self._next += 1
        (unfinished / "outputs").mkdir(parents=True)
        told = asdict(job) | {"outputs": [str(path) for path in job.outputs]}
        (unfinished / "job.json").write_text(json.dumps(told))
        for number, path in enumerate(job.outputs):
            target = unfinished / "outputs" / str(number)
            path.mkdir(parents=True, exist_ok=True)  # the guest mounts on it, and cannot make it
            shutil.copytree(path, target, symlinks=True)
        give(unfinished, recursive=True)
        unfinished.rename(ready)
        return ready

    def up(self) -> bool:
        """Whether the guest was ready once."""
        return os.path.lexists(self.folder / "up")

    def stop(self) -> None:
        """Ask a resident guest to end."""
        (self.jobs / "stop").touch()


def exit_code(folder: Path) -> int | None:
    """Of a job; None: it has none yet."""
    try:
        return int(_read(folder / "rc"))
    except (OSError, ValueError):
        return None


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(64)


class Follower:
    """Reads a file of the guest's as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = -1

    def read(self) -> bytes:
        """What is new; b"" when nothing is."""
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
    """To the user that the machine runs as."""
    if os.geteuid() != 0:
        return
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if recursive:
        for inner in path.rglob("*"):
            os.chown(inner, NOBODY, NOBODY, follow_symlinks=False)


def collect(source: Path, target: Path) -> None:
    """Copy a tree's folders and regular files over target. What is something else, or is made one meanwhile, stays."""
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
