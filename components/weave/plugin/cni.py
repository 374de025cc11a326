"""The CNI plugins `weave-net` and `weave-ipam`: one program under two names, as upstream's is
(https://github.com/weaveworks/weave/tree/master/plugin; CNI SPEC.md).

It runs for every pod: standard library only, and of that what loads in milliseconds.
"""

# ruff: noqa: PTH110, PTH118, PTH119
from __future__ import annotations

import json
import os
import sys

from components.weave.plugin.client import Client, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUPPORTED_VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
INTERNAL, INVALID_ENVIRONMENT, DECODING_FAILURE, INCOMPATIBLE, UNAVAILABLE = 999, 4, 6, 1, 50
BRIDGE, MTU, HTTP_ADDR = "weave", 1376, "127.0.0.1:6784"


class PluginError(Exception):
    """Ends as the error object of the spec on stdout, exit status 1."""

    def __init__(self, msg: str, code: int = INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.msg, self.code, self.details = msg, code, details


class Call:
    """One invocation: configuration, environment, peer."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.container = os.environ.get("CNI_CONTAINERID", "")
        self.netns = os.environ.get("CNI_NETNS", "")
        self.ifname = os.environ.get("CNI_IFNAME", "")
        self.peer = Client(config.get("httpAddr") or HTTP_ADDR)
        self.ipam: dict[str, Any] = config.get("ipam") or {}
        self.bridge = str(config.get("bridge") or BRIDGE)

    @property
    def veth(self) -> str:
        """The node's end."""
        return f"vethwepl{self.container[:7]}"


# --- weave-ipam


def ipam_add(call: Call) -> dict[str, Any]:
    """A result of IPAM: one address of the whole range, so that all pods are on one link."""
    ip: dict[str, Any] = {"address": _address(call)}
    if gateway := call.ipam.get("gateway"):
        ip["gateway"] = gateway
    result = {"cniVersion": _version(call), "ips": [_of_version(call, ip)], "dns": {}}
    if routes := call.ipam.get("routes"):
        result["routes"] = routes
    return result


def _address(call: Call) -> str:
    wanted = call.ipam.get("ips") or []
    if not wanted:
        return call.peer.allocate(call.container, call.ipam.get("subnet", ""))
    text = wanted[0] if "/" in wanted[0] else f"{wanted[0]}/32"
    call.peer.claim(call.container, text)
    return str(text)


def ipam_delete(call: Call) -> dict[str, Any]:
    call.peer.release(call.container)
    return {}


def ipam_check(call: Call) -> dict[str, Any]:
    """The peer has the address of prevResult for this container. Raises PluginError."""
    have = {address.partition("/")[0] for address in call.peer.lookup(call.container)}
    for address in _previous(call):
        if address not in have:
            raise PluginError(f"{address} is not allocated for {call.container}")
    return {}


def _previous(call: Call) -> list[str]:
    ips = (call.config.get("prevResult") or {}).get("ips") or []
    return [ip["address"].partition("/")[0] for ip in ips]


def _of_version(call: Call, ip: dict[str, Any]) -> dict[str, Any]:
    return ip if _numbers(_version(call)) >= (1, 0) else {"version": "4", **ip}


def _version(call: Call) -> str:
    return str(call.config.get("cniVersion") or "0.1.0")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


# --- weave-net


def add(call: Call) -> dict[str, Any]:
    """Address, veth on the bridge, default route by the bridge; all of it is taken back when something fails."""
    for key, text in (("isGateway", "Gateway"), ("ipMasq", "IP Masquerading")):
        if call.config.get(key):
            raise PluginError(f"{text} functionality not supported")
    if call.config.get("prevResult"):
        raise PluginError("weave-net must be the first plugin of a chain")
    try:
        result = _ipam(call, "ADD")
    except PeerError as error:
        raise PluginError(f"unable to allocate IP address: {error}") from None
    try:
        ip = result["ips"][0]
        if "gateway" not in ip and "routes" not in result:
            ip["gateway"] = _bridge_address(call)
        host_mac, mac = _connect(call, ip["address"], ip.get("gateway", ""), result.get("routes"))
    except (PluginError, OSError):
        _disconnect(call)
        _ipam(call, "DEL")
        raise
    ip["interface"] = 1
    host = {"name": call.veth, "mac": host_mac}
    pod = {"name": call.ifname, "mac": mac, "sandbox": call.netns}
    return {**result, "cniVersion": _version(call), "interfaces": [host, pod], "dns": call.config.get("dns") or {}}


def _ipam(call: Call, verb: str) -> dict[str, Any]:
    kind = call.ipam.get("type", "")
    if kind in ("", "weave-ipam"):
        return {"ADD": ipam_add, "DEL": ipam_delete, "CHECK": ipam_check}[verb](call)
    return _delegated(call, kind, verb)


def _bridge_address(call: Call) -> str:
    if not os.path.exists(f"/sys/class/net/{call.bridge}"):
        raise PluginError(f'bridge "{call.bridge}" not present; did you launch weave?')
    shown = json.loads(_run(["ip", "-json", "-4", "address", "show", "dev", call.bridge]) or "[]")
    for link in shown:
        for info in link.get("addr_info", ()):
            return str(info["local"])
    raise PluginError(f"Bridge \"{call.bridge}\" has no IP addresses; did you forget to run 'weave expose'?")


def _connect(call: Call, cidr: str, gateway: str, routes: Any) -> tuple[str, str]:
    """The veth with both ends. Returns the MACs of the node's and the pod's. Raises PluginError."""
    mtu = call.config.get("mtu") or MTU
    _disconnect(call)  # a node that has crashed may have left one of this name
    hairpin = " hairpin on" if call.config.get("hairpinMode") else ""
    _run(
        ["ip", "-batch", "-"],
        f"link add {call.veth} mtu {mtu} type veth peer name {call.ifname} mtu {mtu} netns {call.netns}\n"
        f"link set dev {call.veth} master {call.bridge} up\n"
        f"link set dev {call.veth} type bridge_slave{hairpin or ' hairpin off'}\n",
    )
    lines = [f"address add {cidr} dev {call.ifname}", f"link set dev {call.ifname} up"]
    if routes is None and gateway:
        lines += [f"route add {gateway}/32 dev {call.ifname} scope link"] if cidr.endswith("/32") else []
        lines.append(f"route add default via {gateway} dev {call.ifname}")
    for route in routes or ():
        via = route.get("gw") or gateway
        lines.append(f"route add {route['dst']}" + (f" via {via}" if via else "") + f" dev {call.ifname}")
    _in_pod(call, "".join(f"{line}\n" for line in lines))
    shown = _run(["nsenter", f"--net={call.netns}", "ip", "-json", "link", "show", "dev", call.ifname])
    with open(f"/sys/class/net/{call.veth}/address", encoding="ascii") as file:
        return file.read().strip(), str(json.loads(shown)[0]["address"])


def _in_pod(call: Call, lines: str) -> None:
    """Neighbours are asked for again soon, and told when the interface comes up: addresses are given to other pods."""
    neighbours = f"/proc/sys/net/ipv4/neigh/{call.ifname}"
    script = (
        f"echo 1 >/proc/sys/net/ipv4/conf/{call.ifname}/arp_notify; echo 5 >{neighbours}/base_reachable_time; "
        f"echo 2 >{neighbours}/delay_first_probe_time; echo 1 >{neighbours}/ucast_solicit; exec ip -batch -"
    )
    _run(["nsenter", f"--net={call.netns}", "sh", "-ec", script], lines)


def delete(call: Call) -> dict[str, Any]:
    """Interface first, then the address. Idempotent."""
    if call.netns and os.path.exists(call.netns):
        _run(["nsenter", f"--net={call.netns}", "ip", "link", "delete", "dev", call.ifname], check=False)
    _disconnect(call)
    try:
        _ipam(call, "DEL")
    except PeerError as error:
        raise PluginError(f"unable to release IP address: {error}") from None
    return {}


def check(call: Call) -> dict[str, Any]:
    """The pod's end has the address of prevResult, the node's end is a port of the bridge. Raises PluginError."""
    shown = json.loads(_run(["nsenter", f"--net={call.netns}", "ip", "-json", "address", "show", "dev", call.ifname]))
    have = {info.get("local") for link in shown for info in link.get("addr_info", ())}
    for address in _previous(call):
        if address not in have:
            raise PluginError(f"{call.ifname} has no address {address}")
    if not os.path.exists(f"/sys/class/net/{call.bridge}/brif/{call.veth}"):
        raise PluginError(f"{call.veth} is no port of {call.bridge}")
    return _ipam(call, "CHECK")


def status(call: Call) -> dict[str, Any]:
    """Ready when the peer answers and the bridge has its address. Raises PluginError with code 50."""
    try:
        call.peer.status()
        _bridge_address(call)
    except (PeerError, PluginError) as error:
        raise PluginError(str(error), UNAVAILABLE) from None
    return {}


def ipam_status(call: Call) -> dict[str, Any]:
    """Ready when the peer answers. Raises PluginError with code 50."""
    try:
        call.peer.status()
    except PeerError as error:
        raise PluginError(str(error), UNAVAILABLE) from None
    return {}


def collect_garbage(call: Call) -> dict[str, Any]:
    """Addresses of containers that are not valid any more, and the node's ends of their veths."""
    valid = {entry.get("containerID") for entry in call.config.get("cni.dev/valid-attachments") or []}
    for container in call.peer.containers():
        if container not in valid:
            veth = f"vethwepl{container[:7]}"
            if os.path.exists(f"/sys/class/net/{veth}"):
                _run(["ip", "link", "delete", "dev", veth], check=False)
            call.peer.release(container)
    return {}


def _disconnect(call: Call) -> None:
    if os.path.exists(f"/sys/class/net/{call.veth}"):
        _run(["ip", "link", "delete", "dev", call.veth], check=False)


def _delegated(call: Call, kind: str, verb: str) -> dict[str, Any]:
    """Another IPAM plugin, run with our configuration (SPEC.md section 4)."""
    paths = [os.path.join(folder, kind) for folder in os.environ.get("CNI_PATH", "").split(":") if folder]
    found = next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113
    if found is None or "/" in kind:
        raise PluginError(f'failed to find plugin "{kind}" in path [{os.environ.get("CNI_PATH", "")}]')
    output = _run([found], json.dumps(call.config), environment=os.environ | {"CNI_COMMAND": verb}, delegate=True)
    return json.loads(output) if output else {}


def _run(
    argv: list[str],
    text: str = "",
    *,
    check: bool = True,
    environment: Any = None,
    delegate: bool = False,
) -> str:
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


# --- the contract

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
_NET = {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": status, "GC": collect_garbage}
_IPAM = {"ADD": ipam_add, "DEL": ipam_delete, "CHECK": ipam_check, "STATUS": ipam_status, "GC": collect_garbage}


def dispatch(program: str, verb: str, data: bytes) -> dict[str, Any]:
    """What is printed. Raises PluginError, PeerError."""
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
    if _numbers(asked) < since:
        raise PluginError(f"config version does not allow {verb}", INCOMPATIBLE)
    verbs = _IPAM if program == "weave-ipam" else _NET
    return verbs[verb](Call(config))


def main(argv: list[str]) -> int:
    """argv[0] says which of the two plugins this is."""
    verb, program = os.environ.get("CNI_COMMAND", ""), os.path.basename(argv[0])
    if not verb:
        sys.stderr.write(f"CNI plugin {program} (kubewire)\nCNI protocol versions supported: {SUPPORTED_VERSIONS}\n")
        return 0
    try:
        answer = dispatch(program, verb, sys.stdin.buffer.read())
    except PluginError as error:
        body = {"code": error.code, "msg": error.msg} | ({"details": error.details} if error.details else {})
    except PeerError as error:
        body = {"code": INTERNAL, "msg": str(error)}
    except OSError as error:
        body = {"code": INTERNAL, "msg": f"{error.filename or ''}: {(error.strerror or str(error)).lower()}"}
    else:
        if answer:
            json.dump(answer, sys.stdout)
        return 0
    json.dump(body, sys.stdout, indent=4)
    return 1
