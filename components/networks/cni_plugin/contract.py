"""A plugin's side of the CNI contract: environment and stdin go in, JSON and an exit code come out.

The kubelet executes a plugin once for every operation on a pod. CNI_COMMAND names the operation,
the other CNI_* variables name the pod's namespace and interface, and stdin carries the network
configuration. The answer is a result object, or an error object and exit status 1; nothing else may
be written to stdout (https://www.cni.dev/docs/spec/, SPEC.md 1.1.0, sections 2, 3 and 5).

The program starts for every pod, so it imports only those parts of the standard library that load
in milliseconds: no subprocess, no pathlib, no typing.
"""

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
#: The version of a configuration that names none.
_OLDEST = "0.1.0"
INTERNAL = 999
INVALID_ENVIRONMENT = 4
DECODING_FAILURE = 6
INCOMPATIBLE = 1
UNAVAILABLE = 50
IO_FAILURE = 5
INVALID_CONFIG = 7
INVALID_NETNS = 8
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


#: The name that a runtime gives the interface of a pod unless it has several.
_USUAL = "eth0"


def attachment(container: str, ifname: str) -> str:
    """A container may be added to a network once for each interface name (SPEC.md, ADD). The usual
    interface's key is the container's id; another one has the hexadecimal digits of its name added,
    because a key is part of a file's and of an API object's name."""
    return container if ifname == _USUAL else f"{container}.{ifname.encode().hex()}"


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
        return str(self.config.get("cniVersion") or _OLDEST)

    @property
    def network(self) -> str:
        return str(self.config.get("name", ""))

    @property
    def attachment(self) -> str:
        """The key under which a plugin stores what it did for this container and interface."""
        return attachment(self.container, self.ifname)

    @property
    def workload(self) -> str:
        """What the name of the node's end of the veth is made of: the pod, and its interface if
        that is not the usual one."""
        pod = f"{self.namespace}.{self.pod}"
        return pod if self.ifname == _USUAL else f"{pod}.{self.ifname}"

    @property
    def addresses(self) -> list[str]:
        """The addresses of prevResult, without prefix lengths."""
        ips = (self.config.get("prevResult") or {}).get("ips") or []
        return [str(ip["address"].partition("/")[0]) for ip in ips]

    @property
    def valid_attachments(self) -> set[str]:
        """For GC: the keys of the attachments that are still in use. All others are garbage."""
        return {
            attachment(str(entry.get("containerID", "")), str(entry.get("ifname") or _USUAL))
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
VERBS: dict[str, tuple[tuple[str, ...], tuple[int, int]]] = {
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
    if verb not in VERBS:
        raise PluginError(f"unknown CNI_COMMAND: {verb}", INVALID_ENVIRONMENT)
    needed, since = VERBS[verb]
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise PluginError(
            f"required env variables [{','.join(missing)}] missing",
            INVALID_ENVIRONMENT,
        )
    check_environment(needed)
    config = decoded(data)
    asked = config.get("cniVersion") or _OLDEST
    if verb == "VERSION":
        return {
            "cniVersion": config.get("cniVersion") or "1.1.0",
            "supportedVersions": SUPPORTED_VERSIONS,
        }
    check_name(config)
    if asked not in SUPPORTED_VERSIONS:
        details = f'config is "{asked}", plugin supports {json.dumps(SUPPORTED_VERSIONS)}'
        raise PluginError("incompatible CNI versions", INCOMPATIBLE, details)
    if minor(asked) < since:
        raise PluginError(f"config version does not allow {verb}", INCOMPATIBLE)
    check_config(config)
    if verb == "CHECK" and "prevResult" not in config:
        raise PluginError("Required prevResult missing", INVALID_CONFIG)
    if verb in ("ADD", "DEL"):
        check_namespace()
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


def check_environment(needed: tuple[str, ...]) -> None:
    """Checks the CNI_* variables as upstream's skel and libcni do; the error names the variable, as
    the specification demands. needed: those that the operation must have. Raises PluginError."""
    environment = os.environ
    container = environment.get("CNI_CONTAINERID", "") if "CNI_CONTAINERID" in needed else ""
    ifname = environment.get("CNI_IFNAME", "") if "CNI_IFNAME" in needed else ""
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


def is_addresses(value: Any) -> bool:
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
    "prevResult.ips": ("a list of objects with an address", is_addresses),
    "prevResult.routes": ("a list of routes with dst", _is_routes),
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


def check_namespace() -> None:
    """Refuses the plugin's own network namespace as the container's, as upstream's skel does: the
    plugin would change the node. Raises PluginError."""
    if os.environ.get("CNI_NETNS_OVERRIDE", "").upper() in ("TRUE", "1"):
        return
    try:
        theirs = os.stat(os.environ.get("CNI_NETNS", ""))  # noqa: PTH116
    except OSError:
        return  # DEL succeeds without it; ADD fails when it enters it
    if os.path.samestat(theirs, os.stat("/proc/self/ns/net")):  # noqa: PTH116
        raise PluginError(
            "plugin's netns and netns from CNI_NETNS should not be the same", INVALID_NETNS
        )


def check_name(config: dict[str, Any]) -> None:
    """Raises PluginError if the network has no name, or one that cannot be a file's."""
    name = config.get("name") or ""
    if not name:
        raise PluginError("missing network name:", INVALID_CONFIG)
    if not _is_name(name):
        raise PluginError("invalid characters found in network name", INVALID_CONFIG, name)


def check_config(config: dict[str, Any]) -> None:
    """Raises PluginError with the specification's code 7 (invalid network config)."""
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
        asked = json.loads(data).get("cniVersion") or _OLDEST
    except (ValueError, AttributeError, RecursionError):
        asked = None
    known = (
        asked if isinstance(asked, str) and asked in SUPPORTED_VERSIONS else SUPPORTED_VERSIONS[-1]
    )
    return {"cniVersion": known, "code": code, "msg": msg} | (
        {"details": details} if details else {}
    )
