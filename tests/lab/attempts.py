"""Attempts to get out of a lab: run inside by the system's python3, from standard input. Standard library only.

argv[1] is JSON: where to look on the machine (see test_security.py). Prints a JSON object: name of the attempt ->
what it achieved, "" when it did not succeed. Each attempt is harmless where it succeeds: it opens without writing, or
makes an empty file that the test removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator

TARGETS = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
MS_REMOUNT = 0x20
MS_BIND = 0x1000
CLONE_NEWNS = 0x20000
CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000


def attempt_a_device_node() -> Iterator[str]:
    """A block device of the machine, or its memory, by a node that the lab makes."""
    places = ["/tmp", "/dev", "/root", "/var/tmp", "/run", "/host/tmp", "/host/dev"]
    if _mount_somewhere("tmpfs", "/mnt"):
        places.append("/mnt")
    for place in places:
        # A disk, a loop device, the memory, and null: whoever may open one that it made may open any.
        for kind, number in (
            (stat.S_IFBLK, TARGETS["disk"]),
            (stat.S_IFBLK, [7, 0]),
            (stat.S_IFCHR, [1, 1]),
            (stat.S_IFCHR, [1, 3]),
        ):
            path = f"{place}/node-{os.getpid()}"
            try:
                os.mknod(path, kind | 0o600, os.makedev(*number))
            except OSError:
                continue
            try:
                os.close(os.open(path, os.O_RDONLY))
                yield f"opened {number} in {place}"
            except OSError:
                pass
            finally:
                os.unlink(path)


def attempt_the_machines_devices() -> Iterator[str]:
    """Device files that are there already."""
    for root in _roots():
        for path in glob.glob(f"{root}/dev/*") + glob.glob("/host/dev/*"):
            status = os.lstat(path)
            if stat.S_ISBLK(status.st_mode) or path.endswith(("/mem", "/kmsg", "/kvm", "/port")):
                with contextlib.suppress(OSError):
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                    yield path


def attempt_to_write_the_machines_files() -> Iterator[str]:
    """Programs and kubewire's own code, also after a remount, also in a mount namespace and user namespace of its own."""
    for isolate in (lambda: None, lambda: LIBC.unshare(CLONE_NEWNS), lambda: LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS)):
        yield from _in_child(isolate, _write_read_only)


def _write_read_only() -> Iterator[str]:
    for root in _roots():
        for folder in (*TARGETS["readOnly"], "/.host", "/host/.host"):
            path = root + folder
            for mount_point in {path, f"{root}/usr", f"{root}/.host", root or "/"}:
                _mount("none", mount_point, "", MS_REMOUNT | MS_BIND)
            name = f"{path}/{TARGETS['marker']}"
            with contextlib.suppress(OSError):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600))
                yield name  # the test looks whether it is the machine's


def attempt_to_look_below_mounts() -> Iterator[str]:
    """What a mount of the lab covers: unmount it and look."""

    def look() -> Iterator[str]:
        LIBC.unshare(CLONE_NEWNS)
        for place in ("/proc", "/sys", "/dev", "/tmp", "/usr", "/etc", "/run", "/var/log/kubewire", "/"):
            for _ in range(5):
                if LIBC.umount2(place.encode(), 2) < 0:
                    break
        yield from _secrets_below("")
        yield from (f"process {pid}" for pid in TARGETS["processes"] if _is(pid))

    yield from _in_child(lambda: None, look)


def attempt_kernel_wide_settings() -> Iterator[str]:
    """Settings that are the whole kernel's, in /proc and /sys as they are and in fresh ones."""

    def look() -> Iterator[str]:
        for proc, sys_ in (("/proc", "/sys"), *_fresh_views()):
            for path in TARGETS["settings"]:
                path = path.replace("/proc", proc, 1) if path.startswith("/proc") else path.replace("/sys", sys_, 1)
                with contextlib.suppress(OSError):
                    os.close(os.open(path, os.O_WRONLY))
                    yield path

    yield from look()
    yield from _in_child(lambda: LIBC.unshare(CLONE_NEWNS | CLONE_NEWPID), look)


