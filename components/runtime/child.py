"""Turns a forked child into its program: descriptors, namespaces, root, user, then exec or main().

This corresponds to runc's `init` stage. The order of the steps is given by what each of them takes
away (namespaces(7), user_namespaces(7), capabilities(7)):

1. Join namespaces first, and the user namespace first of all: the rights to join the others, to
   mount and to set a hostname come from it.
2. Unshare new namespaces, write sysctls, set the hostname, build the root and pivot into it.
   Sysctls come before the root, because its /proc/sys is read-only.
3. Open the terminal in the new root, because it must be a pty of the container's own /dev/pts, and
   put the descriptors in place.
4. Set groups, user and capabilities last: after that, most of the steps above are forbidden.

The pid namespace is missing here. A process cannot change its own, only that of its children, so
the forking parent enters or makes it around fork() (zygote.py).

The fork server learns the result over the status socket, one JSON object per line: an error, a
warning, or a terminal with its descriptor. The socket is closed by exec, or just before main() is
called, so its end of stream without an error means that the program runs.

If the program is Python and gets a root of its own, a helper does steps 1 and 2 (builder.py).
"""

# pathlib is not used, because importing it would cost memory in every container.
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

#: While the program's descriptors (0 to RESERVED - 1) are put in place, this code's own ones are
#: moved to numbers from here on. They stay below 64, above which the kernel must enlarge the
#: table.
RESERVED = 32
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


@dataclass(frozen=True)
class Task:
    """What a child has to become.

    payload: the memfd of the request, which the forking parent has not read. status: the socket for
    reports. fds: the other descriptors, in the order of their names in the request. built: a helper
    makes namespaces and root (builder.py).
    """

    payload: int
    status: int
    fds: tuple[int, ...]
    built: bool = False


def payload_json(spec: dict[str, Any], names: Sequence[str], layout: rootfs.Layout) -> bytes:
    """The content of the memfd: the spec, the names of the descriptors, the machine's layout."""
    body = {"spec": spec, "fds": list(names), "layout": asdict(layout)}
    return json.dumps(body, separators=(",", ":")).encode()


def become(task: Task, area: ArgvArea | None) -> int:
    """Turns this forked child into its program; returns main's exit code (exec does not return)."""
    status = socket.socket(fileno=fcntl.fcntl(task.status, fcntl.F_DUPFD_CLOEXEC, RESERVED))
    try:
        prepare = _prepare_built if task.built else _prepare
        program = prepare(task, status, area)
    except builder.Failed as err:
        if not err.reported:
            _report(status, {"error": {"message": str(err), "stage": "rootfs", "errno": 0}})
        return 128
    except BaseException as err:
        _report_error(status, err)
        return 128
    status.close()
    del task, status
    return _call(program)


def to_be_built(spec: ProcessSpec) -> bool:
    """Whether a helper builds the root: for a Python program with a root of its own.

    An executed program gets new pages anyway. With a terminal the process does all steps itself,
    because it must open the terminal in the new root as the leader of its session; with a joined
    user namespace because the rights from it are needed in the process that takes the further
    steps.
    """
    with_root = spec.rootfs is not None and spec.tty is None
    return bool(spec.main) and with_root and "user" not in spec.join


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


#: The fields of a spec for the steps that remain after a helper has built namespaces and root.
_OWN = (
    "main",
    "args",
    "name",
    "env",
    "add_env",
    "cwd",
    "user",
    "group",
    "groups",
    "capabilities",
    "no_new_privileges",
)


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
    """Runs in the helper: enters namespaces and root, and reports a failure."""
    try:
        spec, named, layout = _read(task)
        _enter(spec, named, layout, status)
    except Exception as err:  # any failure must be reported to the client
        _report_error(status, err)
        raise
    joined = {name.removeprefix("ns:") for name in named if name.startswith("ns:")}
    kinds = joined | set(spec.unshare)
    flags = sum(ns.NAMESPACES[name] for name in kinds - {"pid"})
    return flags, ({name: getattr(spec, name) for name in _OWN}, list(named))


def _read(task: Task) -> tuple[ProcessSpec, dict[str, int], rootfs.Layout]:
    with open(task.payload, "rb") as file:
        body = json.load(file)
    named = dict(zip(body["fds"], task.fds, strict=True))
    return spec_from_json(body["spec"]), named, rootfs.Layout(**body["layout"])


def _enter(
    spec: ProcessSpec,
    named: Mapping[str, int],
    layout: rootfs.Layout,
    status: socket.socket,
) -> None:
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
    # No process may outlive the fork server. This comes after setresuid(2), which clears the
    # setting (prctl(2), PR_SET_PDEATHSIG).
    ns.set_parent_death_signal(signal.SIGKILL)


