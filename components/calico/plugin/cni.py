"""The CNI plugins `calico` and `calico-ipam`: one program under two names, as upstream's is
(https://github.com/projectcalico/calico/tree/master/cni-plugin; CNI SPEC.md).

It runs for every pod: standard library only, and of that what loads in milliseconds.
"""

# ruff: noqa: PTH103, PTH110, PTH118, PTH119, PTH120
from __future__ import annotations

import json
import os
import sys
from hashlib import sha1

from components.calico.plugin import ipam
from components.calico.plugin.datastore import ApiError, Datastore
from components.calico.plugin.selector import SelectorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUPPORTED_VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
INTERNAL, INVALID_ENVIRONMENT, DECODING_FAILURE, INCOMPATIBLE, UNAVAILABLE = 999, 4, 6, 1, 50
GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
#: Of IPv6 it is the link-local address that HOST_MAC gives (RFC 4291, appendix A).
_GATEWAYS = {"ipv4": GATEWAY, "ipv6": "fe80::ecee:eeff:feee:eeee"}
_SYSCTLS = {
    "ipv4": (
        ("ipv4/conf/{}/proxy_arp", "1"),
        ("ipv4/conf/{}/forwarding", "1"),
        ("ipv4/conf/{}/route_localnet", "1"),
        ("ipv4/neigh/{}/proxy_delay", "0"),
    ),
    "ipv6": (
        ("ipv6/conf/{}/disable_ipv6", "0"),
        ("ipv6/conf/{}/proxy_ndp", "1"),
        ("ipv6/conf/{}/forwarding", "1"),
    ),
}
NODENAME_FILE = "/var/lib/calico/nodename"
LOCK_FILE = "/var/run/calico/ipam.lock"
_ANNOTATIONS = "cni.projectcalico.org/"
_TIMESTAMP = "%Y-%m-%d %H:%M:%S +0000 UTC"


class PluginError(Exception):
    """Ends as the error object of the spec on stdout, exit status 1."""

    def __init__(self, msg: str, code: int = INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.msg, self.code, self.details = msg, code, details


def host_veth(namespace: str, pod: str) -> str:
    """The node's end: "cali" and the beginning of a hash (names.VethNameForWorkload)."""
    return "cali" + sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


class Call:
    """One invocation: configuration, environment, datastore."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.container = os.environ.get("CNI_CONTAINERID", "")
        self.netns = os.environ.get("CNI_NETNS", "")
        self.ifname = os.environ.get("CNI_IFNAME", "")
        pairs = (part.partition("=") for part in os.environ.get("CNI_ARGS", "").split(";"))
        self.args = {key: value for key, _, value in pairs if key}
        self.namespace = self.args.get("K8S_POD_NAMESPACE", "default")
        self.pod = self.args.get("K8S_POD_NAME", "") or self.container
        self._store: Datastore | None = None

    @property
    def node(self) -> str:
        """nodename of the configuration, else what calico-node has left."""
        if name := self.config.get("nodename"):
            return str(name)
        try:
            with open(self.config.get("nodename_file") or NODENAME_FILE, encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            raise PluginError(
                f"stat {NODENAME_FILE}: no such file or directory: check that the calico/node container is running and "
                "has mounted /var/lib/calico/"
            ) from None

    @property
    def store(self) -> Datastore:
        if self._store is None:
            self._store = Datastore((self.config.get("kubernetes") or {}).get("kubeconfig", ""))
        return self._store

    @property
    def handle(self) -> str:
        return f"{self.config.get('name', '')}.{self.container}"

    @property
    def veth(self) -> str:
        return host_veth(self.namespace, self.pod)


# --- calico-ipam


def ipam_add(call: Call) -> dict[str, Any]:
    """A result of IPAM: a /32 or /128 of each family that is asked for."""
    ips = [_ip(call, address) for address in assigned(call)]
    return {"cniVersion": call.config.get("cniVersion", "0.3.1"), "ips": ips, "dns": {}}


def _versions(call: Call) -> list[int]:
    """assign_ipv4 and assign_ipv6 of the configuration, which are texts; IPv4 alone without them."""
    config = call.config.get("ipam") or {}
    wanted = ((4, config.get("assign_ipv4", "true")), (6, config.get("assign_ipv6", "false")))
    return [version for version, text in wanted if str(text).lower() == "true"]


def assigned(call: Call) -> list[str]:
    """The pod's addresses; none when one of them cannot be had. Raises PluginError in upstream's words."""
    import time

    attributes = {
        "namespace": call.namespace,
        "node": call.node,
        "pod": call.pod,
        "timestamp": time.strftime(_TIMESTAMP, time.gmtime()),
    }
    node = call.store.request("GET", f"/api/v1/nodes/{call.node}")
    wishes = _wishes(call)
    lock = _locked()  # two pods at once would take a block each
    try:
        if wanted := wishes.get("ipAddrs"):
            for address in wanted:
                ipam.assign_this(call.store, call.node, address, call.handle, attributes)
            return wanted
        addresses: list[str] = []
        for version in _versions(call):
            pools = ipam.usable_pools(call.store, node, wishes.get(f"ipv{version}pools") or [], version=version)
            addresses.append(ipam.assign(call.store, call.node, pools, call.handle, attributes))
        return addresses
    except ipam.NoAddress as error:
        ipam.release(call.store, call.handle)
        asked = f"IPv{version}" if not wishes.get("ipAddrs") else "IPv4"
        raise PluginError(
            f"failed to request {asked} addresses: Assigned 0 out of 1 requested {asked} addresses; {error}"
        ) from None
    finally:
        os.close(lock)


def _locked() -> int:
    """The host-wide IPAM lock, held as long as the descriptor is open."""
    import fcntl

    os.makedirs(os.path.dirname(LOCK_FILE), exist_ok=True)
    descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _wishes(call: Call) -> dict[str, list[str]]:
    """The pod's annotations, those of its namespace where it has none."""
    if "K8S_POD_NAME" not in call.args:
        return {}
    found: dict[str, list[str]] = {}
    for path in (f"/api/v1/namespaces/{call.namespace}", f"/api/v1/namespaces/{call.namespace}/pods/{call.pod}"):
        annotations = call.store.request("GET", path)["metadata"].get("annotations") or {}
        for key in ("ipv4pools", "ipv6pools", "ipAddrs"):
            if text := annotations.get(_ANNOTATIONS + key):
                try:
                    found[key] = json.loads(text)
                except ValueError:
                    raise PluginError(f"failed to parse '{_ANNOTATIONS}{key}' annotation: {text}") from None
    return found


def ipam_delete(call: Call) -> dict[str, Any]:
    ipam.release(call.store, call.handle)
    return {}


def _ip(call: Call, address: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"address": _host_prefix(address)}
    return entry if _minor(call.config) >= (1, 0) else {"version": "6" if ":" in address else "4", **entry}


def _host_prefix(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _minor(config: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in (config.get("cniVersion") or "0.1.0").split(".")[:2])


# --- calico


def add(call: Call) -> dict[str, Any]:
    """Address, veth, routes; all of it is taken back when something fails."""
    kind = (call.config.get("ipam") or {}).get("type", "calico-ipam")
    result = ipam_add(call) if kind == "calico-ipam" else _delegated(call, kind, "ADD")
    try:
        addresses = [ip["address"].partition("/")[0] for ip in result["ips"]]
        mac = connect(call, addresses)
        _annotate(call, addresses)
    except (PluginError, ApiError, OSError):
        _disconnect(call)
        if kind == "calico-ipam":
            ipam_delete(call)
        else:
            _delegated(call, kind, "DEL")
        raise
    host, pod = {"name": call.veth, "mac": HOST_MAC}, {"name": call.ifname, "mac": mac, "sandbox": call.netns}
    ips = [{**_ip(call, address), "interface": 1} for address in addresses]
    return {"cniVersion": call.config.get("cniVersion", "0.3.1"), "interfaces": [host, pod], "ips": ips, "dns": {}}


def connect(call: Call, addresses: list[str]) -> str:
    """The veth, its two ends, its routes. Returns the MAC of the pod's end. Raises PluginError."""
    veth, mtu = call.veth, call.config.get("mtu") or 1500
    _disconnect(call)  # a node that has crashed may have left one of this name
    peer = f"peer name {call.ifname} mtu {mtu} netns {call.netns}"
    _run(["ip", "-batch", "-"], f"link add {veth} mtu {mtu} address {HOST_MAC} type veth {peer}\n")
    families = {_family(address) for address in addresses}
    for family in sorted(families):
        for path, value in _SYSCTLS[family]:
            with open(f"/proc/sys/net/{path.format(veth)}", "w", encoding="ascii") as file:
                file.write(value)
    inside = [f"address add {_host_prefix(address)} dev {call.ifname} nodad" for address in addresses]
    inside.append(f"link set dev {call.ifname} up")
    for family in sorted(families):
        inside.append(f"route add {_GATEWAYS[family]} dev {call.ifname} scope link")
        inside.append(f"route add default via {_GATEWAYS[family]} dev {call.ifname}")
    # The node's end first: it has to be up to have the link-local address that is the gateway.
    _run(["ip", "-batch", "-"], f"link set dev {veth} up\n")
    _run(["nsenter", f"--net={call.netns}", "ip", "-batch", "-"], "".join(f"{line}\n" for line in inside))
    routes = [f"route replace {_host_prefix(address)} dev {veth} scope link\n" for address in addresses]
    _run(["ip", "-batch", "-"], "".join(routes))
    shown = _run(["nsenter", f"--net={call.netns}", "ip", "-json", "link", "show", "dev", call.ifname])
    return str(json.loads(shown)[0]["address"])


def _family(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"


def _annotate(call: Call, addresses: list[str]) -> None:
    """What Calico's other parts, and people, look at on the pod."""
    if "K8S_POD_NAME" not in call.args:
        return
    prefixes = [_host_prefix(address) for address in addresses]
    values = {"containerID": call.container, "podIP": prefixes[0], "podIPs": ",".join(prefixes)}
    annotations = {_ANNOTATIONS + key: value for key, value in values.items()}
    path = f"/api/v1/namespaces/{call.namespace}/pods/{call.pod}/status"
    body = {"metadata": {"annotations": annotations}}
    try:
        call.store.request("PATCH", path, body, "application/strategic-merge-patch+json")
    except ApiError as error:
        if error.status != 404:  # deleted meanwhile: the kubelet takes it down
            raise


def delete(call: Call) -> dict[str, Any]:
    """Address first: without its veth it is free to be given to another pod. Idempotent."""
    kind = (call.config.get("ipam") or {}).get("type", "calico-ipam")
    if kind == "calico-ipam":
        ipam_delete(call)
    else:
        _delegated(call, kind, "DEL")
    if call.netns and os.path.exists(call.netns):
        _run(["nsenter", f"--net={call.netns}", "ip", "link", "delete", "dev", call.ifname], check=False)
    return {}


def check(call: Call) -> dict[str, Any]:
    """The pod's end is there with the address of prevResult, the node's end with its route. Raises PluginError."""
    for ip in (call.config.get("prevResult") or {}).get("ips") or []:
        address = ip["address"].partition("/")[0]
        shown = _run(["nsenter", f"--net={call.netns}", "ip", "-json", "address", "show", "dev", call.ifname])
        if not any(info.get("local") == address for link in json.loads(shown) for info in link.get("addr_info", ())):
            raise PluginError(f"{call.ifname} has no address {address}")
        show = ["ip", "-json", "-6" if ":" in address else "-4", "route", "show", address, "dev", call.veth]
        if not json.loads(_run(show) or "[]"):
            raise PluginError(f"no route to {address} on {call.veth}")
    return {}


def status(call: Call) -> dict[str, Any]:
    """Ready when calico-node is and the API answers. Raises PluginError with code 50."""
    try:
        _ = call.node
        call.store.list(ipam.POOLS)
    except (ApiError, OSError) as error:
        raise PluginError(str(error), UNAVAILABLE) from None
    except PluginError as error:
        raise PluginError(error.msg, UNAVAILABLE) from None
    return {}


def collect_garbage(call: Call) -> dict[str, Any]:
    """Addresses of this network and node whose container is not valid any more."""
    valid = {entry.get("containerID") for entry in call.config.get("cni.dev/valid-attachments") or []}
    prefix = f"{call.config.get('name', '')}."
    from components.calico.plugin import block

    for found in call.store.list(ipam.BLOCKS):
        for _, handle, attributes in block.allocations(found):
            ours = handle.startswith(prefix) and attributes.get("node") == call.node
            if ours and handle.removeprefix(prefix) not in valid:
                ipam.release(call.store, handle)
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
_CALICO = {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": status, "GC": collect_garbage}
_IPAM = {"ADD": ipam_add, "DEL": ipam_delete, "CHECK": lambda call: {}, "STATUS": status, "GC": collect_garbage}


def dispatch(program: str, verb: str, data: bytes) -> dict[str, Any]:
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
    if _minor(config) < since:
        raise PluginError(f"config version does not allow {verb}", INCOMPATIBLE)
    verbs = _IPAM if program == "calico-ipam" else _CALICO
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
    except (ApiError, SelectorError) as error:
        body = {"code": INTERNAL, "msg": str(error)}
    except OSError as error:
        body = {"code": INTERNAL, "msg": f"{error.filename or ''}: {(error.strerror or str(error)).lower()}"}
    else:
        if answer:
            json.dump(answer, sys.stdout)
        return 0
    json.dump(body, sys.stdout, indent=4)
    return 1
