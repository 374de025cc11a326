"""A plugin's side of the CNI contract: environment and stdin go in, JSON and an exit code come out.

The kubelet executes a plugin once for every operation on a pod. CNI_COMMAND names the operation,
the other CNI_* variables name the pod's namespace and interface, and stdin carries the network
configuration. The answer is a result object, or an error object and exit status 1; nothing else may
be written to stdout (https://www.cni.dev/docs/spec/, SPEC.md 1.1.0, sections 2, 3 and 5).

The program starts for every pod, so it imports only those parts of the standard library that load
in milliseconds: no subprocess, no pathlib, no typing.
"""

# ruff: noqa: PTH113, PTH118
from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Verb = Callable[[Any], dict[str, Any]]

SUPPORTED_VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
INTERNAL = 999
INVALID_ENVIRONMENT = 4
DECODING_FAILURE = 6
INCOMPATIBLE = 1
UNAVAILABLE = 50
IO_FAILURE = 5
INVALID_CONFIG = 7
#: The largest configuration that is read, in bytes; libcni writes a few kilobytes.
LARGEST_CONFIG = 16 * 1024 * 1024
#: The same call may succeed when the runtime repeats it later.
TRY_AGAIN_LATER = 11


class PluginError(Exception):
    """Becomes the error object of the specification on stdout, with exit status 1."""

    def __init__(self, msg: str, code: int = INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.code = code
        self.details = details


class Call:
    """One invocation: configuration and environment."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.container = os.environ.get("CNI_CONTAINERID", "")
        self.netns = os.environ.get("CNI_NETNS", "")
        self.ifname = os.environ.get("CNI_IFNAME", "")
        self.args = _arguments()
        self.namespace = self.args.get("K8S_POD_NAMESPACE", "default")
        self.pod = self.args.get("K8S_POD_NAME", "") or self.container

    @property
    def version(self) -> str:
        return str(self.config.get("cniVersion") or "0.1.0")

    @property
    def network(self) -> str:
        return str(self.config.get("name", ""))

    @property
    def valid_containers(self) -> set[str]:
        """For GC: the containers whose attachments are still in use. All others are garbage."""
        return {
            str(entry.get("containerID", ""))
            for entry in self.config.get("cni.dev/valid-attachments") or []
        }

    def result(
        self, interfaces: list[dict[str, Any]], addresses: list[str], index: int = 1
    ) -> dict[str, Any]:
        """ADD's result. addresses carry their prefix length and all belong to interfaces[index]."""
        ips = [ip_entry(self.version, address) | {"interface": index} for address in addresses]
        return {"cniVersion": self.version, "interfaces": interfaces, "ips": ips, "dns": {}}


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def ip_entry(version: str, address: str) -> dict[str, Any]:
    """An address of a result. Before version 1.0.0 each entry also names its IP version."""
    entry: dict[str, Any] = {"address": address}
    return (
        entry if minor(version) >= (1, 0) else {"version": "6" if ":" in address else "4", **entry}
    )


_POD = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
#: Verb: the environment variables it needs, and the first version of the specification that has it.
_VERBS: dict[str, tuple[tuple[str, ...], tuple[int, int]]] = {
    "ADD": (_POD, (0, 1)),
    "DEL": (("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"), (0, 1)),
    "CHECK": (_POD, (0, 4)),
    "STATUS": (("CNI_PATH",), (1, 1)),
    "GC": (("CNI_PATH",), (1, 1)),
    "VERSION": ((), (0, 1)),
}


def dispatch(
    verbs: Mapping[str, Verb], verb: str, data: bytes, call: Callable[[dict[str, Any]], Call]
) -> dict[str, Any]:
    """Returns the object to print. Raises PluginError."""
    if verb not in _VERBS:
        raise PluginError(f"unknown CNI_COMMAND: {verb}", INVALID_ENVIRONMENT)
    needed, since = _VERBS[verb]
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise PluginError(
            f"required env variables [{','.join(missing)}] missing",
            INVALID_ENVIRONMENT,
        )
    config = decoded(data)
    asked = config.get("cniVersion") or "0.1.0"
    if verb == "VERSION":
        return {
            "cniVersion": config.get("cniVersion") or "1.1.0",
            "supportedVersions": SUPPORTED_VERSIONS,
        }
    if asked not in SUPPORTED_VERSIONS:
        details = f'config is "{asked}", plugin supports {json.dumps(SUPPORTED_VERSIONS)}'
        raise PluginError("incompatible CNI versions", INCOMPATIBLE, details)
    if minor(asked) < since:
        raise PluginError(f"config version does not allow {verb}", INCOMPATIBLE)
    check_environment()
    check_config(config)
    return verbs[verb](call(config))


def decoded(data: bytes) -> dict[str, Any]:
    """The configuration without its null members: Go treats null as absent. Raises PluginError."""
    try:
        config = json.loads(data or b"{}")
    except RecursionError:
        raise PluginError("failed to load netconf: nested too deep", DECODING_FAILURE) from None
    except ValueError as error:
        raise PluginError(f"failed to load netconf: {error}", DECODING_FAILURE) from None
    if not isinstance(config, dict):
        raise PluginError(
            f"failed to load netconf: not an object but {_kind(config)}",
            DECODING_FAILURE,
        )
    for key in ("cniVersion", "name", "type"):
        if not isinstance(config.get(key) or "", str):
            raise PluginError(
                f"failed to load netconf: {key}: not a string but {_kind(config[key])}",
                DECODING_FAILURE,
            )
    return {key: _without_nulls(value) for key, value in config.items() if value is not None}


def _without_nulls(value: Any) -> Any:
    return (
        {key: item for key, item in value.items() if item is not None}
        if isinstance(value, dict)
        else value
    )


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def _is_name(text: str) -> bool:
    """Checks the name of a network or a container (pkg/utils: ^[a-zA-Z0-9][a-zA-Z0-9_.-]*$)."""
    return bool(text) and text[0] not in "_.-" and _NAME_CHARACTERS.issuperset(text)


def is_word(value: Any) -> bool:
    """Checks that a value is safe in a line of `ip -batch`: it cannot start another argument or
    line."""
    return (
        isinstance(value, str) and value.isprintable() and " " not in value and len(value) <= 4096
    )


def is_interface_name(value: Any) -> bool:
    """Checks an interface name by the kernel's rules (dev_valid_name)."""
    return (
        is_word(value)
        and 0 < len(value) <= 15
        and value not in (".", "..")
        and not set(value) & set("/:'\"$`;&|<>")
    )


def check_environment() -> None:
    """Checks the CNI_* variables as upstream's skel and libcni do; the error names the variable, as
    the specification demands. Raises PluginError."""
    environment = os.environ
    container = environment.get("CNI_CONTAINERID", "")
    ifname = environment.get("CNI_IFNAME", "")
    if container and not _is_name(container):
        raise PluginError(
            "invalid characters in containerID (CNI_CONTAINERID)",
            INVALID_ENVIRONMENT,
            container,
        )
    if ifname and not is_interface_name(ifname):
        raise PluginError("invalid interface name (CNI_IFNAME)", INVALID_ENVIRONMENT, ifname)
    netns = environment.get("CNI_NETNS", "")
    if netns and not is_word(netns):
        raise PluginError("invalid path (CNI_NETNS)", INVALID_ENVIRONMENT, netns)
    _arguments()


def _arguments() -> dict[str, str]:
    """Parses CNI_ARGS. Raises PluginError."""
    found: dict[str, str] = {}
    for part in os.environ.get("CNI_ARGS", "").split(";"):
        key, equals, value = part.partition("=")
        if part and (not equals or not key):
            raise PluginError(f'invalid pair "{part}" (CNI_ARGS)', INVALID_ENVIRONMENT)
        if not is_word(value):
            raise PluginError(f"invalid value of {key} (CNI_ARGS)", INVALID_ENVIRONMENT, value)
        if key:
            found[key] = value
    return found


def _is_number(value: Any) -> bool:
    """Checks a number of bytes and the like. Text of digits is allowed too: aws-cni's mtu is a
    string."""
    digits = (
        isinstance(value, str)
        and len(value) <= 5
        and value.isascii()
        and (value.isdigit() or not value)
    )
    return digits or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_word, value))


def _is_routes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and is_word(one.get("dst")) and is_word(one.get("gw") or "")
        for one in value
    )


def _is_addresses(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and is_word(one.get("address")) for one in value
    )


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


_WORD = ("a string without spaces", is_word)
_OBJECT = ("an object", _is_object)
_INTERFACE = ("the name of an interface", lambda value: value == "" or is_interface_name(value))
#: Key of the configuration ("a.b" is key b of object a) -> what a plugin of this project may read
#: there.
_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "type": _WORD,
    "mtu": ("a number from 0 to 65535", _is_number),
    **dict.fromkeys(
        ("ipam", "prevResult", "dns", "runtimeConfig", "args", "capabilities"),
        _OBJECT,
    ),
    **dict.fromkeys(("ipam.type", "ipam.subnet", "ipam.gateway"), _WORD),
    "ipam.ips": ("a list of addresses", _is_words),
    "ipam.routes": ("a list of routes with dst", _is_routes),
    "prevResult.ips": ("a list of objects with an address", _is_addresses),
    "cni.dev/valid-attachments": ("a list of objects", _is_objects),
    **dict.fromkeys(("kubernetes", "delegate"), _OBJECT),
    **dict.fromkeys(("kubernetes.kubeconfig", "nodename", "nodename_file", "httpAddr"), _WORD),
    **dict.fromkeys(("subnetFile", "dataDir"), _WORD),
    "bridge": _INTERFACE,
    "vethPrefix": (
        "at most four characters",
        lambda value: value == "" or is_interface_name(f"{value}{'x' * 11}"),
    ),
}


def check_config(config: dict[str, Any]) -> None:
    """Raises PluginError with the specification's code 7 (invalid network config)."""
    name = config.get("name") or ""
    if not name:
        raise PluginError("missing network name:", INVALID_CONFIG)
    if not _is_name(name):
        raise PluginError("invalid characters found in network name", INVALID_CONFIG, name)
    for key, (wanted, right) in _KEYS.items():
        holder: Any = config
        *outer, last = [key] if key.startswith("cni.dev/") else key.split(".")
        for parent in outer:
            holder = holder.get(parent, {})
        if last in holder and not right(holder[last]):
            raise PluginError(f"invalid network config: {key}: must be {wanted}", INVALID_CONFIG)


def main(
    programs: Mapping[str, Mapping[str, Verb]],
    argv: list[str],
    call: Callable[[dict[str, Any]], Call] = Call,
    others: tuple[type[Exception], ...] = (),
) -> int:
    """Runs the process. argv[0] tells which of the programs it is.

    others: the plugin's own error classes, whose text is printed unchanged.
    """
    verb = os.environ.get("CNI_COMMAND", "")
    program = argv[0].rpartition("/")[2]
    if not verb:
        sys.stderr.write(
            f"CNI plugin {program} (kubewire)\nCNI protocol versions supported: {SUPPORTED_VERSIONS}\n",
        )
        return 0
    data = b""
    try:
        data = configuration()
        answer = dispatch(programs[program], verb, data, call)
    except PluginError as error:
        body = error_object(data, error.code, error.msg, error.details)
    except others as error:
        body = error_object(data, INTERNAL, str(error))
    except OSError as error:
        body = error_object(
            data,
            INTERNAL,
            f"{error.filename or ''}: {(error.strerror or str(error)).lower()}",
        )
    except Exception as error:  # a bug of the plugin; a runtime can only read the error object
        body = error_object(data, INTERNAL, f"{program}: {type(error).__name__}: {error}")
    else:
        if answer:
            json.dump(answer, sys.stdout)
        return 0
    json.dump(body, sys.stdout, indent=4)
    return 1


