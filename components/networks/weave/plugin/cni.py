"""The CNI plugins `weave-net` and `weave-ipam`: one program under two names, as upstream's is
(https://github.com/weaveworks/weave/tree/master/plugin; CNI SPEC.md).

It runs for every pod, so it imports only those parts of the standard library that load in
milliseconds.
"""

# ruff: noqa: PTH110
from __future__ import annotations

import json
import os
import time

from kubewire.components.networks.cni_plugin import contract, execution
from kubewire.components.networks.cni_plugin.contract import UNAVAILABLE, PluginError
from kubewire.components.networks.cni_plugin.execution import delegated, delete_link, run
from kubewire.components.networks.weave.plugin.client import Client, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BRIDGE = "weave"
MTU = 1376
#: BR_STATE_FORWARDING of a bridge port, and how long to wait for it: a second at most.
_FORWARDING, _FORWARDING_TRIES, _FORWARDING_PAUSE = "3", 100, 0.01
HTTP_ADDR = "127.0.0.1:6784"


def _veth(attachment: str) -> str:
    """The name of the node's end: seven characters of the container's id, or of a hash for an
    interface besides the usual one."""
    if "." not in attachment:
        return f"vethwepl{attachment[:7]}"
    from hashlib import sha1

    return f"vethwepl{sha1(attachment.encode()).hexdigest()[:7]}"


class Call(contract.Call):
    """One invocation, with access to the peer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.peer = Client(config.get("httpAddr") or HTTP_ADDR)
        self.ipam: dict[str, Any] = config.get("ipam") or {}
        self.bridge = str(config.get("bridge") or BRIDGE)

    @property
    def veth(self) -> str:
        """The name of the node's end."""
        return _veth(self.attachment)


def ipam_add(call: Call) -> dict[str, Any]:
    """IPAM's result: one address with the prefix length of the whole range, so that all pods are on
    one link."""
    ip: dict[str, Any] = {"address": _address(call)}
    if gateway := call.ipam.get("gateway"):
        ip["gateway"] = gateway
    result = {"cniVersion": call.version, "ips": [_of_version(call, ip)], "dns": {}}
    if routes := call.ipam.get("routes"):
        result["routes"] = routes
    return result


def _address(call: Call) -> str:
    wanted = call.ipam.get("ips") or []
    if not wanted:
        return call.peer.allocate(call.attachment, call.ipam.get("subnet", ""))
    text = wanted[0] if "/" in wanted[0] else f"{wanted[0]}/32"
    call.peer.claim(call.attachment, text)
    return str(text)


def ipam_delete(call: Call) -> dict[str, Any]:
    call.peer.release(call.attachment)
    return {}


def ipam_check(call: Call) -> dict[str, Any]:
    """Checks that the peer has assigned the address of prevResult to this container. Raises
    PluginError."""
    have = {address.partition("/")[0] for address in call.peer.lookup(call.attachment)}
    for address in call.addresses:
        if address not in have:
            raise PluginError(f"{address} is not allocated for {call.attachment}")
    return {}


def _of_version(call: Call, ip: dict[str, Any]) -> dict[str, Any]:
    return ip if contract.minor(call.version) >= (1, 0) else {"version": "4", **ip}


def add(call: Call) -> dict[str, Any]:
    """Assigns an address, connects the veth to the bridge, adds the default route; undoes all of it
    after an error."""
    for key, text in (("isGateway", "Gateway"), ("ipMasq", "IP Masquerading")):
        if call.config.get(key):
            raise PluginError(f"{text} functionality not supported")
    if call.config.get("prevResult"):
        raise PluginError("weave-net must be the first plugin of a chain")
    execution.refuse_existing(call)
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
    return {
        **result,
        "cniVersion": call.version,
        "interfaces": [host, pod],
        "dns": call.config.get("dns") or {},
    }


def _ipam(call: Call, verb: str) -> dict[str, Any]:
    kind = call.ipam.get("type", "")
    if kind in ("", "weave-ipam"):
        return {"ADD": ipam_add, "DEL": ipam_delete, "CHECK": ipam_check}[verb](call)
    return delegated(call, kind, verb)


def _bridge_address(call: Call) -> str:
    if not os.path.exists(f"/sys/class/net/{call.bridge}"):
        raise PluginError(f'bridge "{call.bridge}" not present; did you launch weave?')
    shown = json.loads(run(["ip", "-json", "-4", "address", "show", "dev", call.bridge]) or "[]")
    for link in shown:
        for info in link.get("addr_info", ()):
            return str(info["local"])
    raise PluginError(
        f"Bridge \"{call.bridge}\" has no IP addresses; did you forget to run 'weave expose'?",
    )


