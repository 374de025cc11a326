"""PID 1 of the virtual machine: sets up its file systems, runs the jobs in the shared folder,
powers it off.

It is copied into the shared folder and run by the system's own python3, so it uses the standard
library only. vm/share.py describes the protocol between host and guest.

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
#: The interval in seconds at which a resident guest looks for jobs: hostfs and 9p do not notify it
#: of the host's files.
LOOK_EVERY = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


def mount(
    source: str, target: str | Path, fstype: str = "", flags: int = 0, data: str = ""
) -> None:
    """mount(2). Raises OSError."""
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
    """Makes an overlay of the read-only root, with its upper layer in memory, the new "/". share:
    its path in the old root."""
    mount("kubewire", scratch, "tmpfs", 0, "mode=755,size=75%")
    for name in ("upper", "work", "new"):
        (scratch / name).mkdir()
    new = scratch / "new"
    # nosuid: in a user namespace the host's root directory belongs to another user, and so do its
    # setuid programs.
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
    """True on UML. On QEMU the initrd adds a word to init's arguments (vm/kernels/qemu.py)."""
    return "9p" not in sys.argv[2:]


def insert_module(path: str) -> None:
    """finit_module(2), for the one module that is needed before the modules' folder is mounted."""
    descriptor = os.open(path, os.O_RDONLY)
    if _libc.syscall(313, descriptor, b"", 0) < 0:
        raise OSError(
            ctypes.get_errno(),
            f"insert module {path}: {os.strerror(ctypes.get_errno())}",
        )
    os.close(descriptor)


def mount_host(path: str, target: str, *, writable: bool = False) -> None:
    """Mounts a folder of the host: on UML by its path. In QEMU only the shared folder has its own
    mount; the rest is in the root."""
    if is_uml():
        mount("none", target, "hostfs", 0 if writable else MS_RDONLY, path)
    elif writable:
        mount("share", target, "9p", 0, "trans=virtio,version=9p2000.L,msize=524288,cache=none")
    elif path != target:
        bind(Path(path), target)


def system_mounts() -> None:
    """Makes the mounts that an init system makes."""
    for source, target, fstype, flags, data in (
        ("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
        ("bpf", "/sys/fs/bpf", "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ):
        Path(target).mkdir(exist_ok=True) if target.startswith("/dev") else None
        with contextlib.suppress(
            OSError
        ):  # the kernel may lack it; programs that need it will report that
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
    """Sets hostname and loopback, loads modules, and selects legacy iptables if the kernel has no
    other."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/kernel/hostname").write_text(guest["hostname"])
    # Otherwise every new network namespace starts with tunl0, sit0, ...
    with contextlib.suppress(OSError):
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
    """Mounts a home in memory if needed: the guest's root is nobody on the host, which may not read
    the host's /root."""
    try:
        next(home.iterdir(), None)
    except OSError:
        mount("tmpfs", home, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")


class Job:
    """One command. Its folder holds job.json; the job adds stdout, stderr and, at the end, rc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        told = json.loads((folder / "job.json").read_text())
        for number, path in enumerate(told["outputs"]):
            Path(path).mkdir(parents=True, exist_ok=True)
            bind(folder / "outputs" / str(number), path)
        self.pipes = {name: os.pipe() for name in ("stdout", "stderr")}
        self.files = {
            name: os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for name in self.pipes
        }
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
        """Appends, and flushes to the host at once."""
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
        """Writes rc atomically, after everything else."""
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
    """Runs jobs concurrently, and reaps orphans, as PID 1 must."""

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
        """Runs until every job is done or, if resident, until the folder contains stop."""
        while True:
            stop = self.look()
            self.reap()
            if not self.running and (stop or not self.resident):
                return
            self.wait()

    def look(self) -> bool:
        """Starts new jobs. Returns True if the host wants the guest to end."""
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
                # Output of its own children is not awaited: a daemon would keep the pipe open for
                # ever.
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
    """The device behind /dev/console, which itself cannot be a controlling terminal: tty0 on UML,
    ttyS0 in QEMU."""
    return "/dev/" + Path("/sys/class/tty/console/active").read_text().split()[-1]


def shell(argv: list[str], workdir: str, term: str) -> None:
    """Runs an interactive command on the console, in its own session, so that it has job
    control."""
    child = os.fork()
    if child == 0:
        os.setsid()
        # The first terminal that a session leader opens becomes its controlling terminal.
        descriptor = os.open(terminal(), os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(descriptor, target)
        with contextlib.suppress(OSError):
            os.chdir(workdir)
        os.environ.update({"PATH": PATH, "HOME": "/root", "TERM": term, "LANG": "C.UTF-8"})
        os.execvp(argv[0], argv)
    while os.waitpid(-1, 0)[0] != child:
        pass


def power_off(*, restart: bool) -> None:
    """restart: QEMU with -no-reboot then ends at once; an ACPI power-off may linger."""
    os.sync()
    _libc.reboot(0x01234567 if restart else 0x4321FEDC)
    while True:
        time.sleep(1)


def main(share: Path) -> None:
    """Never returns, because PID 1 powers the machine off."""
    os.environ["PATH"] = PATH
    try:
        for source, target, fstype in (("proc", "/proc", "proc"), ("sysfs", "/sys", "sysfs")):
            with contextlib.suppress(OSError):
                mount(source, target, fstype)
        if not Path("/dev").is_mount():  # UML's kernel mounts it itself
            mount("devtmpfs", "/dev", "devtmpfs")
        guest = json.loads((share / "guest.json").read_text())
        if guest.get("insmod"):
            insert_module(guest["insmod"])
        own_root(Path(guest["scratch"]), guest["lower"], share, ("/dev", "/proc", "/sys"))
        system_mounts()
        settle(guest)
        if (SHARE / "up").exists():
            # UML reboots by executing its program again.
            raise RuntimeError("restarted; a virtual machine boots once")
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
