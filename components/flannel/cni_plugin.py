"""The flannel CNI meta plugin: subnet.env in, a bridge configuration out, and the delegate run with it
(https://github.com/flannel-io/cni-plugin; CNI SPEC.md section 4 "Plugin Delegation").

It is installed as /opt/cni/bin/flannel and runs for every pod: standard library only, and of that only what
loads in a few milliseconds (no subprocess, no ipaddress, no re of our own).
"""

# ruff: noqa: PTH103, PTH108, PTH112, PTH113, PTH118, PTH120, PTH208
# (pathlib takes 4 ms to load.)
from __future__ import annotations

import json
import os
import sys

from components.machinery.cni_plugin import contract
from components.machinery.cni_plugin.contract import (
    INCOMPATIBLE,
    INTERNAL,
    INVALID_ENVIRONMENT,
    SUPPORTED_VERSIONS,
    UNAVAILABLE,
    PluginError,
)

TYPE_CHECKING = False  # typing itself takes 3 ms to load
if TYPE_CHECKING:
    from typing import Any

DEFAULT_SUBNET_FILE = "/run/flannel/subnet.env"
DEFAULT_DATA_DIR = "/var/lib/cni/flannel"


def network_of(cidr: str) -> str:
    """ "10.244.1.1/24" -> "10.244.1.0/24"; IPv6 is passed through ipaddress, which is slow to load."""
    address, slash, length = cidr.partition("/")
    try:
        if ":" in address:
            import ipaddress

            return str(ipaddress.ip_network(cidr, strict=False))
        parts = [int(part) for part in address.split(".")]
        bits = int(length)
        if not slash or len(parts) != 4 or not all(0 <= part < 256 for part in parts) or not 0 <= bits <= 32:
            raise ValueError(cidr)
    except ValueError:
        raise PluginError("loadFlannelSubnetEnv failed: invalid CIDR address: " + cidr) from None
    value = int.from_bytes(bytes(parts), "big") & (0xFFFFFFFF << (32 - bits))
    return ".".join(str(byte) for byte in value.to_bytes(4, "big")) + f"/{bits}"


def load_subnet_env(path: str) -> dict[str, Any]:
    """The file's FLANNEL_* values; networks as lists, since flannel may have several. Raises PluginError."""
    try:
        with open(path, encoding="utf-8") as file:
            pairs = dict(line.strip().split("=", 1) for line in file if "=" in line)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise PluginError(f"loadFlannelSubnetEnv failed: open {path}: {reason}") from None
    env = {
        "networks": _networks(pairs.get("FLANNEL_NETWORK", "")) + _networks(pairs.get("FLANNEL_IPV6_NETWORK", "")),
        "subnets": _networks(pairs.get("FLANNEL_SUBNET", "")) + _networks(pairs.get("FLANNEL_IPV6_SUBNET", "")),
    }
    missing = [] if env["networks"] else ["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]
    missing += [] if env["subnets"] else ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]
    missing += [key for key in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if key not in pairs]
    if missing:
        raise PluginError(f"loadFlannelSubnetEnv failed: {path} is missing {', '.join(missing)}")
    if not pairs["FLANNEL_MTU"].isdigit():
        text = json.dumps(pairs["FLANNEL_MTU"])
        raise PluginError(f"loadFlannelSubnetEnv failed: strconv.ParseUint: parsing {text}: invalid syntax")
    return env | {"mtu": int(pairs["FLANNEL_MTU"]), "ipmasq": pairs["FLANNEL_IPMASQ"] == "true"}


def _networks(text: str) -> list[str]:
    return [network_of(cidr.strip()) for cidr in text.split(",") if cidr.strip()]


