"""The CNI plugin `aws-cni`: asks ipamd for an address and connects the pod
(cmd/routed-eni-cni-plugin).

It runs for every pod, so it imports only those parts of the standard library that load in
milliseconds.
"""

from __future__ import annotations

import json
import socket
from hashlib import sha1

from kubewire.components.networks.cni_plugin import contract, execution
from kubewire.components.networks.cni_plugin.contract import (
    TRY_AGAIN_LATER,
    UNAVAILABLE,
    Call,
    PluginError,
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

IPAMD = ("127.0.0.1", 50051)
GATEWAY = "169.254.1.1"
_SECONDS = 10.0


def host_veth(call: Call) -> str:
    """vethPrefix and a hash of the pod's name (GeneratePodHostVethName)."""
    prefix = call.config.get("vethPrefix") or "eni"
    return str(prefix) + sha1(call.workload.encode()).hexdigest()[:11]


def ask(method: str, **parameters: Any) -> dict[str, Any]:
    """Returns ipamd's answer. Raises PluginError if ipamd does not answer."""
    try:
        with socket.create_connection(IPAMD, _SECONDS) as connection:
            connection.sendall(json.dumps({"method": method, **parameters}).encode() + b"\n")
            answer = b""
            while data := connection.recv(65536):
                answer += data
        reply: dict[str, Any] = json.loads(answer)
        return reply
    except (OSError, ValueError) as error:
        raise PluginError(
            f"add cmd: Error received from {method} gRPC call: {error}",
            TRY_AGAIN_LATER,
        ) from None


def add(call: Call) -> dict[str, Any]:
    """Assigns an address, creates the veth, routes and rules; undoes all of it if a step fails."""
    execution.refuse_existing(call)
    answer = ask("AddNetwork", sandbox=call.attachment, pod=call.pod, namespace=call.namespace)
    if not answer.get("success"):
        raise PluginError("add cmd: failed to assign an IP address to container")
    try:
        mac = connect(call, answer["address"], int(answer["table"]))
    except (PluginError, OSError):
        _disconnect(call, answer["address"])
        ask("DelNetwork", sandbox=call.attachment)
        raise
    veth = host_veth(call)
    host = {"name": veth, "mac": mac_of(veth)}
    pod = {"name": call.ifname, "mac": mac, "sandbox": call.netns}
    return call.result([host, pod], [f"{answer['address']}/32"])


def connect(call: Call, address: str, table: int) -> str:
    """Creates the veth, routes and rules. Returns the MAC of the pod's end. Raises PluginError."""
    veth = host_veth(call)
    mtu = int(call.config.get("mtu") or 1500)
    _disconnect(call, address)  # a crashed node may have left a veth or rules
    on_node(
        [
            f"link add {veth} mtu {mtu} type veth peer name {call.ifname} mtu {mtu} netns {call.netns}",
            f"link set dev {veth} up",
        ],
    )
    in_namespace(
        call.netns,
        [
            f"address add {address}/32 dev {call.ifname}",
            f"link set dev {call.ifname} up",
            f"route append {GATEWAY} dev {call.ifname} scope link",
            f"route append default via {GATEWAY} dev {call.ifname}",
            # No interface has the gateway's address, so no ARP request is answered: the entry is
            # permanent.
            f"neigh replace {GATEWAY} lladdr {mac_of(veth)} dev {call.ifname} nud permanent",
        ],
    )
    lines = [
        f"route replace {address}/32 dev {veth} scope link",
        f"rule add to {address} lookup main priority 512",
    ]
    if table != 254:
        lines.append(f"rule add from {address} lookup {table} priority 1536")
    on_node(lines)
    return mac_of(call.ifname, call.netns)


def _disconnect(call: Call, address: str) -> None:
    delete_link(host_veth(call))
    if address:
        run(["ip", "rule", "delete", "to", address, "priority", "512"], check=False)
        run(["ip", "rule", "delete", "from", address, "priority", "1536"], check=False)
        run(["ip", "route", "delete", f"{address}/32"], check=False)


def delete(call: Call) -> dict[str, Any]:
    """Idempotent: succeeds for a sandbox that ipamd does not know."""
    answer = ask("DelNetwork", sandbox=call.attachment)
    _disconnect(call, answer.get("address") or next(iter(call.addresses), ""))
    return {}


def check(call: Call) -> dict[str, Any]:
    """Checks the pod and the node's route to it. Raises PluginError."""
    execution.check_pod(call)
    execution.check_node(call, host_veth(call))
    return {}


def status(call: Call) -> dict[str, Any]:
    """Succeeds if ipamd answers. Raises PluginError with code 50."""
    try:
        ask("Status")
    except PluginError as error:
        raise PluginError(error.msg, UNAVAILABLE) from None
    return {}


def collect_garbage(call: Call) -> dict[str, Any]:
    """Releases addresses whose sandboxes are gone."""
    for gone in ask("Collect", valid=sorted(call.valid_attachments))["released"]:
        run(["ip", "rule", "delete", "to", gone, "priority", "512"], check=False)
        run(["ip", "rule", "delete", "from", gone, "priority", "1536"], check=False)
    return {}


_PROGRAMS = {
    "aws-cni": {"ADD": add, "DEL": delete, "CHECK": check, "STATUS": status, "GC": collect_garbage}
}


def main(argv: list[str]) -> int:
    return contract.main(_PROGRAMS, argv)
