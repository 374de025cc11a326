"""What a forked child does before its program runs: descriptors, namespaces, root, user; then exec or main().

Errors go to the fork server over the status socket as one JSON object; end of stream means that it runs.
"""

# pathlib would cost every container memory; paths here are the kernel's strings.
# ruff: noqa: PTH103
from __future__ import annotations

import array
import atexit
import errno
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import termios
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kubewire.components.kernel import namespaces as ns

from . import builder, credentials, rootfs
from .spec import ProcessSpec, StartError, spec_from_json
from .title import ArgvArea, set_title

#: Our own descriptors lie from here on while the program's (0 to RESERVED - 1) are put in place; below 64, where
#: the kernel would have to grow the descriptor table.
RESERVED = 32
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


@dataclass(frozen=True)
class Task:
    """A child to become: the request read by the forking parent, untouched, and its descriptors.

    built: a helper is to make its namespaces and root (builder.py).
    """

    payload: int
    status: int
    fds: tuple[int, ...]
    built: bool = False


def payload_json(spec: dict[str, Any], names: Sequence[str], layout: rootfs.Layout) -> bytes:
    """The request as it travels in a memfd: the spec, the names of the descriptors, the machine's layout."""
    body = {"spec": spec, "fds": list(names), "layout": asdict(layout)}
    return json.dumps(body, separators=(",", ":")).encode()


def become(task: Task, area: ArgvArea | None) -> int:
    """Turn this forked child into the program of the task; returns main's exit code (exec does not return)."""
    status = socket.socket(fileno=fcntl.fcntl(task.status, fcntl.F_DUPFD_CLOEXEC, RESERVED))
    try:
        program = _prepare_built(task, status, area) if task.built else _prepare(task, status, area)
    except builder.Failed as err:
        if not err.reported:
            _report(status, {"error": {"message": str(err), "stage": "rootfs", "errno": 0}})
        return 128
    except StartError as err:
        _report(status, {"error": {"message": str(err), "stage": err.stage, "errno": err.errno}})
        return 128
    except BaseException as err:
        _report(status, {"error": {"message": f"{type(err).__name__}: {err}", "stage": "start", "errno": 0}})
        return 128
    status.close()
    del task, status
    return _call(program)


def to_be_built(spec: ProcessSpec) -> bool:
    """Whether a helper is worth its fork: for a Python program (exec starts with clean pages anyway) with its own root.

    A terminal is opened in the new root by the session that it is to control, and a joined user namespace counts for
    what comes after it: these do it all by themselves.
    """
    return bool(spec.main) and spec.rootfs is not None and spec.tty is None and "user" not in spec.join


def _prepare(task: Task, status: socket.socket, area: ArgvArea | None) -> Callable[[], Any]:
    spec, named, layout = _read(task)
    function = _import_main(spec.main) if spec.main else None
    _reset_signals()
    os.setsid()
    _set_environment(spec)
    _enter(spec, named, layout, status)
    _install_descriptors(spec, named, status)
    _become_user(spec)
    if function is not None:
        return _forked(function, spec, area)
    _exec(spec.argv)
    raise AssertionError("unreachable")


#: What a process itself still has to do when its namespaces and its root are built.
_OWN = ("main", "args", "name", "env", "add_env", "cwd", "user", "group", "groups", "capabilities")


def _prepare_built(task: Task, status: socket.socket, area: ArgvArea | None) -> Callable[[], Any]:
    fields, names = builder.build(lambda: _build(task, status))
    spec = ProcessSpec(**fields)
    function = _import_main(spec.main)
    _reset_signals()
    os.setsid()
    _set_environment(spec)
    _install_descriptors(spec, dict(zip(names, task.fds, strict=True)), status)
    _become_user(spec)
    return _forked(function, spec, area)


def _build(task: Task, status: socket.socket) -> tuple[int, Any]:
    """In the helper: reports what fails."""
    try:
        spec, named, layout = _read(task)
        _enter(spec, named, layout, status)
    except StartError as err:
        _report(status, {"error": {"message": str(err), "stage": err.stage, "errno": err.errno}})
        raise
    except Exception as err:  # whoever asked must hear why, whatever it was
        _report(status, {"error": {"message": f"{type(err).__name__}: {err}", "stage": "start", "errno": 0}})
        raise
    kinds = {name.removeprefix("ns:") for name in named if name.startswith("ns:")} | set(spec.unshare)
    flags = sum(ns.NAMESPACES[name] for name in kinds - {"pid"})
    return flags, ({name: getattr(spec, name) for name in _OWN}, list(named))


def _read(task: Task) -> tuple[ProcessSpec, dict[str, int], rootfs.Layout]:
    with open(task.payload, "rb") as file:
        body = json.load(file)
    named = dict(zip(body["fds"], task.fds, strict=True))
    return spec_from_json(body["spec"]), named, rootfs.Layout(**body["layout"])


def _enter(spec: ProcessSpec, named: Mapping[str, int], layout: rootfs.Layout, status: socket.socket) -> None:
    _join(spec, named)
    _write_sysctls(spec.sysctls)
    if spec.rootfs is not None:
        if spec.rootfs.hostname:
            ns.set_hostname(spec.rootfs.hostname)
        rootfs.enter(spec.rootfs, layout, lambda text: _report(status, {"warning": text}))


def _become_user(spec: ProcessSpec) -> None:
    _change_directory(spec.cwd)
    credentials.apply(spec)
    os.umask(0o022)
    # After setuid, which clears it: nothing may outlive the fork server.
    ns.set_parent_death_signal(signal.SIGKILL)