def _import_main(path: str) -> Callable[[list[str]], Any]:
    module_name, _, function_name = path.partition(":")
    try:
        function: Callable[[list[str]], Any] = getattr(
            importlib.import_module(module_name),
            function_name,
        )
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


#: The PATH of containerd and Docker for an environment without one.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _join(spec: ProcessSpec, named: Mapping[str, int]) -> None:
    for name, flag in ns.NAMESPACES.items():
        # The forking parent has entered the pid namespace around fork().
        if name != "pid" and f"ns:{name}" in named:
            try:
                ns.setns(named[f"ns:{name}"], flag)
            except OSError as err:
                text = f"join {name} namespace: {err.strerror}"
                raise StartError(text, f"join {name}", err.errno or 0) from None
    flags = 0
    for name in spec.unshare:
        flags |= 0 if name == "pid" else ns.NAMESPACES[name]
    if flags:
        try:
            ns.unshare(flags)
        except OSError as err:
            text = f"unshare {', '.join(spec.unshare)}: {err.strerror}"
            raise StartError(text, "unshare", err.errno or 0) from None
    if "net" in spec.unshare:
        _loopback_up()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack("16sh22x", request)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _write_sysctls(sysctls: Mapping[str, str]) -> None:
    """Sets sysctls. Those of net.* and kernel.shm* belong to the namespaces of this process."""
    for key, value in sysctls.items():
        path = "/proc/sys/" + key.replace(".", "/")
        try:
            with open(path, "w") as file:
                file.write(value)
        except OSError as err:
            text = f"sysctl {key}={value}: {err.strerror}"
            raise StartError(text, f"sysctl {key}", err.errno or 0) from None


def _install_descriptors(
    spec: ProcessSpec,
    named: Mapping[str, int],
    status: socket.socket,
) -> None:
    """Puts 0, 1, 2 and the extra descriptors in place; closes all others but the status socket."""
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
    # Move all descriptors out of the way first: a target number may be that of another source.
    moved: dict[int, int] = {}
    for target, fd in wanted.items():
        moved[target] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, RESERVED)
    for target, fd in moved.items():
        os.dup2(fd, target, inheritable=True)
    _close_others({*wanted, status.fileno()})


def _close_others(kept: set[int]) -> None:
    low = 0
    for fd in sorted(kept):
        if low < fd:  # in Python 3.11, closerange(0, 0) closes everything
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


def _open_terminal(spec: ProcessSpec, status: socket.socket) -> int:
    """Opens a pty in this root's /dev/pts and makes it the controlling terminal of the session.

    Returns the slave; the master goes to the fork server.
    """
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
        # As runc does, create a missing working directory.
        os.makedirs(cwd, exist_ok=True)
        os.chdir(cwd)
    except OSError as err:
        message = f'chdir to cwd ("{cwd}") set in config.json failed: {_lower(err)}'
        raise StartError(message, "cwd", err.errno or 0) from None


def _exec(argv: Sequence[str]) -> None:
    """Executes a program, searching PATH in the new root. The error texts are runc's."""
    program = argv[0]
    candidates = [program]
    if "/" not in program:
        folders = os.environ["PATH"].split(":")
        candidates = [f"{folder or '.'}/{program}" for folder in folders]
    failure: OSError | None = None
    for path in candidates:
        try:
            os.execv(path, list(argv))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            failure = failure or err
    if failure is not None:
        reason = _lower(failure)
    elif "/" in program:
        reason = f"stat {program}: no such file or directory"
    else:
        reason = "executable file not found in $PATH"
    number = errno.ENOENT if failure is None else failure.errno or 0
    raise StartError(f'exec: "{program}": {reason}', "exec", number)


def _lower(err: OSError) -> str:
    text = err.strerror or str(err)
    return text[:1].lower() + text[1:]


def _forked(
    function: Callable[[list[str]], Any],
    spec: ProcessSpec,
    area: ArgvArea | None,
) -> Callable[[], Any]:
    name = spec.name or spec.main.partition(":")[0].rpartition(".")[2]
    # Python's start-up does the same: writing to a closed connection raises an OSError instead of
    # ending the process.
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
    # The process ends with os._exit(), which does not run the program's atexit handlers. There is
    # no public function that does.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    return int(code) & 0xFF if isinstance(code, int) else 0


def _report_error(status: socket.socket, err: BaseException) -> None:
    if isinstance(err, StartError):
        error = {"message": str(err), "stage": err.stage, "errno": err.errno}
    else:
        error = {"message": f"{type(err).__name__}: {err}", "stage": "start", "errno": 0}
    _report(status, {"error": error})


def _report(status: socket.socket, message: dict[str, Any]) -> None:
    try:
        status.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass
