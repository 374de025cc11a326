"""What a client asks the fork server for, and what it is told: plain data, JSON on the wire.

Field names follow the OCI runtime specification where it has the thing. Pids are as seen in the pid
namespace of the fork server (a lab's); times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NAMESPACE_NAMES = ("user", "cgroup", "ipc", "uts", "net", "pid", "mnt")
Preload = Literal["light", "components"]


class RuntimeApiError(Exception):
    """The fork server refused, or cannot be reached."""


class InvalidSpec(RuntimeApiError):
    """The ProcessSpec contradicts itself; nothing was started."""


class InvalidRequest(RuntimeApiError):
    """A request that lacks a field, or has one of another type; nothing was done."""


class UnknownProcess(RuntimeApiError):
    """No process of this id (never was, or removed)."""


class Disconnected(RuntimeApiError):
    """The connection to the fork server broke or was closed."""


class StartError(RuntimeApiError):
    """The process could not be started; `stage` says which step failed ("join net", "mount /proc", "exec").

    The message uses runc's words where it has some: exec: "foo": executable file not found in $PATH
    """

    def __init__(self, message: str, stage: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = errno


@dataclass(frozen=True)
class Mount:
    """One mount of a Rootfs. target is created when missing (a file for a bind of a file).

    type "bind": source is a path in the joined mount namespace (a node's), before pivot_root;
    type "tools": source names one of the fork server's own ("busybox": a directory of links, "agnhost": a program).
    else a file system type: "tmpfs", "proc", "sysfs", "mqueue", "cgroup2"; options are its data ("size=64m").
    """

    target: str
    source: str = ""
    type: str = "bind"
    options: tuple[str, ...] = ()
    read_only: bool = False
    recursive: bool = True


@dataclass(frozen=True)
class Rootfs:
    """An overlay over the machine's root (or `lower`), pivoted into; needs "mnt" in ProcessSpec.unshare.

    The fork server adds /proc, /dev, /sys, /tmp and /run unless `mounts` has a mount on the same target.
    `privileged` leaves /sys and /proc/sys writable. `hostname` needs "uts" in unshare.
    """

    mounts: tuple[Mount, ...] = ()
    lower: str = ""
    read_only: bool = False
    hostname: str = ""
    privileged: bool = False


@dataclass(frozen=True)
class Tty:
    """A terminal of its own for the process: /dev/pts/N of the container, also bound on its /dev/console."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class ProcessSpec:
    """One process to start: `main` is forked without exec, `argv` is executed; exactly one of them.

    main: "package.module:function", called as function(list(args)); its result is the exit code.
    argv: argv[0] is looked up in the new root and PATH of the new environment.
    container: id of a running process to start next to: all its namespaces, and its env, cwd and user
        where this spec has none (kubectl exec).
    join: namespace -> pid, or a path which the *client* opens (so /run/netns/X of kubelet's node works).
        Joined before anything of `unshare` is created, so join mnt + unshare mnt + rootfs builds the
        container from the node's view of the file system.
    unshare: namespaces created for the process. With "pid" it is PID 1 of the new one.
    env: the complete environment, None: the fork server's (or the container's). add_env comes on top.
    user, group: number or a name of /etc/passwd, /etc/group inside the root; groups: supplementary ids.
    capabilities: those to keep ("NET_RAW", ...), None: all.
    log_path: stdout and stderr go to this file in CRI format; opened by the client's process, in whose mount
        namespace the directory must exist. Rotated at log_max_bytes, log_max_files files are kept.
    stdin_open: a pipe to attach to; stdin_once: closed when the first attached client goes.
    kill_on_disconnect: SIGKILL when the connection that started it ends.
    """

    main: str = ""
    argv: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    name: str = ""
    preload: Preload = "light"
    container: str = ""
    env: Mapping[str, str] | None = None
    add_env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: int | str | None = None
    group: int | str | None = None
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] | None = None
    join: Mapping[str, int | str] = field(default_factory=dict)
    unshare: tuple[str, ...] = ()
    rootfs: Rootfs | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    tty: Tty | None = None
    stdin_open: bool = False
    stdin_once: bool = False
    log_path: str = ""
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    labels: Mapping[str, str] = field(default_factory=dict)
    kill_on_disconnect: bool = False
    oom_score_adj: int = 0


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: code when it exited, signal (and code 0) when it was killed."""

    code: int = 0
    signal: int = 0
    finished_at: float = 0.0

    @property
    def shell_code(self) -> int:
        """One number as a shell and Kubernetes' containerStatuses have it: 128 + signal when killed."""
        return 128 + self.signal if self.signal else self.code


@dataclass(frozen=True)
class Process:
    """A process the fork server knows; kept after its exit until remove()."""

    id: str
    pid: int
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    started_at: float = 0.0
    log_path: str = ""
    exit: ExitStatus | None = None

    @property
    def running(self) -> bool:
        return self.exit is None


@dataclass(frozen=True)
class Completed:
    """A finished run(): exit status and all it wrote."""

    exit: ExitStatus
    stdout: bytes
    stderr: bytes


def to_json(value: ProcessSpec | Process | ExitStatus) -> dict[str, Any]:
    """The dataclass as JSON-able dicts and lists."""
    return asdict(value)


def _is_text(value: Any) -> bool:
    # NUL ends a string in the kernel, and half a surrogate pair is no text for it.
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= one <= "\udfff" for one in value)


def _is_number(value: Any, low: int = 0, high: int = 2**31 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_text, value.values()))


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_number(one, 0, 2**32 - 2) for one in value)


def _is_owner(value: Any) -> bool:
    return value is None or _is_text(value) or _is_number(value, 0, 2**32 - 2)