def configuration() -> bytes:
    """Reads stdin. Raises PluginError."""
    try:
        data = sys.stdin.buffer.read(LARGEST_CONFIG + 1)
    except (OSError, AttributeError) as error:  # Python has no stdin where descriptor 0 is closed
        raise PluginError(f"error reading from stdin: {error}", IO_FAILURE) from None
    if len(data) > LARGEST_CONFIG:
        raise PluginError(
            f"failed to load netconf: more than {LARGEST_CONFIG} bytes",
            DECODING_FAILURE,
        )
    return data


def error_object(data: bytes, code: int, msg: str, details: str = "") -> dict[str, Any]:
    """The error object (SPEC.md section 5, "Error"), in the version that the configuration asks for
    if that can be read."""
    try:
        asked = json.loads(data)["cniVersion"]
    except (ValueError, LookupError, TypeError, RecursionError):
        asked = None
    known = (
        asked if isinstance(asked, str) and asked in SUPPORTED_VERSIONS else SUPPORTED_VERSIONS[-1]
    )
    return {"cniVersion": known, "code": code, "msg": msg} | (
        {"details": details} if details else {}
    )


def run(
    argv: list[str],
    text: str = "",
    *,
    check: bool = True,
    environment: Any = None,
    delegate: bool = False,
) -> str:
    """Returns a program's stdout. Raises PluginError with the program's stderr, or, if the program
    is a delegate, with the delegate's own error."""
    stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
    stdout = os.memfd_create("stdout", os.MFD_CLOEXEC)
    stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        os.write(stdin, text.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, own, number) for number, own in enumerate((stdin, stdout, stderr))
        ]
        pid = os.posix_spawnp(argv[0], argv, dict(environment or os.environ), file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output, said = (
            os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
            for fd in (stdout, stderr)
        )
    finally:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
    if code and check:
        if delegate:
            _raise_delegates(output)
        raise PluginError(
            f"{' '.join(argv)}: {said.strip() or output.strip() or f'exit status {code}'}",
        )
    return output


def _raise_delegates(output: str) -> None:
    try:
        error = json.loads(output)
        raise PluginError(
            str(error["msg"]),
            int(error.get("code", INTERNAL)),
            str(error.get("details", "")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return


def found(kind: str) -> str:
    """The path of another plugin in CNI_PATH. Raises PluginError."""
    folders = os.environ.get("CNI_PATH", "")
    paths = [os.path.join(folder, kind) for folder in folders.split(":") if folder]
    path = next((path for path in paths if os.path.isfile(path)), None)
    if path is None or "/" in kind:
        raise PluginError(f'failed to find plugin "{kind}" in path [{folders}]')
    return path


def delegated(
    call: Call, kind: str, verb: str, config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Runs another plugin (SPEC.md section 4, delegation) with config, or with this plugin's own
    configuration. Raises PluginError."""
    text = json.dumps(call.config if config is None else config)
    output = run([found(kind)], text, environment=os.environ | {"CNI_COMMAND": verb}, delegate=True)
    try:
        answer: Any = json.loads(output) if output else {}
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not _is_addresses(answer.get("ips") or []):
        raise PluginError(f'plugin "{kind}" answered no result: {output[:200]}')
    return answer


def in_namespace(netns: str, lines: list[str]) -> None:
    """Runs `ip -batch` in the pod's namespace. Raises PluginError."""
    run(["nsenter", f"--net={netns}", "ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def on_node(lines: list[str]) -> None:
    """Runs `ip -batch` on the node. Raises PluginError."""
    run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def mac_of(ifname: str, netns: str = "") -> str:
    inside = ["nsenter", f"--net={netns}"] if netns else []
    return str(
        json.loads(run([*inside, "ip", "-json", "link", "show", "dev", ifname]))[0]["address"],
    )


def delete_link(name: str) -> None:
    """Deletes a device of the node if it exists."""
    if os.path.exists(f"/sys/class/net/{name}"):  # noqa: PTH110
        run(["ip", "link", "delete", "dev", name], check=False)