def _import_main(path: str) -> Callable[[list[str]], Any]:
    module_name, _, function_name = path.partition(":")
    try:
        function: Callable[[list[str]], Any] = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as err:
        raise StartError(f"main {path}: {err}", "import") from None
    return function


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _set_environment(spec: ProcessSpec) -> None:
    complete = dict(os.environ) if spec.env is None else dict(spec.env)
    complete.update(spec.add_env)
    complete.setdefault("PATH", os.defpath if spec.env is None else DEFAULT_PATH)
    os.environ.clear()
    os.environ.update(complete)


#: containerd's and Docker's, for an environment that has none.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _join(spec: ProcessSpec, named: Mapping[str, int]) -> None:
    for name, flag in ns.NAMESPACES.items():
        # The pid namespace was entered by the parent around fork(): it counts for children only.
        if name != "pid" and f"ns:{name}" in named:
            try:
                ns.setns(named[f"ns:{name}"], flag)
            except OSError as err:
                raise StartError(f"join {name} namespace: {err.strerror}", f"join {name}", err.errno or 0) from None
    flags = 0
    for name in spec.unshare:
        flags |= 0 if name == "pid" else ns.NAMESPACES[name]
    if flags:
        try:
            ns.unshare(flags)
        except OSError as err:
            raise StartError(f"unshare {', '.join(spec.unshare)}: {err.strerror}", "unshare", err.errno or 0) from None
    if "net" in spec.unshare:
        _loopback_up()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack("16sh22x", request)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _write_sysctls(sysctls: Mapping[str, str]) -> None:
    """Before the root is entered (there /proc/sys is read-only); net.* and kernel.shm* are the joined namespace's."""
    for key, value in sysctls.items():
        path = "/proc/sys/" + key.replace(".", "/")
        try:
            with open(path, "w") as file:
                file.write(value)
        except OSError as err:
            raise StartError(f"sysctl {key}={value}: {err.strerror}", f"sysctl {key}", err.errno or 0) from None


def _install_descriptors(spec: ProcessSpec, named: Mapping[str, int], status: socket.socket) -> None:
    """0, 1, 2 and the extra numbers; everything else is closed or closes at exec."""
    wanted: dict[int, int] = {}
    if spec.tty is not None:
        slave = _open_terminal(spec, status)
        wanted = dict.fromkeys((0, 1, 2), slave)
    else:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            wanted[number] = named.get(name, null)
    for name, fd in named.items():
        if name.startswith("fd:"):
            wanted[int(name[3:])] = fd
    # First out of the way of the wanted numbers, then onto them.
    moved = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, RESERVED) for target, fd in wanted.items()}
    for target, fd in moved.items():
        os.dup2(fd, target, inheritable=True)
    _close_others({*wanted, status.fileno()})


def _close_others(kept: set[int]) -> None:
    low = 0
    for fd in sorted(kept):
        if low < fd:  # closerange(0, 0) of Python 3.11 closes everything
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


def _open_terminal(spec: ProcessSpec, status: socket.socket) -> int:
    """A pty of this root's /dev/pts; the master goes to the fork server, the slave becomes our terminal."""
    assert spec.tty is not None
    try:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))[0]
        slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        size = struct.pack("HHHH", spec.tty.rows, spec.tty.columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if isinstance(spec.user, int):
            os.fchown(slave, spec.user, -1)
        if spec.rootfs is not None:
            rootfs.bind_console(f"/dev/pts/{number}")
    except OSError as err:
        raise StartError(f"open terminal: {err}", "tty", err.errno or 0) from None
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))]
    status.sendmsg([b'{"tty":true}\n'], ancillary)
    os.close(master)
    return slave


def _change_directory(cwd: str) -> None:
    if not cwd:
        return
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        # runc makes a missing working directory.
        os.makedirs(cwd, exist_ok=True)
        os.chdir(cwd)
    except OSError as err:
        message = f'chdir to cwd ("{cwd}") set in config.json failed: {_lower(err)}'
        raise StartError(message, "cwd", err.errno or 0) from None


def _exec(argv: Sequence[str]) -> None:
    """execve with a PATH search in the new root; the errors in runc's words."""
    program = argv[0]
    candidates = [program] if "/" in program else [f"{d or '.'}/{program}" for d in os.environ["PATH"].split(":")]
    found: OSError | None = None
    for path in candidates:
        try:
            os.execv(path, list(argv))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            found = found or err
    if "/" in program:
        reason = f"stat {program}: no such file or directory" if found is None else _lower(found)
    else:
        reason = "executable file not found in $PATH" if found is None else _lower(found)
    number = errno.ENOENT if found is None else found.errno or 0
    raise StartError(f'exec: "{program}": {reason}', "exec", number)


def _lower(err: OSError) -> str:
    text = err.strerror or str(err)
    return text[:1].lower() + text[1:]


def _forked(function: Callable[[list[str]], Any], spec: ProcessSpec, area: ArgvArea | None) -> Callable[[], Any]:
    name = spec.name or spec.main.partition(":")[0].rpartition(".")[2]
    # As Python's own start-up does: a peer that has hung up is an OSError, not the end of the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    set_title(area, name, spec.args)
    args = list(spec.args)
    sys.argv = [name, *args]
    return lambda: function(args)


def _call(program: Callable[[], Any]) -> int:
    gc.enable()
    code: object
    try:
        code = program()
    except SystemExit as err:
        code = err.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    # Private, but all that stands between os._exit and handlers that the program registered.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    return int(code) & 0xFF if isinstance(code, int) else 0


def _report(status: socket.socket, message: dict[str, Any]) -> None:
    try:
        status.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass
