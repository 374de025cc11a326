"""What pools, nodes and blocks do to packets: Felix on each of three nodes, in each mode of VXLAN and each IP family.

pods [worker-1] 172.18.0.1 -+
                            +- router - [worker-3] 172.19.0.3 pods
pods [worker-2] 172.18.0.2 -+    |
                              203.0.113.10, the outside
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from kubewire.components.networks.calico.dataplane import IPV4, IPV6, Family, Node, Settings
from kubewire.components.networks.calico.felix import Felix
from kubewire.components.networks.calico.plugin import block
from tests.components.networks.calico.store import pool
from tests.components.networks.flows import NOTHING, Flow, Hosts
from tests.scratch import isolated

pytestmark = pytest.mark.packet


@dataclass(frozen=True)
class Addresses:
    """One family's. rack: the start of a rack's range; pods: that of a block, whose first address is the node's tunnel
    address; plain: a pod of a pool without natOutgoing."""

    family: Family
    racks: tuple[str, str]
    rack_bits: int
    outside: str
    pool: str
    pods: str
    block_bits: int
    plain: str
    plain_pool: str

    def node(self, number: int) -> str:
        """Worker 3 is in the second rack, behind the router."""
        return f"{self.racks[number == 3]}{number}"

    def gateway(self, number: int) -> str:
        return f"{self.racks[number == 3]}254"

    def pod(self, node: int, number: int) -> str:
        address = self.pods.format(node, number)
        return address if number or self.family is IPV4 else address[:-1]

    def blocks(self) -> list[dict[str, Any]]:
        """A block for each worker; a pod of worker 3 has borrowed an address of worker 2's."""
        made = [block.new(f"{self.pod(node, 0)}/{self.block_bits}", f"worker-{node}") for node in (1, 2, 3)]
        assert block.take_this(made[1], self.pod(2, 9), "borrowed", {"node": "worker-3"})
        return [*made, block.new(f"{self.plain[:-1]}0/{self.block_bits}", "worker-1")]

    def nodes(self) -> dict[str, Node]:
        return {
            f"worker-{number}": Node(f"worker-{number}", f"{self.node(number)}/{self.rack_bits}", self.pod(number, 0))
            for number in (1, 2, 3)
        }


ADDRESSES = {
    "IPv4": Addresses(
        IPV4,
        ("172.18.0.", "172.19.0."),
        16,
        "203.0.113.10",
        "10.244.0.0/16",
        "10.244.{}.{}",
        26,
        "10.7.0.1",
        "10.7.0.0/24",
    ),
    "IPv6": Addresses(
        IPV6,
        ("fd00:18::", "fd00:19::"),
        64,
        "2001:db8::10",
        "fd00:10:244::/56",
        "fd00:10:244:{}::{}",
        122,
        "fd00:10:7::1",
        "fd00:10:7::/64",
    ),
}
#: Pod -> its worker, and the block and the number of its address.
PODS = {"pod-1": (1, 1, 1), "pod-2": (2, 2, 1), "pod-3": (3, 2, 9)}


def flows(a: Addresses) -> list[Flow]:
    pod = {name: a.pod(of, number) for name, (_, of, number) in PODS.items()}
    return [
        Flow("to a pod on a node of the same segment", "pod-1", pod["pod-2"], "pod-2", pod["pod-1"]),
        Flow("to an address that a node behind the router has borrowed", "pod-1", pod["pod-3"], "pod-3", pod["pod-1"]),
        Flow("to a pod of another pool", "pod-1", a.plain, "plain", pod["pod-1"]),
        Flow("to the outside", "pod-1", a.outside, "router", a.node(1)),
        Flow("to the outside, by TCP", "pod-1", a.outside, "router", a.node(1), protocol="TCP"),
        Flow("to another node", "pod-1", a.node(2), "worker-2", a.node(1)),
        Flow("to the outside without natOutgoing", "plain", a.outside, "router", a.plain),
        Flow("from a node", "worker-1", pod["pod-3"], "pod-3", a.pod(1, 0)),
        Flow("from a node's own address", "worker-1", pod["pod-3"], "pod-3", a.pod(1, 0), sender=a.node(1)),
        Flow("to an address of this node's block that no pod has", "pod-1", a.pod(1, 20), "router", NOTHING),
    ]


