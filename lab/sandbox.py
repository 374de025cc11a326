"""The sandbox: fresh namespaces with a PID 1 that reaps, and whose death is the lab's teardown."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from components.machinery import namespaces as ns
from lab import mounts

_FLAGS = ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWCGROUP

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


def start(arguments: list[str], log: Path, keep: list[int]) -> tuple[int, BinaryIO]:
    """Run `python -m lab.inside PROGRESS_FD arguments...` as a daemon; it makes the sandbox with enter().

    A program of its own, not a fork: the caller may have threads, and PID 1 should be small.
    Returns (host pid of the sandbox's PID 1, stream to read progress from).
    keep: descriptors to pass on (the API door). Raises OSError when the namespaces are refused.
    """
    read_end, write_end = os.pipe()
    stream: BinaryIO = os.fdopen(read_end, "rb", buffering=0)
    command = [sys.executable, "-m", "lab.inside", str(write_end), *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"}
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


def enter(state: Path, progress: int, body: Body) -> None:
    """Make the namespaces, fork PID 1 into them, report its pid, and end; PID 1 forks the lab process with body."""
    try:
        if os.geteuid() != 0:
            _own_user_namespace()
        ns.unshare(_FLAGS)
        init = os.fork()
        if init:
            os.write(progress, json.dumps({"init": init}).encode() + b"\n")
            os._exit(0)
    except OSError as error:
        hint = "" if os.geteuid() == 0 else " (as an ordinary user kubewire needs user namespaces: kubewire doctor)"
        os.write(progress, json.dumps({"error": f"cannot make the lab's namespaces: {error}{hint}"}).encode() + b"\n")
        os._exit(1)
    os._exit(_init(state, progress, body))


def _own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    ns.unshare(ns.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def own_folders() -> list[Path]:
    """Where kubewire's code and its interpreter lie: the checkout (or site-packages) and the venv."""
    return [Path(__file__).parent.parent, Path(sys.prefix), Path(sys.base_prefix)]


def _init(state: Path, progress: int, body: Body) -> int:
    """PID 1: prepare the namespaces, fork the lab process, reap until it ends."""
    ns.set_process_name("kubewire-init")
    os.umask(0o022)
    step = "make the sandbox's file system"
    try:
        mounts.enter_root(state, own_folders())
        step = "bring up the sandbox's loopback"
        _loopback_up()
        _fabric_sysctls()
        ns.set_hostname("kubewire")
        os.environ["HOME"] = "/root" if os.access("/root", os.W_OK) else "/tmp"
        os.environ["TMPDIR"] = "/tmp"
    except OSError as error:
        os.write(progress, json.dumps({"failed": {"step": step, "reason": str(error)}}).encode() + b"\n")
        return 1
    lab = os.fork()
    if lab == 0:
        os._exit(_lab(progress, body))
    os.close(progress)
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
