"""A running virtual machine: boot it, give it jobs, read their output while it appears, end it.

Four parties work together: this object, the jail process that isolates the machine (jail.py), the
machine itself, and the guest's PID 1 (guest/init.py). Host and guest share no network and no pipe;
they communicate through files in one folder (share.py), by hostfs in UML and by 9p in QEMU.

- Life: the object holds the write end of a pipe, the jail the read end. Whatever ends this process
  closes the pipe, and then the jail kills the machine. Nothing else has to clean up.
- Success: a job has succeeded only if its `rc` file says so. The exit codes of UML and QEMU are 0
  whatever happened, so a machine that ends without `rc` has failed, and the console says why
  (console.py).
- Cleanliness: each machine has a folder and a lock on it. A folder whose lock is free belongs to no
  process, and the next start removes it (sweep).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from kubewire.components.base import sources
from kubewire.vm import cache, console
from kubewire.vm.errors import Ended, Panicked
from kubewire.vm.jail import CANNOT_START, Spec
from kubewire.vm.kernels.base import Boot, Kernel
from kubewire.vm.share import Follower, Job, Share, collect, exit_code

#: Receives a job's output while it appears.
Sink = Callable[[bytes], None]
_LOOK_EVERY = 0.01
#: A panicked kernel ends by itself; if it has not done so after this many seconds, it is killed.
_PANIC_GRACE = 1.0


def discard(_: bytes) -> None:
    """A sink that ignores the output."""


def run_directory() -> Path:
    """The parent of the machines' folders: in memory, and private to the user."""
    if chosen := os.environ.get("KUBEWIRE_VM_RUN"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/run/kubewire-vm")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "kubewire-vm") if runtime else Path(f"/dev/shm/kubewire-vm-{os.geteuid()}")


class Machine:
    """A context manager: entering boots the machine, leaving ends it in any case.

    resident: it stays for more jobs. Otherwise it gets its jobs at the start, runs them and ends by
    itself, which is the only way with virtual time: a guest that polls for jobs would make the
    clock race. visible: the host's folders that jobs need, read-only, under the same path. shell:
    an interactive command on this process's terminal instead of jobs.
    """

    def __init__(
        self,
        kernel: Kernel,
        built: cache.Built,
        boot: Boot,
        *,
        visible: Sequence[Path] = (),
        jobs: Sequence[Job] = (),
        resident: bool = False,
        shell: Sequence[str] = (),
        workdir: str = "/",
    ) -> None:
        self.kernel = kernel
        self._program = kernel.program(built, boot)
        self._boot = boot
        self._resident = resident
        self._visible = list(dict.fromkeys(str(path.resolve()) for path in visible))
        self._first = jobs
        self._shell = _shell(shell, workdir) if shell else {}
        self._folders: dict[Path, Job] = {}
        self.pending: list[Path] = []
        self._lifeline = self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        base = run_directory()
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(
            base
        ):  # otherwise another process's sweep could remove the folder before it is locked
            sweep(base)
            self.folder = Path(tempfile.mkdtemp(prefix=f"{self.kernel.name}-", dir=base))
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        self.share = Share(self.folder / "share")
        guest = {"hostname": "kubewire-vm", "visible": self._visible, "resident": self._resident}
        self.share.make({**guest, **self._program.guest, **self._shell})
        for job in self._first:
            self.pending.append(self.submit(job))
        spec = Spec(
            argv=list(self._program.argv),
            share=str(self.share.folder),
            visible=list(dict.fromkeys([*self._program.visible, *self._visible])),
            size=self._boot.memory + 256,
            terminal=self._boot.terminal,
            cpu=_cpu(self.folder) if self._boot.cpus == 1 else -1,
        )
        (self.folder / "spec.json").write_text(json.dumps(asdict(spec)))
        self._launch()

    def _launch(self) -> None:
        """Starts kubewire.vm.jail as a separate process with one thread. Its output is the terminal
        or the console file."""
        read_end, self._lifeline = os.pipe()
        output: Any = None if self._boot.terminal else (self.folder / "console").open("wb")
        command = [
            sys.executable,
            "-m",
            "kubewire.vm.jail",
            str(self.folder / "spec.json"),
            str(read_end),
        ]
        path = os.pathsep.join(
            filter(None, [str(sources.IMPORTED_FROM), os.environ.get("PYTHONPATH", "")]),
        )
        try:
            self._process = subprocess.Popen(
                command,
                stdin=None if self._boot.terminal else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[read_end, self._lock],
                start_new_session=not self._boot.terminal,
                env=os.environ | {"PYTHONPATH": path},
                cwd="/",
            )
        finally:
            os.close(read_end)
            if output:
                output.close()

    def submit(self, job: Job) -> Path:
        """Gives it a job. Returns the handle for wait()."""
        folder = self.share.submit(job)
        self._folders[folder] = job
        return folder

    def wait(
        self,
        job: Path,
        *,
        timeout: float | None = None,
        out: Sink = discard,
        err: Sink = discard,
        look: Callable[[], None] = lambda: None,
    ) -> int:
        """Returns the job's exit code after its output was read and its outputs were copied back.

        look is called from time to time and may raise. Raises Ended if the machine ended without an
        exit code, Panicked if its kernel panicked, and TimeoutError; after a time-out the job may
        go on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        watch = console.Watch(self.folder / "console")
        followers = ((Follower(job / "stdout"), out), (Follower(job / "stderr"), err))
        try:
            while True:
                ended = self.ended() or self._panicked(watch)
                code = exit_code(job)
                news = _pass_on(followers)
                look()
                if code is not None:
                    break
                if ended:
                    raise self._end()
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(
                        f"the command in the virtual machine took longer than {timeout:g} s",
                    )
                if not news:
                    self._pause()
        finally:
            watch.close()
            for follower, _ in followers:
                follower.close()
            for number, path in enumerate(self._folders[job].outputs):
                collect(job / "outputs" / str(number), path)
        return code

    def run(
        self, job: Job, *, timeout: float | None = None, out: Sink = discard, err: Sink = discard
    ) -> int:
        """submit() and wait(), in a resident machine."""
        return self.wait(self.submit(job), timeout=timeout, out=out, err=err)

    def _pause(self) -> None:
        """Waits for the next look. inotify would report hostfs and 9p writes, but not the end of a
        machine."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert self._process is not None
            self._process.wait(_LOOK_EVERY)

    def ended(self) -> bool:
        """True if the machine no longer runs."""
        return self._process is None or self._process.poll() is not None

    def attend(self) -> int:
        """Waits for the machine's end (with a shell). Returns the process's exit code."""
        assert self._process is not None
        return self._process.wait()

    def _panicked(self, watch: console.Watch) -> bool:
        """True if its kernel has panicked and has had time to end."""
        if not watch.panicked():
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert self._process is not None
            self._process.wait(_PANIC_GRACE)
        return True

    def _end(self) -> Ended:
        """The error for a machine that no longer answers: how it ended, why, and its console's last
        lines."""
        lines = self.console()
        last = [f"  | {line}" for line in console.last_words(lines)]
        if why := console.why(lines):
            return Panicked("\n".join([f"the virtual machine's kernel gave up: {why}", *last]), why)
        cannot = self._process is not None and self._process.returncode == CANNOT_START
        what = (
            "the virtual machine could not be started"
            if cannot
            else "the virtual machine ended without an answer"
        )
        return Ended("\n".join([what, *last]))

    def console(self) -> list[str]:
        """The lines that its kernel and init have printed."""
        try:
            return (self.folder / "console").read_text(errors="replace").splitlines()
        except OSError:
            return []

    def close(self) -> None:
        """Ends the machine and removes its folder. Idempotent."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._process is not None:
            self._process.wait()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shell(argv: Sequence[str], workdir: str) -> dict[str, Any]:
    """The guest's settings for a shell. The terminal type is the caller's, because a kernel passes
    no environment on."""
    return {"shell": list(argv), "workdir": workdir, "term": os.environ.get("TERM", "linux")}


def _cpu(folder: Path) -> int:
    """One of this process's CPUs; running machines get different ones."""
    cpus = sorted(os.sched_getaffinity(0))
    others = sum(other != folder for other in running(folder.parent))
    return cpus[others % len(cpus)]


def _pass_on(followers: Sequence[tuple[Follower, Sink]]) -> bool:
    news = False
    for follower, sink in followers:
        while data := follower.read():
            sink(data)
            news = True
    return news


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(base: Path) -> None:
    """Removes the folders of machines that were killed together with their starter: no process
    holds their lock."""
    for folder in base.iterdir():
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def running(base: Path | None = None) -> Iterator[Path]:
    """The folders of the running machines."""
    base = base or run_directory()
    for folder in sorted(base.iterdir()) if base.is_dir() else ():
        if (folder / "spec.json").exists():
            yield folder
