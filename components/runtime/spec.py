"""The data of requests and answers of the fork server; they travel as JSON.

Where the OCI runtime specification has a field, its name is used. Pids are those in the fork
server's pid namespace, which is the lab's; times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NAMESPACE_NAMES = ("user", "cgroup", "ipc", "uts", "net", "pid", "mnt")
Preload = Literal["light", "components"]


class RuntimeApiError(Exception):
    """The fork server refused the request, or cannot be reached."""


class InvalidSpec(RuntimeApiError):
    """The ProcessSpec is invalid or contradicts itself; nothing was started."""


class InvalidRequest(RuntimeApiError):
    """The request lacks a field, or has one of the wrong type; nothing was done."""


class UnknownProcess(RuntimeApiError):
    """No process has this id: it never existed, or was removed."""


class Disconnected(RuntimeApiError):
    """The connection to the fork server broke or was closed."""


class StartError(RuntimeApiError):
    """The process could not be started. stage: the step that failed ("join net", "mount /proc",
    "exec").

    Where runc has a message, it is used: exec: "foo": executable file not found in $PATH
    """

    def __init__(self, message: str, stage: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = errno


@dataclass(frozen=True)
class Mount:
    """A mount of a Rootfs. A missing target is created, as a file if a file is bound.

    type "bind": source is a path in the joined mount namespace (a node's), before pivot_root. type
    "tools": source is the name of a tool of the fork server ("busybox": a directory of links,
    "agnhost": a program). Any other type is a file system ("tmpfs", "proc", "sysfs", "mqueue",
    "cgroup2"), and options are its data ("size=64m").
    """

    target: str
    source: str = ""
    type: str = "bind"
    options: tuple[str, ...] = ()
    read_only: bool = False
    recursive: bool = True


@dataclass(frozen=True)
class Rootfs:
    """A root that is an overlay over the machine's (or `lower`); needs "mnt" in
    ProcessSpec.unshare.

    The fork server adds /proc, /dev, /sys, /tmp and /run, unless `mounts` has a mount with that
    target. `privileged` leaves /sys and /proc/sys writable. `hostname` needs "uts" in unshare.
    """

    mounts: tuple[Mount, ...] = ()
    lower: str = ""
    read_only: bool = False
    hostname: str = ""
    privileged: bool = False


@dataclass(frozen=True)
class Tty:
    """A terminal for the process: /dev/pts/N of the container, also bound to its /dev/console."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class ProcessSpec:
    """A process to start. Exactly one of `main` (forked without exec) and `argv` (executed) is set.

    main: "package.module:function", called as function(list(args)); its result is the exit code.
    argv: argv[0] is searched for in the new root, in the PATH of the new environment.
    container: the id of a running process whose namespaces this one joins, and whose env, cwd and
        user it gets unless this spec has its own (kubectl exec).
    join: namespace -> pid, or a path that the *client* opens (so that /run/netns/X of the kubelet's
        node works). It happens before unshare: joining and unsharing mnt, with a rootfs, builds a
        container from the node's view of the file system.
    unshare: namespaces to create for the process. With "pid" it is PID 1 of the new one.
    env: the complete environment; None: that of the fork server or the container. add_env is added.
    user, group: a number, or a name in /etc/passwd or /etc/group of the root.
    groups: supplementary group ids.
    capabilities: those to keep ("NET_RAW", ...); None: all.
    no_new_privileges: no program that it executes gains any, for example by a setuid bit.
    log_path: the file for stdout and stderr, in CRI format. The client opens its directory, which
        must exist in the client's mount namespace. It is rotated at log_max_bytes, and log_max_files
        files are kept.
    stdin_open: stdin is a pipe to attach to.
    stdin_once: stdin is closed when the first attached client is gone.
    kill_on_disconnect: the process gets SIGKILL when the connection that started it ends.
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
    no_new_privileges: bool = False
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
    """How a process ended. code: its exit code. signal: the signal that killed it, with code 0."""

    code: int = 0
    signal: int = 0
    finished_at: float = 0.0

    @property
    def shell_code(self) -> int:
        """The exit code as in a shell and in containerStatuses: 128 + N for signal N."""
        return 128 + self.signal if self.signal else self.code


@dataclass(frozen=True)
class Process:
    """A process that the fork server knows; it is kept after its exit until remove()."""

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
    """The result of run(): the exit status, and all that the process wrote."""

    exit: ExitStatus
    stdout: bytes
    stderr: bytes


def to_json(value: ProcessSpec | Process | ExitStatus) -> dict[str, Any]:
    """The dataclass as dictionaries and lists for JSON."""
    return asdict(value)


def _is_text(value: Any) -> bool:
    # A NUL would end the string in the kernel, and a surrogate cannot be encoded.
    if not isinstance(value, str) or "\0" in value:
        return False
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _is_number(value: Any, low: int = 0, high: int = 2**31 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_number(id_, 0, 2**32 - 2) for id_ in value)


def _is_owner(value: Any) -> bool:
    return value is None or _is_text(value) or _is_number(value, 0, 2**32 - 2)


def _is_join(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(pid, 1) for pid in value.values())


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_Types = Mapping[str, tuple[str, Callable[[Any], bool]]]
_TEXT = ("a string without NUL", _is_text)
_TRUTH = ("true or false", _is_truth)
_TEXTS = ("a list of strings", _is_texts)
_TEXT_MAP = ("a mapping of strings", _is_text_map)
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
    **dict.fromkeys(
        ("stdin_open", "stdin_once", "kill_on_disconnect", "no_new_privileges"), _TRUTH
    ),
    **dict.fromkeys(("log_max_bytes", "log_max_files"), _NUMBER),
    **dict.fromkeys(("user", "group"), ("a number, a name or null", _is_owner)),
    "env": ("a mapping of strings or null", _optional(_is_text_map)),
    "groups": ("a list of numbers", _is_ids),
    "capabilities": ("a list of strings or null", _optional(_is_texts)),
    "join": ("a mapping of namespaces to pids", _is_join),
    "oom_score_adj": ("from -1000 to 1000", lambda value: _is_number(value, -1000, 1000)),
}


def _typed(body: Any, types: _Types, where: str) -> dict[str, Any]:
    """Checks the keys of a mapping and the types of its values; returns a copy. Raises
    InvalidSpec."""
    if not isinstance(body, dict):
        raise InvalidSpec(f"{where}: must be a mapping, is {type(body).__name__}")
    for key, value in body.items():
        if key not in types:
            known = ", ".join(sorted(types))
            raise InvalidSpec(f"{where}: unknown field {key!r}; known: {known}")
        wanted, is_valid = types[key]
        if not is_valid(value):
            raise InvalidSpec(f"{where}.{key}: must be {wanted}")
    return dict(body)


def _mount(body: Any, where: str) -> Mount:
    fields = _typed(body, _MOUNT, where)
    if "target" not in fields:
        raise InvalidSpec(f"{where}.target: is missing")
    return Mount(**{**fields, "options": tuple(fields.get("options", ()))})


def spec_from_json(body: Any) -> ProcessSpec:
    """Reads a ProcessSpec. Raises InvalidSpec for wrong keys and for values of wrong types."""
    rootfs = None
    tty = None
    if isinstance(body, dict):
        body = dict(body)
        rootfs = body.pop("rootfs", None)
        tty = body.pop("tty", None)
    fields = _typed(body, _SPEC, "spec")
    if rootfs is not None:
        given = _typed(rootfs, _ROOTFS, "spec.rootfs")
        listed = enumerate(given.get("mounts", ()))
        mounts = [_mount(item, f"spec.rootfs.mounts[{index}]") for index, item in listed]
        fields["rootfs"] = Rootfs(**{**given, "mounts": tuple(mounts)})
    if tty is not None:
        fields["tty"] = Tty(**_typed(tty, _TTY, "spec.tty"))
    for key in ("argv", "args", "groups", "unshare", "capabilities"):
        if fields.get(key) is not None:
            fields[key] = tuple(fields[key])
    return ProcessSpec(**fields)


def process_from_json(body: dict[str, Any]) -> Process:
    """Reads a Process."""
    exit_body = body.get("exit")
    return Process(**{**body, "exit": None if exit_body is None else ExitStatus(**exit_body)})


def check(spec: ProcessSpec) -> None:
    """Raises InvalidSpec, which names the field, if the spec contradicts itself."""
    if bool(spec.main) == bool(spec.argv):
        raise InvalidSpec("exactly one of main and argv must be set")
    if not (spec.log_max_files and spec.log_max_bytes):
        raise InvalidSpec("log_max_files and log_max_bytes: must be at least 1")
    if spec.main and ":" not in spec.main:
        raise InvalidSpec(f'main: {spec.main!r} must have the form "package.module:function"')
    for field_name, names in (("join", spec.join), ("unshare", spec.unshare)):
        if unknown := set(names) - set(NAMESPACE_NAMES):
            wrong = f"unknown namespaces {sorted(unknown)}; known: {NAMESPACE_NAMES}"
            raise InvalidSpec(f"{field_name}: {wrong}")
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