def build(a: Addresses) -> Hosts:
    workers = {number: f"worker-{number}" for number in (1, 2, 3)}
    hosts = Hosts("router", *workers.values(), *PODS, "plain")
    bits = a.family.bits
    hosts.ip("router", "link add rack-1 type bridge", "link add rack-2 type bridge", f"address add {a.outside} dev lo")
    # Without the blackhole route, packets to the address that no pod has would arrive here.
    hosts.ip("router", f"address add {a.pod(1, 20)}/{bits} dev lo")
    for rack, number in (("rack-1", 1), ("rack-2", 3)):
        hosts.ip("router", f"address add {a.gateway(number)}/{a.rack_bits} dev {rack}", f"link set {rack} up")
    for number, name in workers.items():
        hosts.wire(name, "eth0", "router", f"v{number}")
        hosts.ip("router", f"link set v{number} master rack-{1 + (number == 3)}")
        own, gateway = f"{a.node(number)}/{a.rack_bits}", a.gateway(number)
        hosts.ip(name, f"address add {own} dev eth0", f"route add default via {gateway}")
    for name, (worker, of, number) in PODS.items():
        plug(hosts, name, workers[worker], a.pod(of, number))
    plug(hosts, "plain", workers[1], a.plain)
    for host in ("router", *workers.values()):
        hosts.sysctl(host, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for name in workers.values():  # as on a machine with Docker: Felix accepts what pods send and receive
        hosts.run(name, "iptables", "-P", "FORWARD", "DROP")
        hosts.run(name, "ip6tables", "-P", "FORWARD", "DROP")
    hosts.ip("router", f"route add {a.plain_pool} via {a.node(1)}")
    return hosts


def plug(hosts: Hosts, pod: str, worker: str, address: str) -> None:
    """As the plugin does: a veth, a route to it, and a gateway that each pod has."""
    veth = f"cali-{pod}"
    hosts.wire(pod, "eth0", worker, veth)
    bits = block.bits(address)
    hosts.ip(worker, f"route add {address}/{bits} dev {veth}")
    if block.is_ipv6(address):
        gateway = "fe80::1"
        hosts.ip(worker, f"address add {gateway}/64 dev {veth}")
    else:
        gateway = "169.254.1.1"
        hosts.sysctl(worker, f"net.ipv4.conf.{veth}.proxy_arp=1", f"net.ipv4.neigh.{veth}.proxy_delay=0")
    hosts.ip(
        pod,
        f"address add {address}/{bits} dev eth0",
        f"route add {gateway} dev eth0",
        f"route add default via {gateway} dev eth0",
    )


def write(hosts: Hosts, a: Addresses, mode: str) -> None:
    """Felix on each node, once."""
    pools = [
        pool(a.pool, vxlanMode=mode, natOutgoing=True),
        pool(a.plain_pool, "plain", vxlanMode=mode),
    ]
    nodes = a.nodes()
    for name, own in nodes.items():
        with hosts.inside(name):
            asyncio.run(Felix(own, "eth0", 1500).reconcile(nodes, pools, a.blocks(), Settings()))


def tunnelled(hosts: Hosts, a: Addresses, flow: Flow) -> bool:
    """Whether the VXLAN device of the first node has sent packets for a flow."""

    def sent() -> int:
        device = a.family.vxlan.device
        shown = json.loads(hosts.run("worker-1", "ip", "-json", "-statistics", "link", "show", "dev", device))
        return int(shown[0]["stats64"]["tx"]["packets"])

    before = sent()
    hosts.sender_of(flow)
    return sent() > before


def walk(name: str, mode: str) -> dict[str, Any]:
    a = ADDRESSES[name]
    hosts = build(a)
    write(hosts, a, mode)
    rows = flows(a)
    seen: dict[str, Any] = dict(hosts.senders_of(rows))
    seen["tunnelled"] = [flow.title for flow in rows[:2] if tunnelled(hosts, a, flow)]
    return seen


@pytest.fixture(
    scope="module",
    params=[(family, mode) for family in ADDRESSES for mode in ("Always", "CrossSubnet")],
    ids=" ".join,
)
def walked(request: pytest.FixtureRequest) -> tuple[str, str, dict[str, Any]]:
    family, mode = request.param
    return family, mode, isolated(walk, family, mode, timeout=120)


@pytest.mark.parametrize("number", range(10), ids=[flow.title for flow in flows(ADDRESSES["IPv4"])])
def test_the_source_address_that_the_receiver_sees(walked: tuple[str, str, dict[str, Any]], number: int) -> None:
    family, _, seen = walked
    flow = flows(ADDRESSES[family])[number]
    assert seen[flow.title] == flow.seen


def test_what_goes_by_the_tunnel(walked: tuple[str, str, dict[str, Any]]) -> None:
    family, mode, seen = walked
    near, far = (flow.title for flow in flows(ADDRESSES[family])[:2])
    assert seen["tunnelled"] == ([near, far] if mode == "Always" else [far])