def attempt_the_callers_environment() -> Iterator[str]:
    """What the shell of whoever typed `kubewire up` exports."""
    for path in glob.glob("/proc/[0-9]*/environ"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if TARGETS["secret"].encode() in file.read():
                yield path


def attempt_the_state_directory() -> Iterator[str]:
    """Files that commands on the machine trust."""
    for root in _roots():
        for name in ("", "/kubeconfig", "/lab.json", "/api.sock", "/control.sock", "/runtime.sock"):
            path = f"{root}{TARGETS['state']}{name}"
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if [status.st_dev, status.st_ino] in TARGETS["stateFiles"]:
                    yield path


def attempt_to_read_the_machines_files() -> Iterator[str]:
    """Files outside of what a lab is meant to see, by their own path and by every other root there is a way to."""
    for root in _roots():
        yield from _secrets_below(root)


def _secrets_below(root: str) -> Iterator[str]:
    for path in TARGETS["secrets"]:
        with contextlib.suppress(OSError):
            status = os.stat(root + path)
            if [status.st_dev, status.st_ino] in TARGETS["secretFiles"]:
                yield root + path


def attempt_other_processes() -> Iterator[str]:
    """Processes of the machine and of other labs: seen, entered, signalled."""
    for pid in TARGETS["processes"]:
        if _is(pid):
            yield f"sees process {pid}"


def attempt_the_machines_network() -> Iterator[str]:
    """The machine's loopback, its abstract unix sockets, and interfaces that lead out."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", TARGETS["port"]), timeout=1).close()
        yield "a listener on the machine's loopback"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + TARGETS["abstract"])
        yield "an abstract unix socket of the machine"
    yield from _the_door_turned_around()


def _the_door_turned_around() -> Iterator[str]:
    """The API server's sockets on the machine's loopback: shut down, then connected or bound to something else there.

    The listening one is opened again afterwards; of the accepted ones only that of the test's own connection is used.
    """
    door = ("127.0.0.1", TARGETS["doorPort"])
    for sock in _sockets_of_all_processes():
        with sock, contextlib.suppress(OSError):
            if sock.family != socket.AF_INET or sock.type != socket.SOCK_STREAM or sock.getsockname() != door:
                continue
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listens and sock.getpeername()[1] != TARGETS["doorClient"]:
                continue
            yield from _turned_around(sock, "the listening door" if listens else "a connection of the door")
            if listens:
                _disconnect(sock)
                sock.listen(256)
                sock.setblocking(False)


def _turned_around(sock: socket.socket, name: str) -> Iterator[str]:
    seen = _connected(sock, TARGETS["port"])
    if seen != _connected(sock, 1):  # a port where nothing listens: neither may be told from the other
        yield f"{name} tells what listens on the machine: {seen}"
    for option, value in ((socket.SO_BINDTODEVICE, b""), (27, b"\0" * 4), (44, b"\0" * 4)):  # SO_DETACH_, LOCK_FILTER
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, value)
            yield f"{name}: socket option {option} undone"


def _connected(sock: socket.socket, port: int) -> str:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    _disconnect(sock)
    sock.settimeout(1)
    try:
        sock.connect(("127.0.0.1", port))
        return "connected"
    except OSError as error:
        return str(error)


def _disconnect(sock: socket.socket) -> None:
    """connect(2) to AF_UNSPEC."""
    LIBC.connect(sock.fileno(), b"\0" * 16, 16)


def _sockets_of_all_processes() -> Iterator[socket.socket]:
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        pid, number = int(path.split("/")[2]), int(path.split("/")[4])
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            process = os.pidfd_open(pid)
            try:
                taken = LIBC.syscall(438, process, number, 0)  # pidfd_getfd
                if taken >= 0:
                    yield socket.socket(fileno=taken)
            finally:
                os.close(process)


def attempt_kernel_modules() -> Iterator[str]:
    """finit_module(2) of a file that is no module: the kernel asks for the right first."""
    with open("/dev/null") as nothing:
        LIBC.syscall(313 if os.uname().machine == "x86_64" else 273, nothing.fileno(), b"", 0)
    if ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):  # ENOSYS: a kernel without modules
        yield f"errno {ctypes.get_errno()} instead of EPERM"


def attempt_machine_wide_calls() -> Iterator[str]:
    """The clock and swap of the whole machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, call in {
        # A time zone that is not possible: whoever has the right gets EINVAL, and nothing changes.
        "settimeofday": lambda: libc.settimeofday(None, ctypes.byref((ctypes.c_int * 2)(100_000, 0))),
        "swapoff": lambda: libc.swapoff(b"/nothing"),
    }.items():
        ctypes.set_errno(0)
        call()
        if ctypes.get_errno() != errno.EPERM:
            yield f"{name}: errno {ctypes.get_errno()} instead of EPERM"


def _is(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return TARGETS["commandLine"].encode() in file.read()
    return False


def _roots() -> Iterator[str]:
    """Ways to a root: this one's, a hostPath of the node's, those of all processes that are seen, and above."""
    yield ""
    for root in ("/host", "/.host", "/../..", *glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")):
        if os.path.isdir(root):
            yield root


def _mount(source: str, target: str, fstype: str, flags: int = 0) -> bool:
    return LIBC.mount(source.encode(), target.encode(), fstype.encode() or None, ctypes.c_ulong(flags), None) == 0


def _mount_somewhere(fstype: str, target: str) -> bool:
    return os.path.isdir(target) and _mount(fstype, target, fstype)


def _fresh_views() -> list[tuple[str, str]]:
    os.makedirs("/tmp/fresh/proc", exist_ok=True)
    os.makedirs("/tmp/fresh/sys", exist_ok=True)
    _mount("proc", "/tmp/fresh/proc", "proc")
    _mount("sysfs", "/tmp/fresh/sys", "sysfs")
    return [("/tmp/fresh/proc", "/tmp/fresh/sys")]


def _in_child(isolate: Callable[[], object], work: Callable[[], Iterator[str]]) -> Iterator[str]:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(Exception):
            isolate()
            grandchild = os.fork()  # a new pid namespace is for children
            if grandchild == 0:
                with contextlib.suppress(Exception):
                    for found in work():
                        os.write(write_end, found.encode() + b"\n")
                os._exit(0)
            os.waitpid(grandchild, 0)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        yield from lines.read().splitlines()
    os.waitpid(child, 0)


def main() -> None:
    found = {}
    for name, attempt in list(globals().items()):
        if name.startswith("attempt_"):
            achieved = list(attempt())
            found[name.removeprefix("attempt_").replace("_", " ")] = "; ".join(achieved[:20])
    for path in ("/mnt", "/tmp/fresh/proc", "/tmp/fresh/sys"):
        subprocess.run(["umount", path], stderr=subprocess.DEVNULL)
    print(json.dumps(found))


main()
