"""The CNI plugins `azure-vnet` (mode transparent) and `azure-vnet-ipam`
(azure-container-networking, cni).

They run for every pod, so they import only those parts of the standard library that load in
milliseconds.
"""

from __future__ import annotations

import socket
from hashlib import sha1

from kubewire.components.networks.azure_cni.plugin.state import NoAddress, Store
from kubewire.components.networks.cni_plugin import contract, execution
from kubewire.components.networks.cni_plugin.contract import (
    INVALID_CONFIG,
    UNAVAILABLE,
    Call,
    PluginError,
    ip_entry,
)
from kubewire.components.networks.cni_plugin.execution import (
    delete_link,
    in_namespace,
    mac_of,
    on_node,
    run,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Azure's host agent, which knows the addresses of the node's network interface.
HOST_AGENT = ("168.63.129.16", 80)
_INTERFACES = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1"
GATEWAY = "169.254.1.1"
_SECONDS = 10.0


def host_veth(call: Call) -> str:
    return "azv" + sha1(call.workload.encode()).hexdigest()[:11]


def pool(call: Call) -> list[str]:
    """The node's addresses for pods: in overlay mode those of its podCIDR, else those that the host
    agent reports. Raises PluginError."""
    if subnet := (call.config.get("ipam") or {}).get("subnet"):
        return _addresses_of(subnet)
    text = _host_agent()
    addresses = []
    for part in text.split("<IPAddress ")[1:]:
        address = part.partition('Address="')[2].partition('"')[0]
        if 'IsPrimary="true"' not in part.partition("/>")[0]:
            addresses.append(address)
    return addresses


def _addresses_of(subnet: str) -> list[str]:
    """The subnet's addresses without the network address, the gateway and the broadcast address."""
    address, _, length = subnet.partition("/")
    try:
        first = int.from_bytes(socket.inet_aton(address), "big")
        count = 1 << (32 - int(length))
    except (OSError, ValueError):
        count = 0
    if not 4 <= count <= 65536 or first + count > 1 << 32:
        text = f"invalid network config: ipam.subnet: {subnet} is no IPv4 subnet with a length from 16 to 30"
        raise PluginError(text, INVALID_CONFIG)
    return [socket.inet_ntoa((first + number).to_bytes(4, "big")) for number in range(2, count - 1)]


def _host_agent() -> str:
    try:
        with socket.create_connection(HOST_AGENT, _SECONDS) as connection:
            request = f"GET {_INTERFACES} HTTP/1.0\r\nHost: {HOST_AGENT[0]}\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
    except OSError as error:
        raise PluginError(f"Failed to query the host agent: {error}") from None
    return answer.decode(errors="replace").partition("\r\n\r\n")[2]


def request(call: Call) -> str:
    """Assigns an address, as a /32. Raises PluginError."""
    addresses = pool(call)
    with Store() as store:
        store.refresh(addresses)
        try:
            return f"{store.request(call.attachment)}/32"
        except NoAddress as error:
            raise PluginError(f"Failed to allocate address: {error}") from None


def ipam_add(call: Call) -> dict[str, Any]:
    return {"cniVersion": call.version, "ips": [ip_entry(call.version, request(call))], "dns": {}}


def ipam_delete(call: Call) -> dict[str, Any]:
    release(call)
    return {}


def release(call: Call) -> str:
    with Store() as store:
        return store.release(call.attachment)


def add(call: Call) -> dict[str, Any]:
    """Assigns an address, creates the veth and routes; undoes both if a step fails."""
    execution.refuse_existing(call)
    prefix = request(call)
    address = prefix.partition("/")[0]
    try:
        mac = connect(call, address)
    except (PluginError, OSError):
        _disconnect(call, address)
        release(call)
        raise
    veth = host_veth(call)
    host = {"name": veth, "mac": mac_of(veth)}
    pod = {"name": call.ifname, "mac": mac, "sandbox": call.netns}
    return call.result([host, pod], [prefix])


def connect(call: Call, address: str) -> str:
    """Creates the veth and its routes. Returns the MAC of the pod's end. Raises PluginError."""
    veth = host_veth(call)
    mtu = int(call.config.get("mtu") or 1500)
    _disconnect(call, address)  # a crashed node may have left a veth or a route
    on_node(
        [
            f"link add {veth} mtu {mtu} type veth peer name {call.ifname} mtu {mtu} netns {call.netns}",
            f"link set dev {veth} up",
        ],
    )
    with open(f"/proc/sys/net/ipv4/conf/{veth}/proxy_arp", "w", encoding="ascii") as file:
        file.write("1")
    in_namespace(
        call.netns,
        [
            f"address add {address}/32 dev {call.ifname}",
            f"link set dev {call.ifname} up",
            f"route append {GATEWAY} dev {call.ifname} scope link",
            f"route append default via {GATEWAY} dev {call.ifname}",
            f"neigh replace {GATEWAY} lladdr {mac_of(veth)} dev {call.ifname} nud permanent",
        ],
    )
    on_node([f"route replace {address}/32 dev {veth} scope link"])
    return mac_of(call.ifname, call.netns)


def _disconnect(call: Call, address: str) -> None:
    delete_link(host_veth(call))
    if address:
        run(["ip", "route", "delete", f"{address}/32"], check=False)


def delete(call: Call) -> dict[str, Any]:
    """Releases the address and deletes the veth. Idempotent."""
    _disconnect(call, release(call))
    return {}


def check(call: Call) -> dict[str, Any]:
    """Checks the pod, the node's route to it and the assignment of its address. Raises
    PluginError."""
    execution.check_pod(call)
    execution.check_node(call, host_veth(call))
    return ipam_check(call)


def ipam_check(call: Call) -> dict[str, Any]:
    """Checks that the addresses of prevResult are assigned to this attachment. Raises
    PluginError."""
    with Store() as store:
        for address in call.addresses:
            if store.addresses.get(address) != call.attachment:
                raise PluginError(f"{address} is not assigned to {call.attachment}")
    return {}


def status(call: Call) -> dict[str, Any]:
    """Succeeds if the node's addresses are known. Raises PluginError with code 50."""
    try:
        pool(call)
    except PluginError as error:
        raise PluginError(error.msg, UNAVAILABLE) from None
    return {}


def collect_garbage(call: Call) -> dict[str, Any]:
    with Store() as store:
        for address in store.keep_only(call.valid_attachments):
            run(["ip", "route", "delete", f"{address}/32"], check=False)
    return {}


_PROGRAMS = {
    "azure-vnet": {
        "ADD": add,
        "DEL": delete,
        "CHECK": check,
        "STATUS": status,
        "GC": collect_garbage,
    },
    "azure-vnet-ipam": {
        "ADD": ipam_add,
        "DEL": ipam_delete,
        "CHECK": ipam_check,
        "STATUS": status,
        "GC": collect_garbage,
    },
}


def main(argv: list[str]) -> int:
    return contract.main(_PROGRAMS, argv)
