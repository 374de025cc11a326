"""What the rules and devices of dataplane.py and ipsec.py do to packets, on two nodes without agents.

pod-1 - [ weave 10.32.0.1 node-1 vxlan-6784 ] 172.18.0.1 - outside - 172.18.0.2 [ vxlan-6784 node-2 weave ] - pod-2
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import suppress
from ipaddress import IPv4Network
from typing import Any

import pytest

from kubewire.components.kernel import ipset, iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iproute import batch
from kubewire.components.networks.weave import dataplane, ipsec, kernel
from kubewire.components.networks.weave.space import Range
from tests.components.networks.flows import NOTHING, Flow, Hosts
from tests.scratch import isolated

pytestmark = pytest.mark.packet

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
ESP = 50
RANGE = IPv4Network("10.32.0.0/16")
OUTSIDE = "203.0.113.10"
NODES = {"node-1": "172.18.0.1", "node-2": "172.18.0.2"}
BRIDGES = {"node-1": "10.32.0.1", "node-2": "10.32.128.1"}
PODS = {"pod-1": "10.32.0.2", "pod-2": "10.32.128.2"}
FLOWS = [
    Flow("from a pod to a pod of another node", "pod-1", PODS["pod-2"], "pod-2", PODS["pod-1"]),
    Flow("from a pod to the outside", "pod-1", OUTSIDE, "outside", NODES["node-1"]),
    Flow("from a pod to the outside, by TCP", "pod-1", OUTSIDE, "outside", NODES["node-1"], protocol="TCP"),
    Flow("from a node to a pod of another node", "node-1", PODS["pod-2"], "pod-2", BRIDGES["node-1"]),
    Flow("from the outside to a pod of this node", "outside", PODS["pod-1"], "pod-1", OUTSIDE, sender=OUTSIDE),
    Flow(
        "from the outside by this node to a pod of another",
        "outside",
        PODS["pod-2"],
        "pod-2",
        BRIDGES["node-1"],
        sender=OUTSIDE,
    ),
]
BETWEEN_PODS = FLOWS[0]
CLOSED = Flow(BETWEEN_PODS.title, "pod-1", PODS["pod-2"], "pod-2", NOTHING)


def ranges(node: str) -> list[Range]:
    """Half of the range for each node."""
    first = int(RANGE.network_address) + (32768 if node == "node-2" else 0)
    return [Range(first, first + 32768)]


def build() -> Hosts:
    hosts = Hosts("outside", *NODES, *PODS)
    hosts.ip("outside", "link add segment type bridge", "address add 172.18.0.254/16 dev segment")
    hosts.ip("outside", "link set segment up", f"address add {OUTSIDE}/32 dev lo")
    for number, (node, address) in enumerate(NODES.items(), 1):
        hosts.wire(node, "eth0", "outside", f"v{number}")
        hosts.ip("outside", f"link set v{number} master segment")
        hosts.ip(node, f"address add {address}/16 dev eth0", "route add default via 172.18.0.254")
        hosts.sysctl(node, "net.ipv4.ip_forward=1")
        hosts.run(node, "iptables", "-P", "FORWARD", "DROP")
        with hosts.inside(node):
            asyncio.run(write(node))
        pod = f"pod-{number}"
        hosts.wire(pod, "eth0", node, f"vethwepl{number}")
        hosts.ip(node, f"link set vethwepl{number} master weave", f"address add {BRIDGES[node]}/16 dev weave")
        hosts.ip(pod, f"address add {PODS[pod]}/16 dev eth0", f"route add default via {BRIDGES[node]}")
    # The outside has a route to pods by the first node only.
    hosts.ip("outside", f"route add {RANGE} via {NODES['node-1']}")
    return hosts


async def write(node: str, incoming: list[ipsec.Association] | None = None) -> None:
    """Does what weave-net does when its connection to one peer is established."""
    others = [address for name, address in NODES.items() if name != node]
    await kernel.ensure_devices(dataplane.Device(dataplane.peer_name(node), "eth0", NODES[node]))
    await kernel.set_flood(await kernel.flood(), others)
    await ipset.restore(dataplane.own_set(ranges(node)))
    await iptables.ensure(dataplane.rules(RANGE, incoming))


def walk() -> dict[str, str]:
    return build().senders_of(FLOWS)


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    found: dict[str, str] = isolated(walk)
    return found


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.title)
def test_the_source_address_that_the_receiver_sees(seen: dict[str, str], flow: Flow) -> None:
    assert seen[flow.title] == flow.seen


def association(source: str, destination: str, spi: int) -> ipsec.Association:
    return ipsec.Association(NODES[source], NODES[destination], spi, "ab" * 36)


def with_rules_of_encryption(node: str) -> tuple[str, str]:
    """The source address that pod-2 sees before and after a node has the rules of an encrypted path, without an SA."""
    hosts = build()
    before = hosts.sender_of(BETWEEN_PODS)
    other = next(name for name in NODES if name != node)
    with hosts.inside(node):
        asyncio.run(write(node, [association(other, node, 0x1234)]))
    return before, hosts.sender_of(CLOSED)


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("node-1", id="the sender has no policy"),
        pytest.param("node-2", id="what arrives at the receiver was not encrypted"),
    ],
)
def test_nothing_passes_in_clear_where_encryption_is_wanted(node: str) -> None:
    assert isolated(with_rules_of_encryption, node) == (PODS["pod-1"], NOTHING)


def encrypted() -> Any:
    """The source address that pod-2 sees by an encrypted path, and the protocols on the wire.

    None if the kernel has no AES-GCM.
    """
    hosts = build()
    there, back = association("node-1", "node-2", 0x1234), association("node-2", "node-1", 0x4321)
    for node, incoming, outgoing in (("node-1", back, there), ("node-2", there, back)):
        with hosts.inside(node):
            text = ipsec.install(outgoing, outgoing=True) + ipsec.install(incoming, outgoing=False)
            try:
                asyncio.run(batch("ip", text, force=False))
            except CommandError as error:
                if "AEAD algorithm not found" in str(error):
                    return None
                raise
            asyncio.run(write(node, [incoming]))
    with hosts.inside("outside"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    with wire:
        wire.bind(("v1", ETH_P_ALL))  # the bridge takes packets before handlers of a single protocol see them
        found = hosts.sender_of(BETWEEN_PODS)
        return found, protocols(wire)


def protocols(wire: socket.socket) -> set[int]:
    """The protocols of the IPv4 packets that a socket has received."""
    wire.setblocking(False)
    seen = set()
    with suppress(BlockingIOError):
        while True:
            packet, (_, kind, *_) = wire.recvfrom(65536)
            if kind == ETH_P_IP:
                seen.add(packet[9])
    return seen


def test_an_encrypted_path_is_esp_on_the_wire() -> None:
    answer = isolated(encrypted)
    if answer is None:
        pytest.skip("this kernel has no AES-GCM for IPsec")
    assert answer == (PODS["pod-1"], {ESP})


def test_a_new_pod_announces_its_address_where_the_old_one_is_known() -> None:
    """The node has a neighbour entry of the pod that had the address before; it must not send there for seconds."""
    assert isolated(_reused) == [True, True]


def _reused() -> list[bool]:
    hosts = Hosts("node", "first", "second", "other")
    # With an address of its own, and always a port, the bridge keeps its neighbours when a port goes.
    bridge = "link add weave address 02:00:00:00:00:01 type bridge"
    hosts.ip("node", bridge, "link set weave up", "address add 10.32.0.1/16 dev weave")
    hosts.wire("node", "vethother", "other", "eth0")
    hosts.ip("node", "link set vethother master weave")
    # The kernel ignores another MAC in the first second; pods follow each other more slowly than this test.
    hosts.sysctl("node", "net.ipv4.neigh.weave.locktime=0")
    known = []
    for pod in ("first", "second"):
        mac = hosts.run("node", sys.executable, "-c", CONNECT, pod).strip()
        if pod == "first":
            hosts.run("node", "ping", "-c1", "-W15", "10.32.0.7")
        deadline = time.monotonic() + 15
        while (
            mac not in (entry := hosts.run("node", "ip", "neigh", "show", "10.32.0.7")) and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        known.append(mac in entry)
        if pod == "first":
            hosts.ip("node", f"link del veth{pod}")
    return known


#: The plugin's work for the pod that is named, where /sys is the node's; prints the pod's MAC.
CONNECT = """
import sys
from types import SimpleNamespace
from kubewire.components.networks.weave.plugin import cni
pod = sys.argv[1]
call = SimpleNamespace(config={}, netns=f"/run/netns/{pod}", ifname="eth0", veth=f"veth{pod}", bridge="weave")
print(cni._connect(call, "10.32.0.7/16", "10.32.0.1", None)[1])
"""
