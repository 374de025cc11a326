"""The flannel CNI meta plugin: it turns subnet.env into a configuration for the bridge plugin and
runs that plugin as its delegate (https://github.com/flannel-io/cni-plugin; SPEC.md section 4
"Plugin Delegation").

It is installed as /opt/cni/bin/flannel and runs for every pod, so it imports only those parts of
the standard library that load in a few milliseconds (no subprocess, no re, and ipaddress only for
IPv6).
"""

# ruff: noqa: PTH103, PTH108, PTH112, PTH118, PTH120, PTH208
# (pathlib takes 4 ms to load.)
from __future__ import annotations

import json
import os
import sys

from kubewire.components.networks.cni_plugin import contract, execution
from kubewire.components.networks.cni_plugin.contract import UNAVAILABLE, Call, PluginError

TYPE_CHECKING = False  # typing itself takes 3 ms to load
if TYPE_CHECKING:
    from typing import Any

DEFAULT_SUBNET_FILE = "/run/flannel/subnet.env"
DEFAULT_DATA_DIR = "/var/lib/cni/flannel"


def network_of(cidr: str) -> str:
    """ "10.244.1.1/24" -> "10.244.1.0/24". Only IPv6 uses ipaddress, which is slow to load."""
    address, slash, length = cidr.partition("/")
    try:
        if ":" in address:
            import ipaddress

            return str(ipaddress.ip_network(cidr, strict=False))
        parts = [int(part) for part in address.split(".")]
        bits = int(length)
        if (
            not slash
            or len(parts) != 4
            or not all(0 <= part < 256 for part in parts)
            or not 0 <= bits <= 32
        ):
            raise ValueError(cidr)
    except ValueError:
        raise PluginError("loadFlannelSubnetEnv failed: invalid CIDR address: " + cidr) from None
    value = int.from_bytes(bytes(parts), "big") & (0xFFFFFFFF << (32 - bits))
    return ".".join(str(byte) for byte in value.to_bytes(4, "big")) + f"/{bits}"


def load_subnet_env(path: str) -> dict[str, Any]:
    """The FLANNEL_* values of the file. Networks are lists, because there may be several. Raises
    PluginError."""
    try:
        with open(path, encoding="utf-8") as file:
            pairs = dict(line.strip().split("=", 1) for line in file if "=" in line)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise PluginError(f"loadFlannelSubnetEnv failed: open {path}: {reason}") from None
    env = {
        "networks": _networks(pairs.get("FLANNEL_NETWORK", ""))
        + _networks(pairs.get("FLANNEL_IPV6_NETWORK", "")),
        "subnets": _networks(pairs.get("FLANNEL_SUBNET", ""))
        + _networks(pairs.get("FLANNEL_IPV6_SUBNET", "")),
    }
    missing = [] if env["networks"] else ["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]
    missing += [] if env["subnets"] else ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]
    missing += [key for key in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if key not in pairs]
    if missing:
        raise PluginError(f"loadFlannelSubnetEnv failed: {path} is missing {', '.join(missing)}")
    if not pairs["FLANNEL_MTU"].isdigit():
        text = json.dumps(pairs["FLANNEL_MTU"])
        raise PluginError(
            f"loadFlannelSubnetEnv failed: strconv.ParseUint: parsing {text}: invalid syntax",
        )
    return env | {"mtu": int(pairs["FLANNEL_MTU"]), "ipmasq": pairs["FLANNEL_IPMASQ"] == "true"}


def _networks(text: str) -> list[str]:
    return [network_of(cidr.strip()) for cidr in text.split(",") if cidr.strip()]


def delegate_config(conf: dict[str, Any], env: dict[str, Any]) -> dict[str, Any]:
    """The delegate's configuration: the user's "delegate" object, completed from subnet.env."""
    delegate = dict(conf.get("delegate") or {})
    if not isinstance(delegate.get("type", ""), str):
        raise PluginError("'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if key in delegate:
            raise PluginError(
                f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel",
            )
    delegate["name"] = conf.get("name", "")
    delegate.setdefault("type", "bridge")
    # When flanneld masquerades, the bridge plugin must not: pods would see each other with node
    # addresses.
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
    ipam["routes"] = list(ipam.get("routes") or []) + [
        {"dst": network} for network in env["networks"]
    ]
    delegate["ipam"] = ipam
    return delegate


def delegated(call: Call, verb: str, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the delegate's result. Raises PluginError with the delegate's own error."""
    execution.found(config["type"])
    try:
        return execution.delegated(call, config["type"], verb, config)
    except PluginError as error:
        prefix = "failed to delegate add: " if verb == "ADD" else ""
        raise PluginError(f"{prefix}{error.msg}", error.code, error.details) from None


def scratch_path(call: Call) -> str:
    return os.path.join(call.config.get("dataDir") or DEFAULT_DATA_DIR, call.attachment)


def add(call: Call) -> dict[str, Any]:
    config = _current(call)
    path = scratch_path(call)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    # DEL must use the configuration of ADD, even if subnet.env has changed or disappeared in
    # between.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(config, file)
    return delegated(call, "ADD", config)


def stored(call: Call) -> dict[str, Any] | None:
    try:
        with open(scratch_path(call), encoding="utf-8") as file:
            config: dict[str, Any] = json.load(file)
            if isinstance(config, dict) and isinstance(config.get("type"), str):
                return config
            raise ValueError("it has no type")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        sys.stderr.write(f"failed to parse netconf: {error}\n")
        return None


def delete(call: Call) -> dict[str, Any]:
    config = stored(call)
    if config is None:
        return {}  # DEL ran before, or ADD failed early: the specification wants success
    if call.config.get("prevResult") is not None:
        config["prevResult"] = call.config["prevResult"]
    delegated(call, "DEL", config)
    try:
        os.unlink(scratch_path(call))
    except OSError:
        pass
    return {}


def check(call: Call) -> dict[str, Any]:
    config = stored(call)
    if config is None:
        raise PluginError(f"no delegate configuration for container {call.container}", 3)
    config["prevResult"] = _with_next_hops(call.config["prevResult"])
    delegated(call, "CHECK", config)
    return {}


def _with_next_hops(result: dict[str, Any]) -> dict[str, Any]:
    """A route without a next hop goes by the gateway of an address of its family (SPEC.md, Success
    result). The bridge plugin of Debian adds it so, but looks for a route without one."""
    gateways = {
        ":" in ip["gateway"]: ip["gateway"] for ip in result.get("ips") or [] if ip.get("gateway")
    }
    routes = []
    for route in result.get("routes") or []:
        gateway = gateways.get(":" in route["dst"])
        routes.append({"gw": gateway, **route} if gateway else route)
    return {**result, "routes": routes} if routes else result


def status(call: Call) -> dict[str, Any]:
    """Succeeds if flanneld has run, and the delegate is there and ready. Raises PluginError with
    code 50."""
    try:
        return delegated(call, "STATUS", _current(call))
    except PluginError as error:
        raise PluginError(error.msg, UNAVAILABLE) from None


def collect_garbage(call: Call) -> dict[str, Any]:
    """Deletes this network's scratch files of containers that are gone, and forwards the call to
    the delegate, if that knows it."""
    valid = call.valid_attachments
    folder = call.config.get("dataDir") or DEFAULT_DATA_DIR
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                stale = name not in valid and json.load(file).get("name") == call.network
            if stale:
                os.unlink(path)
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    try:
        config = _current(call)
    except PluginError:
        return {}  # without subnet.env there is no delegate to ask
    forwarded = {key: value for key, value in call.config.items() if key.startswith("cni.dev/")}
    return delegated(call, "GC", config | forwarded)


def _current(call: Call) -> dict[str, Any]:
    """The delegate's configuration by the subnet.env of now. Raises PluginError."""
    env = load_subnet_env(call.config.get("subnetFile") or DEFAULT_SUBNET_FILE)
    return delegate_config(call.config, env)


VERBS = {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": status, "GC": collect_garbage}


def main(argv: list[str]) -> int:
    return contract.main({"flannel": VERBS}, argv)