def _is_join(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(one, 1) for one in value.values())


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_Types = Mapping[str, tuple[str, Callable[[Any], bool]]]
_TEXT, _TRUTH = ("a string without NUL", _is_text), ("true or false", _is_truth)
_TEXTS, _TEXT_MAP = ("a list of strings", _is_texts), ("a mapping of strings", _is_text_map)
_NUMBER = ("a number from 0", _is_number)
_MOUNT: _Types = {
    **dict.fromkeys(("target", "source", "type"), _TEXT),
    **dict.fromkeys(("read_only", "recursive"), _TRUTH),
    "options": _TEXTS,
}
_ROOTFS: _Types = {
    **dict.fromkeys(("lower", "hostname"), _TEXT),
    **dict.fromkeys(("read_only", "privileged"), _TRUTH),
    "mounts": ("a list of mounts", lambda value: isinstance(value, (list, tuple))),
}
_TTY: _Types = {
    "rows": ("from 0 to 65535", lambda value: _is_number(value, 0, 65535)),
    "columns": ("from 0 to 65535", lambda value: _is_number(value, 0, 65535)),
}
_SPEC: _Types = {
    **dict.fromkeys(("main", "name", "preload", "container", "cwd", "log_path"), _TEXT),
    **dict.fromkeys(("argv", "args", "unshare"), _TEXTS),
    **dict.fromkeys(("add_env", "sysctls", "labels"), _TEXT_MAP),
    **dict.fromkeys(("stdin_open", "stdin_once", "kill_on_disconnect"), _TRUTH),
    **dict.fromkeys(("log_max_bytes", "log_max_files"), _NUMBER),
    **dict.fromkeys(("user", "group"), ("a number, a name or null", _is_owner)),
    "env": ("a mapping of strings or null", _optional(_is_text_map)),
    "groups": ("a list of numbers", _is_ids),
    "capabilities": ("a list of strings or null", _optional(_is_texts)),
    "join": ("a mapping of namespaces to pids", _is_join),
    "oom_score_adj": ("from -1000 to 1000", lambda value: _is_number(value, -1000, 1000)),
}


def _typed(body: Any, types: _Types, where: str) -> dict[str, Any]:
    """A copy of a mapping whose keys are known and whose values have their types. Raises InvalidSpec."""
    if not isinstance(body, dict):
        raise InvalidSpec(f"{where}: must be a mapping, is {type(body).__name__}")
    for key, value in body.items():
        if key not in types:
            raise InvalidSpec(f"{where}: unknown field {key!r}; known: {', '.join(sorted(types))}")
        wanted, right = types[key]
        if not right(value):
            raise InvalidSpec(f"{where}.{key}: must be {wanted}")
    return dict(body)


def _mount(body: Any, where: str) -> Mount:
    fields = _typed(body, _MOUNT, where)
    if "target" not in fields:
        raise InvalidSpec(f"{where}.target: is missing")
    return Mount(**{**fields, "options": tuple(fields.get("options", ()))})


def spec_from_json(body: Any) -> ProcessSpec:
    """ProcessSpec of its JSON. Raises InvalidSpec for unknown or missing keys and values of other types."""
    body = dict(body) if isinstance(body, dict) else body
    rootfs, tty = (body.pop("rootfs", None), body.pop("tty", None)) if isinstance(body, dict) else (None, None)
    fields = _typed(body, _SPEC, "spec")
    if rootfs is not None:
        given = _typed(rootfs, _ROOTFS, "spec.rootfs")
        mounts = [_mount(one, f"spec.rootfs.mounts[{n}]") for n, one in enumerate(given.get("mounts", ()))]
        fields["rootfs"] = Rootfs(**{**given, "mounts": tuple(mounts)})
    if tty is not None:
        fields["tty"] = Tty(**_typed(tty, _TTY, "spec.tty"))
    for key in ("argv", "args", "groups", "unshare", "capabilities"):
        if fields.get(key) is not None:
            fields[key] = tuple(fields[key])
    return ProcessSpec(**fields)


def process_from_json(body: dict[str, Any]) -> Process:
    """Process of its JSON."""
    exit_body = body.get("exit")
    return Process(**{**body, "exit": None if exit_body is None else ExitStatus(**exit_body)})


def check(spec: ProcessSpec) -> None:
    """Raise InvalidSpec naming the field when the spec contradicts itself."""
    if bool(spec.main) == bool(spec.argv):
        raise InvalidSpec("exactly one of main and argv must be set")
    if not (spec.log_max_files and spec.log_max_bytes):
        raise InvalidSpec("log_max_files and log_max_bytes: must be at least 1")
    if spec.main and ":" not in spec.main:
        raise InvalidSpec(f'main: {spec.main!r} must have the form "package.module:function"')
    for field_name, names in (("join", spec.join), ("unshare", spec.unshare)):
        if unknown := set(names) - set(NAMESPACE_NAMES):
            raise InvalidSpec(f"{field_name}: unknown namespaces {sorted(unknown)}; known: {NAMESPACE_NAMES}")
    if spec.container and (spec.join or spec.unshare or spec.rootfs):
        raise InvalidSpec("container: join, unshare and rootfs cannot be set with it")
    if spec.rootfs is not None and "mnt" not in spec.unshare:
        raise InvalidSpec('rootfs: needs "mnt" in unshare')
    if spec.rootfs is not None and spec.rootfs.hostname and "uts" not in spec.unshare:
        raise InvalidSpec('rootfs.hostname: needs "uts" in unshare')
    if "pid" in spec.join and "pid" in spec.unshare:
        raise InvalidSpec("pid: cannot be both joined and unshared")
    if spec.preload not in ("light", "components"):
        raise InvalidSpec(f'preload: {spec.preload!r} must be "light" or "components"')
