"""PID 1 of the virtual machine: makes its file system, runs the jobs that the host puts in the shared folder, ends it.

Copied into the shared folder and run by the system's own python3: standard library only. What host and guest say
to each other is in vm/share.py.

Usage (the kernel's command line): init=/usr/bin/python3 -- /tmp/io/init.py /tmp/io [9p]
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHARE = Path("/run/kubewire-vm")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_MOVE = 0x2000
MNT_DETACH = 2
#: How often a resident guest looks for a new job, in seconds: neither hostfs nor 9p tells about a file of the host.
LOOK_EVERY = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str | Path, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); raises OSError."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        fstype.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(
            number,
            f"mount {fstype} {source} on {target} ({data}): {os.strerror(number)}",
        )


def own_root(scratch: Path, lower: str, share: Path, moved: tuple[str, ...]) -> None:
    """An overlay of the read-only root, with its upper side in memory, becomes "/". share: seen from the old root."""
    mount("kubewire", scratch, "tmpfs", 0, "mode=755,size=75%")
    for name in ("upper", "work", "new"):
        (scratch / name).mkdir()
    new = scratch / "new"
    # nosuid: where the host's root is not ours (a user namespace), its setuid programs belong to somebody else.
    mount(
        "kubewire",
        new,
        "overlay",
        MS_NOSUID,
        f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work",
    )
    for name in moved:
        mount(name, f"{new}{name}", "", MS_MOVE)
    mount("tmpfs", new / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("tmpfs", new / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    (new / SHARE.relative_to("/")).mkdir()
    mount_host(str(share), f"{new}{SHARE}", writable=True)
    for name in ("lock", "netns"):
        (new / "run" / name).mkdir()
    old = new / ".before"
    old.mkdir(exist_ok=True)
    os.chdir(new)
    if _libc.pivot_root(b".", b".before") < 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chroot(".")
    os.chdir("/")
    _libc.umount2(b"/.before", MNT_DETACH)
    with contextlib.suppress(OSError):
        Path("/.before").rmdir()


def is_uml() -> bool:
    """init's own arguments say it: QEMU's initrd adds a word (vm/qemu.py)."""
    return "9p" not in sys.argv[2:]


def insert_module(path: str) -> None:
    """finit_module(2), for the one module that is needed before there is a place to keep modules."""
    descriptor = os.open(path, os.O_RDONLY)
    if _libc.syscall(313, descriptor, b"", 0) < 0:
        raise OSError(
            ctypes.get_errno(),
            f"insert module {path}: {os.strerror(ctypes.get_errno())}",
        )
    os.close(descriptor)


def mount_host(path: str, target: str, *, writable: bool = False) -> None:
    """A folder of the host. On UML by its path; in QEMU the shared folder has a tag, all else is in the root."""
    if is_uml():
        mount("none", target, "hostfs", 0 if writable else MS_RDONLY, path)
    elif writable:
        mount("share", target, "9p", 0, "trans=virtio,version=9p2000.L,msize=524288,cache=none")
    elif path != target:
        bind(Path(path), target)


def system_mounts() -> None:
    """What init systems mount."""
    for source, target, fstype, flags, data in (
        ("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
        ("bpf", "/sys/fs/bpf", "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ):
        Path(target).mkdir(exist_ok=True) if target.startswith("/dev") else None
        with contextlib.suppress(OSError):  # a kernel without it: what needs it says so
            mount(source, target, fstype, flags, data)
    for name, target in {
        "fd": "/proc/self/fd",
        "stdin": "fd/0",
        "stdout": "fd/1",
        "stderr": "fd/2",
    }.items():
        with contextlib.suppress(FileExistsError):
            Path("/dev", name).symlink_to(
                target if target.startswith("/") else f"/proc/self/{target}",
            )


def settle(guest: dict[str, Any]) -> None:
    """Name, loopback, kernel modules, and iptables' older form where the kernel has only that."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/kernel/hostname").write_text(guest["hostname"])
    with contextlib.suppress(
        OSError,
    ):  # else every network namespace has tunl0, sit0, ... as soon as it is made
        Path("/proc/sys/net/core/fb_tunnels_only_for_init_net").write_text("1")
    if guest.get("modules"):
        release = os.uname().release
        Path("/lib/modules", release).mkdir(parents=True, exist_ok=True)
        mount_host(guest["modules"], f"/lib/modules/{release}")
    if guest["load"]:
        subprocess.run(
            ["modprobe", "-a", *guest["load"]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    own_home(Path("/root"))
    for path in guest["visible"]:
        Path(path).mkdir(parents=True, exist_ok=True)
        mount_host(path, path)
    for name, program in guest["alternatives"].items():
        link = Path(name)
        link.unlink(missing_ok=True)
        link.symlink_to(program)


def own_home(home: Path) -> None:
    """The guest's root is nobody on the host, so the host's /root may be closed to it; then it has one in memory."""
    try:
        next(home.iterdir(), None)
    except OSError:
        mount("tmpfs", home, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")


class Job:
    """One command. Its folder holds job.json; stdout, stderr and, at last, rc come to stand beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        told = json.loads((folder / "job.json").read_text())
        for number, path in enumerate(told["outputs"]):
            Path(path).mkdir(parents=True, exist_ok=True)
            bind(folder / "outputs" / str(number), path)
        self.pipes = {name: os.pipe() for name in ("stdout", "stderr")}
        self.files = {name: os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in self.pipes}
        environment = {
            "PATH": PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **told["env"],
        }
        try:
            self.process: subprocess.Popen[bytes] | None = subprocess.Popen(
                told["argv"],
                stdin=subprocess.DEVNULL,
                stdout=self.pipes["stdout"][1],
                stderr=self.pipes["stderr"][1],
                cwd=told["cwd"],
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self.process = None
            self.write("stderr", f"{told['argv'][0]}: {error.strerror}\n".encode())
        for _, write_end in self.pipes.values():
            os.close(write_end)
        self.open = {ends[0]: name for name, ends in self.pipes.items()}

    def write(self, name: str, data: bytes) -> None:
        """Append, and out to the host at once."""
        os.write(self.files[name], data)
        _libc.sync_file_range(self.files[name], ctypes.c_int64(0), ctypes.c_int64(0), 7)

    def pump(self, descriptor: int) -> None:
        data = os.read(descriptor, 65536)
        if data:
            self.write(self.open[descriptor], data)
        else:
            os.close(descriptor)
            del self.open[descriptor]

    def finish(self, code: int) -> None:
        """rc appears in one piece, after everything else."""
        for descriptor in self.files.values():
            os.close(descriptor)
        os.sync()
        unfinished = self.folder / "rc.new"
        unfinished.write_text(f"{code}\n")
        os.sync()
        unfinished.rename(self.folder / "rc")


def bind(source: Path, target: str) -> None:
    """mount --bind."""
    mount(str(source), target, "", 0x1000)


class Agent:
    """Runs jobs side by side and reaps whoever is left to PID 1."""

    def __init__(self, share: Path, *, resident: bool) -> None:
        self.jobs_folder = share / "jobs"
        self.resident = resident
        self.running: list[Job] = []
        self.seen: set[str] = set()
        self.statuses: dict[int, int] = {}
        self.wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        os.set_blocking(self.wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)

    def run(self) -> None:
        """Until every job is done, or (resident) until the folder says stop."""
        while True:
            stop = self.look()
            self.reap()
            if not self.running and (stop or not self.resident):
                return
            self.wait()

    def look(self) -> bool:
        """Start what is new; True when the host wants the guest to end."""
        names = sorted(path.name for path in self.jobs_folder.iterdir())
        for name in names:
            if name.isdigit() and name not in self.seen:
                self.seen.add(name)
                job = Job(self.jobs_folder / name)
                if job.process is None:
                    job.finish(127)
                else:
                    self.running.append(job)
        return "stop" in names

    def wait(self) -> None:
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        owners = {descriptor: job for job in self.running for descriptor in job.open}
        for descriptor in owners:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(LOOK_EVERY * 1000 if self.resident else None):
            if descriptor == self.wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
            else:
                owners[descriptor].pump(descriptor)

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                self.statuses[pid] = status
        for job in list(self.running):
            assert job.process is not None
            if (status_ := self.statuses.get(job.process.pid)) is not None:
                # What its own children still write is not waited for: a daemon keeps the pipe for ever.
                self.drain(job)
                code = os.waitstatus_to_exitcode(status_)
                job.process.returncode = code
                job.finish(code if code >= 0 else 128 - code)
                self.running.remove(job)
        self.statuses.clear()

    def drain(self, job: Job) -> None:
        poller = select.poll()
        for descriptor in job.open:
            poller.register(descriptor, select.POLLIN)
        while job.open and (ready := poller.poll(0)):
            for descriptor, _ in ready:
                job.pump(descriptor)
                if descriptor not in job.open:
                    poller.unregister(descriptor)
        for descriptor in list(job.open):
            os.close(descriptor)
            del job.open[descriptor]


def terminal() -> str:
    """The device behind /dev/console, which itself can be nobody's controlling terminal: tty0 on UML, ttyS0 in QEMU."""
    return "/dev/" + Path("/sys/class/tty/console/active").read_text().split()[-1]


def shell(argv: list[str], workdir: str, term: str) -> None:
    """An interactive command on the console, in a session of its own so that it has job control."""
    child = os.fork()
    if child == 0:
        os.setsid()
        descriptor = os.open(
            terminal(),
            os.O_RDWR,
        )  # the first a session's leader opens is its controlling terminal
        for target in (0, 1, 2):
            os.dup2(descriptor, target)
        with contextlib.suppress(OSError):
            os.chdir(workdir)
        os.environ.update({"PATH": PATH, "HOME": "/root", "TERM": term, "LANG": "C.UTF-8"})
        os.execvp(argv[0], argv)
    while os.waitpid(-1, 0)[0] != child:
        pass


def power_off(*, restart: bool) -> None:
    """restart: QEMU with -no-reboot ends at once, a power-off by ACPI may linger."""
    os.sync()
    _libc.reboot(0x01234567 if restart else 0x4321FEDC)
    while True:
        time.sleep(1)


def main(share: Path) -> None:
    """Never returns: PID 1 powers the machine off."""
    os.environ["PATH"] = PATH
    try:
        for source, target, fstype in (("proc", "/proc", "proc"), ("sysfs", "/sys", "sysfs")):
            with contextlib.suppress(OSError):
                mount(source, target, fstype)
        if not Path("/dev").is_mount():  # UML's kernel has mounted it itself
            mount("devtmpfs", "/dev", "devtmpfs")
        guest = json.loads((share / "guest.json").read_text())
        if guest.get("insmod"):
            insert_module(guest["insmod"])
        own_root(Path(guest["scratch"]), guest["lower"], share, ("/dev", "/proc", "/sys"))
        system_mounts()
        settle(guest)
        if (SHARE / "up").exists():
            raise RuntimeError(
                "restarted; a virtual machine boots once",
            )  # UML reboots by running its program again
        (SHARE / "up").write_text(Path("/proc/uptime").read_text().split()[0])
        if guest.get("shell"):
            shell(guest["shell"], guest["workdir"], guest["term"])
        else:
            Agent(SHARE, resident=guest["resident"]).run()
    except BaseException as error:
        print(f"kubewire-vm: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        power_off(restart=not is_uml())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
