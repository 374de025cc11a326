"""The sandbox: fresh namespaces with a PID 1 that reaps, and whose death is the lab's teardown."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from kubewire.components.base import sources
from kubewire.components.kernel import namespaces as ns
from kubewire.lab.sandbox import door, mounts
from kubewire.lab.sandbox.contents import Contents
from kubewire.lab.sandbox.request import Doors

_FLAGS = ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS
_MAX_CGROUP_NAMESPACES = "/proc/sys/user/max_cgroup_namespaces"

_LIMIT = 65536

#: What the lab process does inside; it gets the way to report progress and returns an exit code.
Body = Callable[["Progress"], int]


class Progress:
    """Bring-up's events, one JSON object per line, to whoever started the lab.

    That reader is also the lifeline: until release(), its end (a killed `up`) ends the lab.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._released = threading.Event()
        self._wakes, self._wake = os.pipe()

    def send(self, **event: Any) -> bool:
        """False: whoever started the lab is gone."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(event).encode() + b"\n")
            return True
        return False

    def release(self, **event: Any) -> bool:
        """A last event; the lab stands on its own from here on. False: there is no reader any more to hear that."""
        # First of all: the reader may end as soon as it has the event.
        self._released.set()
        os.write(self._wake, b"x")
        heard = self.send(**event)
        os.close(self._descriptor)
        return heard

    def watch_lifeline(self) -> None:
        """In a thread: end this process (and so the sandbox) when the reader is gone before release()."""
        # No time-out: where idle time is skipped (vm/README.md), who wakes twice a second makes hours long.
        poller = select.poll()
        poller.register(self._descriptor, 0)
        poller.register(self._wakes, select.POLLIN)

        def watch() -> None:
            poller.poll()
            if not self._released.is_set():
                os._exit(1)

        threading.Thread(target=watch, name="lifeline", daemon=True).start()


#: All that a lab's processes have of the caller's environment, where it is set: how text is written and what time
#: it is. Nothing else goes in, for it can be read in there (/proc/PID/environ).
ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def clean_environment(outside: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that enters a lab, for one that is started with outside."""
    named = {name: outside[name] for name in ENVIRONMENT if name in outside}
    return {"PATH": PATH, "HOME": "/root", **named}


def start(arguments: list[str], log: Path, keep: list[int]) -> tuple[int, BinaryIO]:
    """Run lab.bringup.inside, with PROGRESS_FD and arguments, as a daemon; it makes the sandbox with enter().

    A program of its own, not a fork: the caller may have threads, and PID 1 should be small.
    Returns (host pid of the sandbox's PID 1, stream to read progress from).
    keep: descriptors to pass on (the API door). Raises OSError when the namespaces are refused.
    """
    read_end, write_end = os.pipe()
    stream: BinaryIO = os.fdopen(read_end, "rb", buffering=0)
    command = [sys.executable, "-m", "kubewire.lab.bringup.inside", str(write_end), *arguments]
    environment = clean_environment(os.environ) | {
        "PYTHONPATH": str(sources.IMPORTED_FROM),
        "PYTHONUNBUFFERED": "1",
    }
    try:
        with log.open("ab") as output:
            outer = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write_end, *keep],
                start_new_session=True,
                env=environment,
                cwd="/",
            )
    finally:
        os.close(write_end)
    try:
        first = _read_line(read_end)
        outer.wait()
        event = json.loads(first) if first else {"error": f"it ended at once: {log.read_text(errors='replace')}"}
        if "error" in event:
            raise OSError(event["error"])
        return int(event["init"]), stream
    except BaseException:
        _abandon(outer, stream)
        raise


