"""Which UDP flows are stale, and that the kernel lists and deletes exactly them."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import pytest

from kubewire.components.kube_proxy.conntrack import netlink
from kubewire.components.kube_proxy.conntrack.stale import Address, Flow, stale, wanted
from kubewire.components.kube_proxy.state.model import IPV4, IPV6, Endpoint, ServicePort, ServicePortName
from tests.scratch import isolated

DNS = ServicePortName("ns", "dns", "p", "UDP")
WEB = ServicePortName("ns", "web", "p")
UDP = ServicePort("10.96.0.53", 53, "udp", 30053, ("198.51.100.1",), ("203.0.113.9",))
HERE = Endpoint("10.244.1.1", 5353, "n1")
DRAINING = Endpoint("10.244.1.9", 5353, "n1", ready=False, serving=True, terminating=True)
GONE = Endpoint("10.244.1.8", 5353, "n1", ready=False, serving=False, terminating=True)
CLUSTER_IP, NODE_PORT = Address("10.96.0.53", 53), Address("172.18.0.3", 30053)


def flow(to: Address, by: Address, protocol: int = 17) -> Flow:
    return Flow(protocol, to, by)


@pytest.mark.parametrize(
    ("to", "by", "endpoints", "deleted"),
    [
        pytest.param(CLUSTER_IP, Address("10.244.1.1", 5353), [HERE], False, id="to an endpoint"),
        pytest.param(CLUSTER_IP, Address("10.244.2.2", 5353), [HERE], True, id="to one that went"),
        pytest.param(CLUSTER_IP, Address("10.244.1.1", 53), [HERE], True, id="to a port that is not its any more"),
        pytest.param(CLUSTER_IP, CLUSTER_IP, [HERE], True, id="untranslated, from before the first endpoint"),
        pytest.param(CLUSTER_IP, CLUSTER_IP, [], False, id="a Service without endpoints is left alone"),
        pytest.param(CLUSTER_IP, Address("10.244.1.9", 5353), [HERE, DRAINING], False, id="to one that drains"),
        pytest.param(CLUSTER_IP, Address("10.244.1.8", 5353), [HERE, GONE], True, id="to one that serves no more"),
        pytest.param(NODE_PORT, Address("10.244.2.2", 5353), [HERE], True, id="by a node port of any address"),
        pytest.param(Address("198.51.100.1", 53), Address("10.244.2.2", 5353), [HERE], True, id="by an external IP"),
        pytest.param(Address("203.0.113.9", 53), Address("10.244.2.2", 5353), [HERE], True, id="by a balancer's IP"),
        pytest.param(Address("10.96.0.53", 54), Address("10.244.2.2", 5353), [HERE], False, id="to another port"),
        pytest.param(Address("8.8.8.8", 53), Address("8.8.8.8", 53), [HERE], False, id="to no Service"),
    ],
)  # fmt: skip
def test_a_flow_is_stale_when_nobody_who_should_answers_it(to, by, endpoints, deleted):
    expected = wanted({DNS: UDP, WEB: ServicePort("10.96.0.1", 53, "tcp")}, {DNS: tuple(endpoints)})
    assert bool(stale([flow(to, by)], expected)) is deleted
    assert stale([flow(to, by, protocol=6)], expected) == []


def _kernel() -> dict[str, Any]:
    for line in (
        "ip addr add 10.96.0.53 dev lo",
        "ip addr add fd00::53 dev lo nodad",
        "nft add table inet t",
        "nft add chain inet t c { type nat hook output priority -100 ; }",
        "nft add rule inet t c ip daddr 10.96.0.53 udp dport 53 dnat ip to 127.0.0.2:5353",
        "nft add rule inet t c ip6 daddr fd00::53 udp dport 53 dnat ip6 to [::1]:5353",
    ):
        subprocess.run(line.split(), check=True)
    four, six = (socket.socket(kind, socket.SOCK_DGRAM) for kind in (socket.AF_INET, socket.AF_INET6))
    four.sendto(b"x", ("10.96.0.53", 53))
    four.sendto(b"x", ("127.0.0.1", 54))
    six.sendto(b"x", ("fd00::53", 53))
    with socket.create_server(("127.0.0.1", 9999)), socket.create_connection(("127.0.0.1", 9999)):
        seen = {family: netlink.udp_flows(family) for family in (IPV4, IPV6)}
    serving = {DNS: (Endpoint("127.0.0.3", 5353),)}
    gone = stale(seen[IPV4], wanted({DNS: ServicePort("10.96.0.53", 53, "udp")}, serving))
    gone6 = stale(seen[IPV6], wanted({DNS: ServicePort("fd00::53", 53, "udp")}, {DNS: (Endpoint("fd00::2", 1),)}))
    return {
        "seen": {family: [(one.original_destination, one.reply_source) for one in seen[family]] for family in seen},
        "deleted": (netlink.delete(IPV4, gone), netlink.delete(IPV6, gone6)),
        "deleted again": netlink.delete(IPV4, gone),
        "left": [one.original_destination for family in (IPV4, IPV6) for one in netlink.udp_flows(family)],
        "tool": subprocess.run(["conntrack", "-L"], capture_output=True, text=True).stdout,
    }


@pytest.mark.packet
def test_the_kernel_deletes_the_stale_entry_of_each_family_and_no_other():
    found = isolated(_kernel)
    v4 = sorted(found["seen"][IPV4])
    assert v4 == [
        (Address("10.96.0.53", 53), Address("127.0.0.2", 5353)),
        (Address("127.0.0.1", 54), Address("127.0.0.1", 54)),
    ]
    assert found["seen"][IPV6] == [(Address("fd00::53", 53), Address("::1", 5353))]
    assert found["deleted"] == (1, 1)
    assert found["deleted again"] == 0
    assert found["left"] == [Address("127.0.0.1", 54)]
    assert "dport=9999" in found["tool"], "TCP stays"


def _many(count: int) -> tuple[int, int, int]:
    subprocess.run("ip addr add 10.96.0.53 dev lo".split(), check=True)
    rules = (
        "add table ip t; add chain ip t c { type filter hook output priority 0 ; }; add rule ip t c ct state new accept"
    )
    subprocess.run(["nft", rules], check=True)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in range(20000, 20000 + count):
        sock.sendto(b"x", ("10.96.0.53", port))
    flows = netlink.udp_flows(IPV4)
    return len(flows), netlink.delete(IPV4, flows), len(netlink.udp_flows(IPV4))


@pytest.mark.packet
def test_a_table_larger_than_one_answer_is_read_and_emptied():
    assert isolated(_many, 5000) == (5000, 5000, 0)