def _connect(call: Call, cidr: str, gateway: str, routes: Any) -> tuple[str, str]:
    """Creates the veth. Returns the MACs of the node's end and of the pod's end. Raises
    PluginError."""
    mtu = call.config.get("mtu") or MTU
    _disconnect(call)  # a crashed node may have left a veth with this name
    hairpin = " hairpin on" if call.config.get("hairpinMode") else ""
    run(
        ["ip", "-batch", "-"],
        f"link add {call.veth} mtu {mtu} type veth peer name {call.ifname} mtu {mtu} netns {call.netns}\n"
        f"link set dev {call.veth} master {call.bridge} up\n"
        f"link set dev {call.veth} type bridge_slave{hairpin or ' hairpin off'}\n",
    )
    lines = [f"address add {cidr} dev {call.ifname}", f"link set dev {call.ifname} up"]
    if routes is None and gateway:
        lines += (
            [f"route append {gateway}/32 dev {call.ifname} scope link"]
            if cidr.endswith("/32")
            else []
        )
        lines.append(f"route append default via {gateway} dev {call.ifname}")
    for route in routes or ():
        via = route.get("gw") or gateway
        lines.append(
            f"route append {route['dst']}" + (f" via {via}" if via else "") + f" dev {call.ifname}",
        )
    _in_pod(call, "".join(f"{line}\n" for line in lines))
    shown = run(
        ["nsenter", f"--net={call.netns}", "ip", "-json", "link", "show", "dev", call.ifname],
    )
    mac = str(json.loads(shown)[0]["address"])
    _announce(call, mac)
    return _read(f"/sys/class/net/{call.veth}/address"), mac


def _announce(call: Call, mac: str) -> None:
    """Announces the pod's address by ARP once the bridge forwards what the pod sends.

    The announcement at `up` is mostly lost, because the node's end becomes a forwarding port a
    little later; then nodes that have a neighbour entry for the address, of a pod that had it a
    moment ago, would send to that pod's MAC for seconds. With arp_notify, setting a link's own
    address announces it anew.
    """
    state = f"/sys/class/net/{call.veth}/brport/state"
    for _ in range(_FORWARDING_TRIES):
        if _read(state) == _FORWARDING:
            break
        time.sleep(_FORWARDING_PAUSE)
    # The pod's end must be up as well: until the kernel has noticed its carrier, it drops what it
    # is to send.
    script = (
        'for n in $(seq 100); do ip -o link show dev "$1" | grep -q "state UP" && break; '
        'sleep 0.01; done; exec ip link set dev "$1" address "$2"'
    )
    run(["nsenter", f"--net={call.netns}", "sh", "-ec", script, "announce", call.ifname, mac])


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _in_pod(call: Call, lines: str) -> None:
    """Runs `ip -batch` in the pod, which also announces its address by ARP and re-checks its
    neighbours soon: an address may have belonged to another pod a moment ago."""
    neighbours = f"/proc/sys/net/ipv4/neigh/{call.ifname}"
    script = (
        f"echo 1 >/proc/sys/net/ipv4/conf/{call.ifname}/arp_notify; echo 5 >{neighbours}/base_reachable_time; "
        f"echo 2 >{neighbours}/delay_first_probe_time; echo 1 >{neighbours}/ucast_solicit; exec ip -batch -"
    )
    run(["nsenter", f"--net={call.netns}", "sh", "-ec", script], lines)


def delete(call: Call) -> dict[str, Any]:
    """Deletes the interface, then releases the address. Idempotent."""
    if call.netns and os.path.exists(call.netns):
        run(
            ["nsenter", f"--net={call.netns}", "ip", "link", "delete", "dev", call.ifname],
            check=False,
        )
    _disconnect(call)
    try:
        _ipam(call, "DEL")
    except PeerError as error:
        raise PluginError(f"unable to release IP address: {error}") from None
    return {}


def check(call: Call) -> dict[str, Any]:
    """Checks the pod's end for prevResult's address, and that the node's end is on the bridge.
    Raises PluginError."""
    execution.check_pod(call, with_default="routes" not in call.ipam)
    if not os.path.exists(f"/sys/class/net/{call.bridge}/brif/{call.veth}"):
        raise PluginError(f"{call.veth} is no port of {call.bridge}")
    return _ipam(call, "CHECK")


def status(call: Call) -> dict[str, Any]:
    """Succeeds if the peer answers and the bridge has its address. Raises PluginError with code
    50."""
    try:
        call.peer.status()
        _bridge_address(call)
    except (PeerError, PluginError) as error:
        raise PluginError(str(error), UNAVAILABLE) from None
    return {}


def ipam_status(call: Call) -> dict[str, Any]:
    """Succeeds if the peer answers. Raises PluginError with code 50."""
    try:
        call.peer.status()
    except PeerError as error:
        raise PluginError(str(error), UNAVAILABLE) from None
    return {}


def collect_garbage(call: Call) -> dict[str, Any]:
    """Releases addresses of containers that are gone, and deletes the node's ends of their
    veths."""
    valid = call.valid_attachments
    for container in call.peer.containers():
        if container not in valid:
            delete_link(_veth(container))
            call.peer.release(container)
    return {}


def _disconnect(call: Call) -> None:
    delete_link(call.veth)


_PROGRAMS = {
    "weave-net": {
        "ADD": add,
        "DEL": delete,
        "CHECK": check,
        "STATUS": status,
        "GC": collect_garbage,
    },
    "weave-ipam": {
        "ADD": ipam_add,
        "DEL": ipam_delete,
        "CHECK": ipam_check,
        "STATUS": ipam_status,
        "GC": collect_garbage,
    },
}


def main(argv: list[str]) -> int:
    """argv[0] tells which of the two plugins is called."""
    return contract.main(_PROGRAMS, argv, Call, (PeerError,))