def delegate_config(conf: dict[str, Any], env: dict[str, Any]) -> dict[str, Any]:
    """The delegate's configuration: what the user gave under "delegate", completed from subnet.env."""
    delegate = dict(conf.get("delegate") or {})
    if not isinstance(delegate.get("type", ""), str):
        raise PluginError("'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if key in delegate:
            raise PluginError(f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel")
    delegate["name"] = conf.get("name", "")
    delegate.setdefault("type", "bridge")
    # When flanneld masquerades, the bridge plugin must not, or pods would see a node's address.
    delegate.setdefault("ipMasq", not env["ipmasq"])
    delegate.setdefault("mtu", env["mtu"])
    if delegate["type"] == "bridge":
        delegate.setdefault("isGateway", True)
    if conf.get("cniVersion"):
        delegate["cniVersion"] = conf["cniVersion"]
    if conf.get("runtimeConfig") is not None:
        delegate["runtimeConfig"] = conf["runtimeConfig"]
    ipam = dict(conf.get("ipam") or {})
    ipam.setdefault("type", "host-local")
    ipam["ranges"] = [[{"subnet": subnet}] for subnet in env["subnets"]]
    ipam["routes"] = list(ipam.get("routes") or []) + [{"dst": network} for network in env["networks"]]
    delegate["ipam"] = ipam
    return delegate


def run_delegate(kind: str, config: dict[str, Any]) -> tuple[int, bytes]:
    """Run the delegate found in CNI_PATH with our environment; (exit status, stdout). Raises PluginError."""
    paths = [os.path.join(folder, kind) for folder in os.environ.get("CNI_PATH", "").split(":") if folder]
    found = next((path for path in paths if os.path.isfile(path)), None)
    if "/" in kind or found is None:
        raise PluginError(f'failed to find plugin "{kind}" in path [{os.environ.get("CNI_PATH", "")}]')
    stdin, stdout = os.memfd_create("stdin", os.MFD_CLOEXEC), os.memfd_create("stdout", os.MFD_CLOEXEC)
    os.write(stdin, json.dumps(config).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    redirect = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    pid = os.posix_spawn(found, [found], dict(os.environ), file_actions=redirect)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), os.pread(stdout, os.fstat(stdout).st_size, 0)


def delegated(verb: str, config: dict[str, Any]) -> bytes:
    """As run_delegate; a failure becomes the delegate's own error, with its code. Returns its stdout."""
    status, output = run_delegate(config["type"], config)
    if status == 0:
        return output
    prefix = "failed to delegate add: " if verb == "ADD" else ""
    try:
        error = json.loads(output)
        raise PluginError(prefix + error["msg"], int(error.get("code", INTERNAL)), str(error.get("details", "")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said = output.decode(errors="replace").strip()
        raise PluginError(f"{prefix}netplugin failed (exit status {status}): {said}") from None


def scratch_path(conf: dict[str, Any]) -> str:
    return os.path.join(conf.get("dataDir") or DEFAULT_DATA_DIR, os.environ["CNI_CONTAINERID"])


def add(conf: dict[str, Any]) -> bytes:
    env = load_subnet_env(conf.get("subnetFile") or DEFAULT_SUBNET_FILE)
    config = delegate_config(conf, env)
    path = scratch_path(conf)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    # DEL must find what ADD used, also when subnet.env has changed or gone by then.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(config, file)
    return delegated("ADD", config)


def stored(conf: dict[str, Any]) -> dict[str, Any] | None:
    try:
        with open(scratch_path(conf), encoding="utf-8") as file:
            config: dict[str, Any] = json.load(file)
            if isinstance(config, dict) and isinstance(config.get("type"), str):
                return config
            raise ValueError("it has no type")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        sys.stderr.write(f"failed to parse netconf: {error}\n")
        return None


def delete(conf: dict[str, Any]) -> bytes:
    config = stored(conf)
    if config is None:
        return b""  # Nothing there: done before, or ADD never came this far.
    if conf.get("prevResult") is not None:
        config["prevResult"] = conf["prevResult"]
    delegated("DEL", config)
    try:
        os.unlink(scratch_path(conf))
    except OSError:
        pass
    return b""


def check(conf: dict[str, Any]) -> bytes:
    config = stored(conf)
    if config is None:
        raise PluginError("no delegate configuration for container " + os.environ["CNI_CONTAINERID"], 3)
    config["prevResult"] = conf.get("prevResult")
    delegated("CHECK", config)
    return b""


def status(conf: dict[str, Any]) -> bytes:
    try:
        load_subnet_env(conf.get("subnetFile") or DEFAULT_SUBNET_FILE)
    except PluginError as error:
        raise PluginError(error.msg, UNAVAILABLE) from None
    return b""


def collect_garbage(conf: dict[str, Any]) -> bytes:
    """Scratch files of this network whose container is not valid any more; their addresses went with DEL."""
    valid = {str(entry.get("containerID", "")) for entry in conf.get("cni.dev/valid-attachments") or []}
    folder = conf.get("dataDir") or DEFAULT_DATA_DIR
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                stale = name not in valid and json.load(file).get("name") == conf.get("name")
            if stale:
                os.unlink(path)
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    return b""


def version(conf: dict[str, Any]) -> bytes:
    answer = {"cniVersion": conf.get("cniVersion") or "1.1.0", "supportedVersions": SUPPORTED_VERSIONS}
    return json.dumps(answer).encode()


# verb: (what runs it, environment it needs, first spec version that has it)
VERBS = {
    "ADD": (add, ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"), (0, 1)),
    "DEL": (delete, ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"), (0, 1)),
    "CHECK": (check, ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"), (0, 4)),
    "STATUS": (status, ("CNI_PATH",), (1, 1)),
    "GC": (collect_garbage, ("CNI_PATH",), (1, 1)),
    "VERSION": (version, (), (0, 1)),
}


def dispatch(verb: str, data: bytes) -> bytes:
    if verb not in VERBS:
        raise PluginError("unknown CNI_COMMAND: " + verb, INVALID_ENVIRONMENT)
    run, needed, since = VERBS[verb]
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        raise PluginError(f"required env variables [{','.join(missing)}] missing", INVALID_ENVIRONMENT)
    conf = contract.decoded(data)
    asked = conf.get("cniVersion") or "0.1.0"
    if verb == "VERSION":
        return run(conf)
    if asked not in SUPPORTED_VERSIONS:
        details = f'config is "{asked}", plugin supports {json.dumps(SUPPORTED_VERSIONS)}'
        raise PluginError("incompatible CNI versions", INCOMPATIBLE, details)
    if tuple(int(part) for part in asked.split(".")[:2]) < since:
        raise PluginError("config version does not allow " + verb, INCOMPATIBLE)
    contract.check_environment()
    contract.check_config(conf)
    return run(conf)


def main(_: list[str]) -> int:
    verb = os.environ.get("CNI_COMMAND", "")
    if not verb:
        versions = ", ".join(SUPPORTED_VERSIONS)
        sys.stderr.write(f"CNI flannel plugin (kubewire)\nCNI protocol versions supported: {versions}\n")
        return 0
    data = b""
    try:
        data = contract.configuration()
        output = dispatch(verb, data)
    except PluginError as error:
        body = contract.error_object(data, error.code, error.msg, error.details)
    except OSError as error:
        body = contract.error_object(data, INTERNAL, f"{error.filename}: {(error.strerror or '').lower()}")
    except Exception as error:  # a fault of ours: a runtime can read nothing but the spec's object
        body = contract.error_object(data, INTERNAL, f"flannel: {type(error).__name__}: {error}")
    else:
        sys.stdout.buffer.write(output)
        return 0
    json.dump(body, sys.stdout, indent=4)
    return 1
