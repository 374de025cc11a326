"""The sandbox: new namespaces around a lab, with a PID 1 whose end is the teardown.

A lab consists of hundreds of processes, interfaces, rules and mounts. Removing them one by one
would need clean-up code that is correct after every possible failure. Instead, everything that a
lab creates belongs to namespaces of its own. When the first process of a pid namespace ends, the
kernel kills every other process in it (pid_namespaces(7)), and a namespace without processes is
freed with all that it contains. So ending PID 1, in whatever way, removes the lab, and there is no
second way to test.

Three things always hold:

- The lab has a user namespace of its own, which owns its other namespaces. Capabilities of its root
  apply to these alone. The only exception is a lab with `hostUsers: true`.
- The process that starts the lab is its lifeline until the lab is ready (or for all its life, with
  `kubewire run`): the lab process ends when the pipe to it is closed.
- From outside, only the sockets in request.Doors lead in, and nothing leads out.

Making the namespaces takes three processes, because each step needs the rights of a different one.
`enter` describes them; mounts.py explains the order in which the root file system is made.
(namespaces(7), user_namespaces(7).)
"""

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

#: Open files and processes (setrlimit(2)) that a lab of 1,000 pods needs.
_LIMIT = 65536

#: The program of the lab process. It receives the means to report progress, and returns an exit
#: code.
Body = Callable[["Progress"], int]


class Progress:
    """Sends the events of bring-up to the process that started the lab, one JSON object per line.

    That process is also the lifeline: if it ends before release(), for example a killed `up`, the
    lab ends too.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._released = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()

    def send(self, **event: Any) -> bool:
        """Send an event. Returns False if the process that started the lab has ended."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(event).encode() + b"\n")
            return True
        return False

    def release(self, **event: Any) -> bool:
        """Send a last event; from here on the lab no longer depends on its starter. Returns False
        if the starter has ended already."""
        # This comes before the event, because the starter may end as soon as it has read it.
        self._released.set()
        os.write(self._wake_writer, b"x")
        delivered = self.send(**event)
        os.close(self._descriptor)
        return delivered

    def watch_lifeline(self) -> None:
        """Start a thread that ends this process, and so the sandbox, if the starter ends before
        release()."""
        # Polling with a time-out would stop idle time from being skipped (vm/README.md).
        poller = select.poll()
        poller.register(self._descriptor, 0)
        poller.register(self._wake_reader, select.POLLIN)

        def watch() -> None:
            poller.poll()
            if not self._released.is_set():
                os._exit(1)

        threading.Thread(target=watch, name="lifeline", daemon=True).start()


