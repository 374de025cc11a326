"""The CNI plugins `calico` and `calico-ipam`: one program under two names, as upstream's is
(https://github.com/projectcalico/calico/tree/master/cni-plugin; CNI SPEC.md).

It runs for every pod, so it imports only those parts of the standard library that load in
milliseconds.
"""

# ruff: noqa: PTH103, PTH110, PTH120
from __future__ import annotations

import json
import os
from hashlib import sha1

from kubewire.components.networks.calico.plugin import ipam
from kubewire.components.networks.calico.plugin.datastore import ApiError, Datastore
from kubewire.components.networks.calico.plugin.selector import SelectorError
from kubewire.components.networks.cni_plugin import contract, execution
from kubewire.components.networks.cni_plugin.contract import UNAVAILABLE, PluginError
from kubewire.components.networks.cni_plugin.execution import delegated, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
#: The gateway is the link-local address that follows from HOST_MAC (RFC 4291, appendix A).
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


def host_veth(workload: str) -> str:
    """The name of the node's end: "cali" and the start of a hash (names.VethNameForWorkload)."""
    return "cali" + sha1(workload.encode()).hexdigest()[:11]


class Call(contract.Call):
    """One invocation, with access to the datastore."""

    _store: Datastore | None = None

    @property
    def node(self) -> str:
        """The nodename of the configuration, else the content of calico-node's file."""
        if name := self.config.get("nodename"):
            return str(name)
        try:
            with open(self.config.get("nodename_file") or NODENAME_FILE, encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            raise PluginError(
                f"stat {NODENAME_FILE}: no such file or directory: check that the calico/node container is running and "
                "has mounted /var/lib/calico/",
            ) from None

    @property
    def store(self) -> Datastore:
        if self._store is None:
            self._store = Datastore((self.config.get("kubernetes") or {}).get("kubeconfig", ""))
        return self._store

    @property
    def handle(self) -> str:
        return f"{self.config.get('name', '')}.{self.attachment}"

    @property
    def veth(self) -> str:
        return host_veth(self.workload)


def ipam_add(call: Call) -> dict[str, Any]:
    """IPAM's result: a /32 or /128 of each requested family."""
    ips = [contract.ip_entry(call.version, _host_prefix(address)) for address in assigned(call)]
    return {"cniVersion": call.version, "ips": ips, "dns": {}}


def _versions(call: Call) -> list[int]:
    """assign_ipv4 and assign_ipv6 of the configuration, which are strings; the default is IPv4
    alone."""
    config = call.config.get("ipam") or {}
    wanted = ((4, config.get("assign_ipv4", "true")), (6, config.get("assign_ipv6", "false")))
    return [version for version, text in wanted if str(text).lower() == "true"]


def assigned(call: Call) -> list[str]:
    """Assigns the pod's addresses, all or none. Raises PluginError with upstream's text."""
    import time

    attributes = {
        "namespace": call.namespace,
        "node": call.node,
        "pod": call.pod,
        "timestamp": time.strftime(_TIMESTAMP, time.gmtime()),
    }
    node = call.store.request("GET", f"/api/v1/nodes/{call.node}")
    wishes = _wishes(call)
    lock = _locked()  # two pods added at the same time would claim a block each
    try:
        if wanted := wishes.get("ipAddrs"):
            for address in wanted:
                ipam.assign_this(call.store, call.node, address, call.handle, attributes)
            return wanted
        addresses: list[str] = []
        for version in _versions(call):
            pools = ipam.usable_pools(
                call.store,
                node,
                wishes.get(f"ipv{version}pools") or [],
                version=version,
            )
            addresses.append(ipam.assign(call.store, call.node, pools, call.handle, attributes))
        return addresses
    except ipam.NoAddress as error:
        ipam.release(call.store, call.handle)
        asked = f"IPv{version}" if not wishes.get("ipAddrs") else "IPv4"
        raise PluginError(
            f"failed to request {asked} addresses: Assigned 0 out of 1 requested {asked} addresses; {error}",
        ) from None
    finally:
        os.close(lock)


def _locked() -> int:
    """Takes the host-wide IPAM lock; it is held until the descriptor is closed."""
    import fcntl

    os.makedirs(os.path.dirname(LOCK_FILE), exist_ok=True)
    descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _wishes(call: Call) -> dict[str, list[str]]:
    """The pod's IPAM annotations; the namespace's are the defaults."""
    if "K8S_POD_NAME" not in call.args:
        return {}
    wishes: dict[str, list[str]] = {}
    for path in (
        f"/api/v1/namespaces/{call.namespace}",
        f"/api/v1/namespaces/{call.namespace}/pods/{call.pod}",
    ):
        annotations = call.store.request("GET", path)["metadata"].get("annotations") or {}
        for key in ("ipv4pools", "ipv6pools", "ipAddrs"):
            if text := annotations.get(_ANNOTATIONS + key):
                try:
                    wishes[key] = json.loads(text)
                except ValueError:
                    raise PluginError(
                        f"failed to parse '{_ANNOTATIONS}{key}' annotation: {text}",
                    ) from None
    return wishes


def ipam_delete(call: Call) -> dict[str, Any]:
    ipam.release(call.store, call.handle)
    return {}


def _host_prefix(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def add(call: Call) -> dict[str, Any]:
    """Assigns the addresses and connects the pod; undoes both if a step fails."""
    execution.refuse_existing(call)
    kind = (call.config.get("ipam") or {}).get("type", "calico-ipam")
    result = ipam_add(call) if kind == "calico-ipam" else delegated(call, kind, "ADD")
    try:
        addresses = [ip["address"].partition("/")[0] for ip in result["ips"]]
        mac = connect(call, addresses)
        _annotate(call, addresses)
    except (PluginError, ApiError, OSError):
        _disconnect(call)
        if kind == "calico-ipam":
            ipam_delete(call)
        else:
            delegated(call, kind, "DEL")
        raise
    host = {"name": call.veth, "mac": HOST_MAC}
    pod = {"name": call.ifname, "mac": mac, "sandbox": call.netns}
    return call.result([host, pod], [_host_prefix(address) for address in addresses])


def connect(call: Call, addresses: list[str]) -> str:
    """Creates the veth and its routes. Returns the MAC of the pod's end. Raises PluginError."""
    veth = call.veth
    mtu = call.config.get("mtu") or 1500
    _disconnect(call)  # a crashed node may have left a veth with this name
    peer = f"peer name {call.ifname} mtu {mtu} netns {call.netns}"
    run(["ip", "-batch", "-"], f"link add {veth} mtu {mtu} address {HOST_MAC} type veth {peer}\n")
    families = {_family(address) for address in addresses}
    for family in sorted(families):
        for path, value in _SYSCTLS[family]:
            with open(f"/proc/sys/net/{path.format(veth)}", "w", encoding="ascii") as file:
                file.write(value)
    inside = [
        f"address add {_host_prefix(address)} dev {call.ifname} nodad" for address in addresses
    ]
    inside.append(f"link set dev {call.ifname} up")
    for family in sorted(families):
        inside.append(f"route append {_GATEWAYS[family]} dev {call.ifname} scope link")
        inside.append(f"route append default via {_GATEWAYS[family]} dev {call.ifname}")
    # The node's end first: only when it is up does it have the link-local address that is the
    # gateway.
    run(["ip", "-batch", "-"], f"link set dev {veth} up\n")
    run(
        ["nsenter", f"--net={call.netns}", "ip", "-batch", "-"],
        "".join(f"{line}\n" for line in inside),
    )
    routes = [
        f"route replace {_host_prefix(address)} dev {veth} scope link\n" for address in addresses
    ]
    run(["ip", "-batch", "-"], "".join(routes))
    shown = run(
        ["nsenter", f"--net={call.netns}", "ip", "-json", "link", "show", "dev", call.ifname],
    )
    return str(json.loads(shown)[0]["address"])


def _family(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"


def _annotate(call: Call, addresses: list[str]) -> None:
    """Writes the pod's annotations, which Calico's other parts and users read."""
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
        if error.status != 404:  # the pod was deleted meanwhile; the kubelet will call DEL
            raise


def delete(call: Call) -> dict[str, Any]:
    """Releases the address, then deletes the veth. Idempotent."""
    kind = (call.config.get("ipam") or {}).get("type", "calico-ipam")
    if kind == "calico-ipam":
        ipam_delete(call)
    else:
        delegated(call, kind, "DEL")
    if call.netns and os.path.exists(call.netns):
        run(
            ["nsenter", f"--net={call.netns}", "ip", "link", "delete", "dev", call.ifname],
            check=False,
        )
    return {}


def check(call: Call) -> dict[str, Any]:
    """Checks the pod, the node's routes to it and the assignment of its addresses. Raises
    PluginError."""
    execution.check_pod(call)
    execution.check_node(call, call.veth)
    kind = (call.config.get("ipam") or {}).get("type", "calico-ipam")
    return ipam_check(call) if kind == "calico-ipam" else delegated(call, kind, "CHECK")


def ipam_check(call: Call) -> dict[str, Any]:
    """Checks that the addresses of prevResult are assigned to this attachment. Raises
    PluginError."""
    from kubewire.components.networks.calico.plugin import block

    assigned_ones = {
        address
        for ipam_block in call.store.list(ipam.BLOCKS)
        for address, handle, _ in block.allocations(ipam_block)
        if handle == call.handle
    }
    for address in call.addresses:
        if address not in assigned_ones:
            raise PluginError(f"{address} is not assigned to {call.handle}")
    return {}


def status(call: Call) -> dict[str, Any]:
    """Succeeds if calico-node has run and the API server answers. Raises PluginError with code
    50."""
    try:
        _ = call.node
        call.store.list(ipam.POOLS)
    except (ApiError, OSError) as error:
        raise PluginError(str(error), UNAVAILABLE) from None
    except PluginError as error:
        raise PluginError(error.msg, UNAVAILABLE) from None
    return {}


def collect_garbage(call: Call) -> dict[str, Any]:
    """Releases addresses of this network and node whose containers are gone."""
    valid = call.valid_attachments
    prefix = f"{call.network}."
    from kubewire.components.networks.calico.plugin import block

    for ipam_block in call.store.list(ipam.BLOCKS):
        for _, handle, attributes in block.allocations(ipam_block):
            ours = handle.startswith(prefix) and attributes.get("node") == call.node
            if ours and handle.removeprefix(prefix) not in valid:
                ipam.release(call.store, handle)
    return {}


def _disconnect(call: Call) -> None:
    if os.path.exists(f"/sys/class/net/{call.veth}"):
        run(["ip", "link", "delete", "dev", call.veth], check=False)


_PROGRAMS = {
    "calico": {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": status, "GC": collect_garbage},
    "calico-ipam": {
        "ADD": ipam_add,
        "DEL": ipam_delete,
        "CHECK": ipam_check,
        "STATUS": status,
        "GC": collect_garbage,
    },
}


def main(argv: list[str]) -> int:
    """argv[0] tells which of the two plugins is called."""
    return contract.main(_PROGRAMS, argv, Call, (ApiError, SelectorError))