def _abandon(outer: subprocess.Popen[bytes], stream: BinaryIO) -> None:
    """End a sandbox that is being made (it leads a session of its own) and wait until nobody in it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(outer.pid, signal.SIGKILL)
    outer.wait()
    poller = select.poll()
    poller.register(stream, 0)  # POLLHUP, when the last one that could report has ended
    poller.poll(10_000)
    stream.close()


def _read_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return line


def enter(contents: Contents, progress: int, doors: Doors, body: Body, *, host_users: bool = False) -> None:
    """Make the namespaces, report PID 1, and end; PID 1 forks the lab process with body.

    Three processes take part. This one keeps the rights of whoever started the lab; it makes the lab's root
    (mounts.py has the order of the steps and why). The second makes the lab's user namespace and, owned by it,
    the others, and forks the third, PID 1. host_users: there is no user namespace of the lab's own.
    """
    try:
        step = "make the lab's namespaces"
        raise_limits()
        ns.own_session_keyring()
        flags = _FLAGS | ns.CLONE_NEWCGROUP
        if os.geteuid() != 0:
            _own_user_namespace()
            flags = _FLAGS
        ns.unshare(ns.CLONE_NEWNS)
        step = "make the sandbox's file system"
        inside = os.open(doors.api.getsockname(), os.O_PATH | os.O_CLOEXEC)
        ids = None if host_users else id_map(Path("/proc/self/uid_map").read_text())
        root = mounts.assemble(replace(contents, user=0 if ids is None else ids[0].outside))
        step = "make the lab's namespaces"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        maker = os.fork()
        if maker == 0:
            ours.close()
            os.close(inside)
            doors.outer.close()
            _make_namespaces(theirs, progress, body, flags, own_users=ids is not None)
        theirs.close()
        if ids is not None:
            _receive(ours, b"user namespace made")
            _write_id_maps(maker, ids)
            ours.send(b"mapped")
        init = int(_receive(ours, b"init ").removeprefix(b"init "))
        step = "make the sandbox's file system"
        _mount_views_of(init, root)
        mounts.enter(root)
        step = "open the API door"
        door.serve(init, doors.outer, inside)
        ours.send(b"enter")
        os.write(progress, json.dumps({"init": init}).encode() + b"\n")
        os._exit(0)
    except OSError as error:
        hint = "" if os.geteuid() == 0 else " (as an ordinary user kubewire needs user namespaces: kubewire doctor)"
        _report_failure(progress, f"cannot {step}: {error}{hint}")
        os._exit(1)


def _report_failure(progress: int, text: str) -> None:
    os.write(progress, json.dumps({"error": text}).encode() + b"\n")


@dataclass(frozen=True)
class Extent:
    """A line of /proc/PID/uid_map (user_namespaces(7)): count ids from inside on are those from outside on."""

    inside: int
    outside: int
    count: int


#: Where ids of a lab lie outside of it when root starts it: 0 inside is 2147483648, which no system gives to anybody
#: (it reserves the upper half, https://systemd.io/UIDS-GIDS/), and all ids that Kubernetes allows have a place.
FIRST_ID = 1 << 31
_ALL_IDS = [Extent(0, 0, (1 << 32) - 1)]


def id_map(text: str) -> list[Extent]:
    """The map of the lab's user namespace, given uid_map of the one that it is made in.

    In the machine's first user namespace the lab's root must not be the machine's: the kernel lets user id 0 write
    kernel-wide sysctls and much of /sys without any capability (test_perm in fs/proc/proc_sysctl.c), so an identity
    map would leave these open. In any other user namespace 0 is somebody else already, and ids stay as they are.
    """
    around = [Extent(*map(int, line.split())) for line in text.splitlines()]
    if around == _ALL_IDS:
        return [Extent(0, FIRST_ID, FIRST_ID - 1)]
    return [Extent(extent.inside, extent.inside, extent.count) for extent in around]


def _write_id_maps(pid: int, ids: list[Extent]) -> None:
    lines = "".join(f"{extent.inside} {extent.outside} {extent.count}\n" for extent in ids)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(lines)


def _own_user_namespace() -> None:
    """As an ordinary user: one in which we may mount. The lab's own is made in it."""
    uid, gid = os.geteuid(), os.getegid()
    ns.unshare(ns.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    # The lab's root is this user, who may own the cgroup that we are in (systemd gives a session its own), with other
    # programs of the session in it. Whoever has a cgroup namespace may mount it, and kill or freeze what is in it. A
    # limit here, around the lab's own user namespace, is out of the lab's reach (namespaces(7)).
    with contextlib.suppress(FileNotFoundError):  # a kernel without cgroups
        Path(_MAX_CGROUP_NAMESPACES).write_text("0")


def _make_namespaces(channel: socket.socket, progress: int, body: Body, flags: int, *, own_users: bool) -> NoReturn:
    """The second process: never returns. What fails is reported as the first process would."""
    try:
        if own_users:
            ns.unshare(ns.CLONE_NEWUSER)
            channel.send(b"user namespace made")
            _receive(channel, b"mapped")
            ns.become(0, 0)
        ns.unshare(flags)
        init = os.fork()
        if init:
            channel.send(f"init {init}".encode())
            os._exit(0)
    except OSError as error:
        channel.send(str(error).encode())
        os._exit(1)
    try:
        _receive(channel, b"enter")
    except OSError:  # the first process has failed and says why
        os._exit(1)
    channel.close()
    os._exit(_init(progress, body))


def _receive(channel: socket.socket, expected: bytes) -> bytes:
    """The next message. Raises OSError with it when it is another one, or when the peer has ended."""
    message = channel.recv(4096)
    if not message.startswith(expected):
        raise OSError(message.decode(errors="replace") or "a process that makes the sandbox has ended")
    return message


def _mount_views_of(init: int, root: Path) -> None:
    """A process in the pid and network namespaces of init mounts their /proc and /sys, with the rights of this one."""
    ns.run_beside(init, "mount /proc and /sys", lambda: mounts.mount_process_views(root))


def raise_limits() -> None:
    """As many descriptors and processes as 1,000 pods need, as far as the caller may have them: inside no one may."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        soft, hard = resource.getrlimit(limit)
        if soft == resource.RLIM_INFINITY or soft >= _LIMIT:
            continue
        try:
            resource.setrlimit(limit, (_LIMIT, hard if hard == resource.RLIM_INFINITY else max(hard, _LIMIT)))
        except ValueError:  # the hard limit is not the caller's to raise
            resource.setrlimit(limit, (hard, hard))


def code_folders() -> list[Path]:
    """Where kubewire's code and its interpreter lie: a checkout's folders and the link to them, or site-packages; the
    virtual environment."""
    folders = ("components", "lab", "scenarios", "topologies", "vm")
    checkout = [sources.FOLDER / name for name in folders] if sources.IS_CHECKOUT else []
    return [*checkout, sources.IMPORTED_FROM, Path(sys.prefix), Path(sys.base_prefix)]


def _init(progress: int, body: Body) -> int:
    """PID 1: finish the namespaces, fork the lab process, reap until it ends."""
    ns.set_process_name("kubewire-init")
    os.umask(0o022)
    step = "make the sandbox's file system"
    try:
        ns.unshare(ns.CLONE_NEWNS)
        ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
        mounts.finish()
        step = "bring up the sandbox's loopback"
        _loopback_up()
        _fabric_sysctls()
        ns.set_hostname("kubewire")
        os.environ["TMPDIR"] = "/tmp"
    except OSError as error:
        os.write(progress, json.dumps({"failed": {"step": step, "reason": str(error)}}).encode() + b"\n")
        return 1
    lab = os.fork()
    if lab == 0:
        os._exit(_lab(progress, body))
    # Of the sockets that lead in, too: one that PID 1 held would go on to take connections that nobody serves.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(lab, received))
    return _reap_until(lab)


def _lab(progress: int, body: Body) -> int:
    ns.set_process_name("kubewire-lab")
    reporter = Progress(progress)
    reporter.watch_lifeline()
    try:
        return body(reporter)
    except BaseException:
        traceback.print_exc()
        reporter.send(failed={"step": "bring up the lab", "reason": traceback.format_exc()})
        return 1
    finally:
        sys.stderr.flush()


def _reap_until(lab: int) -> int:
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if pid == lab:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        siocsifflags, iff_up, iff_running = 0x8914, 0x1, 0x40
        fcntl.ioctl(sock, siocsifflags, struct.pack("16sh14x", b"lo", iff_up | iff_running))


def _fabric_sysctls() -> None:
    """The switches must only switch: Service traffic between two ports of a bridge is not the fabric's business."""
    for family in ("ip", "ip6", "arp"):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables").write_text("0")
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")


def events(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """The progress events until the lab releases the pipe or ends."""
    pending = b""
    while chunk := stream.read(65536):
        *lines, pending = (pending + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines if line)
