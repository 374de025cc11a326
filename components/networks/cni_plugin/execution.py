"""What a plugin executes: other plugins as its delegates, `ip` on the node and in the container, and
what it looks at there for ADD and CHECK.

Like the contract it is in every plugin's program, so it imports only what loads in milliseconds.
"""

# ruff: noqa: PTH110, PTH113, PTH118
from __future__ import annotations

import json
import os

from kubewire.components.networks.cni_plugin.contract import (
    INCOMPATIBLE,
    INTERNAL,
    SUPPORTED_VERSIONS,
    VERBS,
    Call,
    PluginError,
    ip_entry,
    is_addresses,
    minor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
    configuration. Raises PluginError.

    A delegate may know fewer versions than its caller. Then it is asked in the newest version that
    both know. An operation that this version does not have is left out.
    """
    config = call.config if config is None else config
    since = VERBS[verb][1]
    if since < (1, 1):
        try:
            return _ask(kind, verb, config)
        except PluginError as error:
            if error.code != INCOMPATIBLE:
                raise
    version = _newest_common(kind, call.version)
    if minor(version) < since:
        return {}
    older = {**config, "cniVersion": version}
    if "prevResult" in config:
        older["prevResult"] = in_version(config["prevResult"], version)
    answer = _ask(kind, verb, older)
    return in_version(answer, call.version) if answer else answer


def _ask(kind: str, verb: str, config: dict[str, Any]) -> dict[str, Any]:
    output = run(
        [found(kind)],
        json.dumps(config),
        environment=os.environ | {"CNI_COMMAND": verb},
        delegate=True,
    )
    try:
        answer: Any = json.loads(output) if output else {}
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not is_addresses(answer.get("ips") or []):
        raise PluginError(f'plugin "{kind}" answered no result: {output[:200]}')
    return answer


def _newest_common(kind: str, asked: str) -> str:
    """The newest version, up to the asked one, that a delegate knows too. Raises PluginError."""
    known = _ask(kind, "VERSION", {"cniVersion": asked}).get("supportedVersions")
    common = [
        version
        for version in SUPPORTED_VERSIONS[: SUPPORTED_VERSIONS.index(asked) + 1]
        if isinstance(known, list) and version in known
    ]
    if not common:
        details = f'config is "{asked}", plugin "{kind}" supports {json.dumps(known)}'
        raise PluginError("incompatible CNI versions", INCOMPATIBLE, details)
    return common[-1]


def in_version(result: dict[str, Any], version: str) -> dict[str, Any]:
    """A result in the form of another version. Before 1.0.0 an address names its IP version."""
    converted = {**result, "cniVersion": version}
    if "ips" in result:
        converted["ips"] = [
            ip_entry(version, ip["address"])
            | {key: value for key, value in ip.items() if key != "version"}
            for ip in result["ips"]
        ]
    return converted


def refuse_existing(call: Call) -> None:
    """Raises PluginError if the container has an interface of the wanted name (SPEC.md, ADD). What
    belongs to that one stays as it is."""
    if not os.path.exists(call.netns):
        return  # entering it will fail, which says more
    shown = run(_inside(call.netns, "link", "show"))
    if any(link["ifname"] == call.ifname for link in json.loads(shown or "[]")):
        raise PluginError(f"interface {call.ifname} already exists in {call.netns}")


def check_pod(call: Call, *, with_default: bool = True) -> None:
    """For CHECK: the container has the addresses of prevResult, and unless with_default is False a
    default route for each of their families. A later plugin of the chain may have put that route on
    another interface. Raises PluginError."""
    shown = json.loads(run(_inside(call.netns, "address", "show", "dev", call.ifname)))
    have = {info.get("local") for link in shown for info in link.get("addr_info", ())}
    for address in call.addresses:
        if address not in have:
            raise PluginError(f"{call.ifname} has no address {address}")
    for family in sorted({_family(address) for address in call.addresses} if with_default else ()):
        if not json.loads(run(_inside(call.netns, family, "route", "show", "default")) or "[]"):
            raise PluginError(f"{call.netns} has no default route (ip {family})")


def check_node(call: Call, veth: str) -> None:
    """For CHECK: the node has a route by the veth to each address of prevResult. Raises
    PluginError."""
    for address in call.addresses:
        show = ["ip", "-json", _family(address), "route", "show", address, "dev", veth]
        if not json.loads(run(show) or "[]"):
            raise PluginError(f"no route to {address} on {veth}")


def _family(address: str) -> str:
    return "-6" if ":" in address else "-4"


def _inside(netns: str, *words: str) -> list[str]:
    return ["nsenter", f"--net={netns}", "ip", "-json", *words]


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
    if os.path.exists(f"/sys/class/net/{name}"):
        run(["ip", "link", "delete", "dev", name], check=False)