#: The variables of the caller's environment that a lab's processes get, if they are set: language
#: and time zone. The lab can read its environment (/proc/PID/environ), so nothing else goes in.
ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def clean_environment(outside: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that enters a lab. outside: the environment of the caller."""
    named = {name: outside[name] for name in ENVIRONMENT if name in outside}
    return {"PATH": PATH, "HOME": "/root", **named}


def start(arguments: list[str], log: Path, keep: list[int]) -> tuple[int, BinaryIO]:
    """Run kubewire.lab.bringup.inside, which makes the sandbox with enter(), as a daemon.

    It is a new program and not a fork, because the caller may have threads and PID 1 should be
    small. arguments: its command line after the descriptor for progress. keep: descriptors that it
    inherits. Returns the sandbox's PID 1 as the machine numbers it, and the stream of its events.
    Raises OSError if the kernel refuses the namespaces.
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
        if not first:
            raise OSError(f"it ended at once: {log.read_text(errors='replace')}")
        event = json.loads(first)
        if "error" in event:
            raise OSError(event["error"])
        return int(event["init"]), stream
    except BaseException:
        _abandon(outer, stream)
        raise


def _abandon(outer: subprocess.Popen[bytes], stream: BinaryIO) -> None:
    """End a sandbox that is being made, and wait until all its processes have ended. Until PID 1
    exists, they are one process group: outer leads a session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(outer.pid, signal.SIGKILL)
    outer.wait()
    poller = select.poll()
    poller.register(stream, 0)  # POLLHUP comes when the last process with the pipe has ended
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


def enter(
    contents: Contents,
    progress: int,
    doors: Doors,
    body: Body,
    *,
    host_users: bool = False,
) -> None:
    """Make the namespaces, report PID 1, and end; PID 1 forks the lab process with body.

    Three processes take part. This one keeps the rights of the user who started the lab and makes
    the lab's root; mounts.py explains the order of the steps. The second makes the lab's user
    namespace and then, owned by it, the others, and forks the third, PID 1. The two sides wait for
    each other by messages on a socket pair. host_users: make no user namespace for the lab.
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
        hint = (
            ""
            if os.geteuid() == 0
            else " (without root, kubewire needs user namespaces; `kubewire doctor` checks them)"
        )
        _report_failure(progress, f"cannot {step}: {error}{hint}")
        os._exit(1)


def _report_failure(progress: int, text: str) -> None:
    os.write(progress, json.dumps({"error": text}).encode() + b"\n")


@dataclass(frozen=True)
class Extent:
    """A line of /proc/PID/uid_map (user_namespaces(7)): it maps count ids, starting with inside, to
    those starting with outside."""

    inside: int
    outside: int
    count: int


#: If root starts a lab, id 0 inside is this id (2147483648) outside, and so on upwards. Systems
#: give ids of the upper half to no user (https://systemd.io/UIDS-GIDS/), and it has room for all
#: ids that Kubernetes allows (runAsUser: 0 to 2147483647).
FIRST_ID = 1 << 31
_ALL_IDS = [Extent(0, 0, (1 << 32) - 1)]


def id_map(text: str) -> list[Extent]:
    """The id map of the lab's user namespace. text: uid_map of the namespace in which it is made.

    In the machine's initial user namespace, root of the lab must not have user id 0. The kernel
    lets user id 0 write kernel-wide sysctls and much of /sys without any capability (test_perm in
    fs/proc/proc_sysctl.c), so an identity map would leave these open. In any other user namespace
    id 0 is not the machine's root, and the ids stay as they are.
    """
    parents = [Extent(*map(int, line.split())) for line in text.splitlines()]
    if parents == _ALL_IDS:
        return [Extent(0, FIRST_ID, FIRST_ID - 1)]
    return [Extent(extent.inside, extent.inside, extent.count) for extent in parents]


def _write_id_maps(pid: int, ids: list[Extent]) -> None:
    lines = "".join(f"{extent.inside} {extent.outside} {extent.count}\n" for extent in ids)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(lines)


def _own_user_namespace() -> None:
    """Enter a user namespace in which an ordinary user may mount. The lab's own is made in it."""
    uid = os.geteuid()
    gid = os.getegid()
    ns.unshare(ns.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    # Root of the lab is this user. The user may own the current cgroup (systemd gives a session its
    # own), and it contains other programs of the session. A process in a new cgroup namespace may
    # mount that cgroup and kill or freeze them. This limit forbids new cgroup namespaces. The lab
    # cannot change it, because it belongs to a user namespace outside the lab's (namespaces(7)).
    with contextlib.suppress(FileNotFoundError):  # the kernel has no cgroups
        Path(_MAX_CGROUP_NAMESPACES).write_text("0")


def _make_namespaces(
    channel: socket.socket,
    progress: int,
    body: Body,
    flags: int,
    *,
    own_users: bool,
) -> NoReturn:
    """Run the second process of enter(). Sends errors to the first process, which reports them."""
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
    except OSError:  # the first process has failed and reports the reason
        os._exit(1)
    channel.close()
    os._exit(_init(progress, body))


def _receive(channel: socket.socket, expected: bytes) -> bytes:
    """The next message. Raises OSError with its text if it is not the expected one, or if the peer
    has ended."""
    message = channel.recv(4096)
    if not message.startswith(expected):
        raise OSError(
            message.decode(errors="replace") or "a process that makes the sandbox has ended",
        )
    return message


def _mount_views_of(init: int, root: Path) -> None:
    """Mount /proc and /sys of the pid and network namespaces of init, by a process in them that has
    the rights of this one."""
    ns.run_beside(init, "mount /proc and /sys", lambda: mounts.mount_process_views(root))


def raise_limits() -> None:
    """Raise the limits of open files and processes as far as the caller may. In the lab's user
    namespace nobody has the right to raise a hard limit."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        soft, hard = resource.getrlimit(limit)
        if soft == resource.RLIM_INFINITY or soft >= _LIMIT:
            continue
        try:
            resource.setrlimit(
                limit,
                (_LIMIT, hard if hard == resource.RLIM_INFINITY else max(hard, _LIMIT)),
            )
        except ValueError:  # the caller may not raise the hard limit
            resource.setrlimit(limit, (hard, hard))


def code_folders() -> list[Path]:
    """The folders with kubewire's code and its interpreter: those of the checkout and the link to
    them, or site-packages; the virtual environment."""
    folders = ("components", "lab", "scenarios", "topologies", "vm")
    checkout = [sources.FOLDER / name for name in folders] if sources.IS_CHECKOUT else []
    return [*checkout, sources.IMPORTED_FROM, Path(sys.prefix), Path(sys.base_prefix)]


def _init(progress: int, body: Body) -> int:
    """Run PID 1: finish the namespaces, fork the lab process, and reap until it ends."""
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
        os.write(
            progress,
            json.dumps({"failed": {"step": step, "reason": str(error)}}).encode() + b"\n",
        )
        return 1
    lab = os.fork()
    if lab == 0:
        os._exit(_lab(progress, body))
    # This also closes the sockets that lead in. If PID 1 kept one, the kernel would go on to accept
    # connections on it after the process that serves it has ended.
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
    """Turn off bridge netfilter and IPv6 in the switches' namespace: a switch must forward frames
    as they are, and kube-proxy's rules apply only on nodes."""
    for family in ("ip", "ip6", "arp"):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables").write_text("0")
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")


def events(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the events of bring-up until the lab releases the pipe or ends."""
    pending = b""
    while chunk := stream.read(65536):
        *lines, pending = (pending + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines if line)
