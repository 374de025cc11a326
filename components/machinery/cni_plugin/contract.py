"""A plugin's side of the CNI contract (SPEC.md 1.1.0): environment and stdin in, JSON and exit code out.

It runs for every pod: standard library only, and of that what loads in milliseconds.
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
INTERNAL, INVALID_ENVIRONMENT, DECODING_FAILURE, INCOMPATIBLE, UNAVAILABLE = 999, 4, 6, 1, 50
#: A plugin that asks for the same once more later may succeed.
TRY_AGAIN_LATER = 11


class PluginError(Exception):
    """Ends as the error object of the spec on stdout, exit status 1."""

    def __init__(self, msg: str, code: int = INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.msg, self.code, self.details = msg, code, details


class Call:
    """One invocation: configuration and environment."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.container = os.environ.get("CNI_CONTAINERID", "")
        self.netns = os.environ.get("CNI_NETNS", "")
        self.ifname = os.environ.get("CNI_IFNAME", "")
        pairs = (part.partition("=") for part in os.environ.get("CNI_ARGS", "").split(";"))
        self.args = {key: value for key, _, value in pairs if key}
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
        """GC's: whatever else has an attachment has lost it."""
        return {entry.get("containerID", "") for entry in self.config.get("cni.dev/valid-attachments") or []}

    @property
    def has_namespace(self) -> bool:
        return bool(self.netns) and os.path.exists(self.netns)  # noqa: PTH110

    def result(self, interfaces: list[dict[str, Any]], addresses: list[str], index: int = 1) -> dict[str, Any]:
        """ADD's answer. addresses with prefix length, all of the interface number index."""
        ips = [ip_entry(self.version, address) | {"interface": index} for address in addresses]
        return {"cniVersion": self.version, "interfaces": interfaces, "ips": ips, "dns": {}}


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def ip_entry(version: str, address: str) -> dict[str, Any]:
    """Before 1.0.0 an entry says of which IP version it is."""
    entry: dict[str, Any] = {"address": address}
    return entry if minor(version) >= (1, 0) else {"version": "6" if ":" in address else "4", **entry}


_POD = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
#: Verb: environment it needs, first version of the spec that has it.
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
    """What is printed. Raises PluginError."""
    if verb not in _VERBS:
        raise PluginError(f"unknown CNI_COMMAND: {verb}", INVALID_ENVIRONMENT)
    needed, since = _VERBS[verb]
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise PluginError(f"required env variables [{','.join(missing)}] missing", INVALID_ENVIRONMENT)
    try:
        config = json.loads(data or b"{}")
        asked = config.get("cniVersion") or "0.1.0"
    except (ValueError, AttributeError) as error:
        raise PluginError(f"failed to load netconf: {error}", DECODING_FAILURE) from None
    if verb == "VERSION":
        return {"cniVersion": config.get("cniVersion") or "1.1.0", "supportedVersions": SUPPORTED_VERSIONS}
    if asked not in SUPPORTED_VERSIONS:
        details = f'config is "{asked}", plugin supports {json.dumps(SUPPORTED_VERSIONS)}'
        raise PluginError("incompatible CNI versions", INCOMPATIBLE, details)
    if minor(asked) < since:
        raise PluginError(f"config version does not allow {verb}", INCOMPATIBLE)
    return verbs[verb](call(config))


def main(
    programs: Mapping[str, Mapping[str, Verb]],
    argv: list[str],
    call: Callable[[dict[str, Any]], Call] = Call,
    others: tuple[type[Exception], ...] = (),
) -> int:
    """The process: argv[0] says which of the programs it is. others: errors of the plugin's own, told as they are."""
    verb, program = os.environ.get("CNI_COMMAND", ""), argv[0].rpartition("/")[2]
    if not verb:
        sys.stderr.write(f"CNI plugin {program} (kubewire)\nCNI protocol versions supported: {SUPPORTED_VERSIONS}\n")
        return 0
    try:
        answer = dispatch(programs[program], verb, sys.stdin.buffer.read(), call)
    except PluginError as error:
        body = {"code": error.code, "msg": error.msg} | ({"details": error.details} if error.details else {})
    except others as error:
        body = {"code": INTERNAL, "msg": str(error)}
    except OSError as error:
        body = {"code": INTERNAL, "msg": f"{error.filename or ''}: {(error.strerror or str(error)).lower()}"}
    else:
        if answer:
            json.dump(answer, sys.stdout)
        return 0
    json.dump(body, sys.stdout, indent=4)
    return 1


def run(argv: list[str], text: str = "", *, check: bool = True, environment: Any = None, delegate: bool = False) -> str:
    """stdout of a program. Raises PluginError with what it said; of a delegate its own error."""
    stdin, stdout = os.memfd_create("stdin", os.MFD_CLOEXEC), os.memfd_create("stdout", os.MFD_CLOEXEC)
    stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        os.write(stdin, text.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, own, number) for number, own in enumerate((stdin, stdout, stderr))]
        pid = os.posix_spawnp(argv[0], argv, dict(environment or os.environ), file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output, said = (os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace") for fd in (stdout, stderr))
    finally:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
    if code and check:
        if delegate:
            _raise_delegates(output)
        raise PluginError(f"{' '.join(argv)}: {said.strip() or output.strip() or f'exit status {code}'}")
    return output


def _raise_delegates(output: str) -> None:
    try:
        error = json.loads(output)
        raise PluginError(error["msg"], error.get("code", INTERNAL), error.get("details", ""))
    except (ValueError, KeyError, TypeError):
        return


def delegated(call: Call, kind: str, verb: str) -> dict[str, Any]:
    """Another plugin, run with our configuration (SPEC.md section 4). Raises PluginError."""
    paths = [os.path.join(folder, kind) for folder in os.environ.get("CNI_PATH", "").split(":") if folder]
    found = next((path for path in paths if os.path.isfile(path)), None)
    if found is None or "/" in kind:
        raise PluginError(f'failed to find plugin "{kind}" in path [{os.environ.get("CNI_PATH", "")}]')
    output = run([found], json.dumps(call.config), environment=os.environ | {"CNI_COMMAND": verb}, delegate=True)
    return json.loads(output) if output else {}


def in_namespace(netns: str, lines: list[str]) -> None:
    """`ip -batch` in the pod. Raises PluginError."""
    run(["nsenter", f"--net={netns}", "ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def on_node(lines: list[str]) -> None:
    """`ip -batch` on the node. Raises PluginError."""
    run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def mac_of(ifname: str, netns: str = "") -> str:
    inside = ["nsenter", f"--net={netns}"] if netns else []
    return str(json.loads(run([*inside, "ip", "-json", "link", "show", "dev", ifname]))[0]["address"])


def delete_link(name: str) -> None:
    """A device of the node that may be there."""
    if os.path.exists(f"/sys/class/net/{name}"):  # noqa: PTH110
        run(["ip", "link", "delete", "dev", name], check=False)
