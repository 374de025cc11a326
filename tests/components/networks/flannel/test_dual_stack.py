"""Packets through flannel in IPv6: dual-stack and alone; real agents, real CNI plugins, real kernel."""

import asyncio
import json
import struct
from ipaddress import IPv6Address

import pytest

from tests.components.networks.flannel.fabric import (
    API_PORT,
    GATEWAY,
    GATEWAY_IPV6,
    MTU,
    Capture,
    Node,
    build_segment,
    until,
)
from tests.components.networks.flannel.fake_api import FakeApi
from tests.components.networks.flannel.nodes import node
from tests.scratch import isolated

pytestmark = pytest.mark.packet

ICMP_AND_IPV6_HEADERS = 48
DUAL = {"Network": "10.244.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:10:244::/56"}
IPV6_ONLY = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd00:10:244::/56"}


class Cluster:
    """Nodes a and b (10.244.N.0/24, fd00:10:244:N::/64), an API, and one pod on each."""

    def __init__(self, networks, backend):
        self.net_conf = json.dumps(networks | {"Backend": {"Type": backend}})
        self.ipv4 = networks.get("EnableIPv4", True)
        self.api = FakeApi()
        self.a, self.b = Node("a", "172.18.0.2", "fd00:18::2"), Node("b", "172.18.0.3", "fd00:18::3")

    async def __aenter__(self):
        await build_segment(ipv6=True)
        self._runner = await self.api.serve(GATEWAY, API_PORT)
        for number, one in enumerate((self.a, self.b), 1):
            await one.start()
            ipv6 = f"fd00:10:244:{number}::/64"
            if self.ipv4:
                registered = node(one.name, f"10.244.{number}.0/24", one.address, managed=False)
                registered["spec"]["podCIDRs"].append(ipv6)
            else:
                registered = node(one.name, ipv6, one.ipv6, managed=False)
            self.api.put(registered)
            await one.start_flanneld(self.net_conf)
        try:
            for one in (self.a, self.b):
                await until(lambda one=one: self.is_up(one.name), f"flannel on {one.name}")
            await until(lambda: self.has_route(self.a, "fd00:10:244:2::/64"), "a's route to b's pods")
            await until(lambda: self.has_route(self.b, "fd00:10:244:1::/64"), "b's route to a's pods")
            self.pod_a = await self.a.add_pod_of_any_family("pod-a")
            self.pod_b = await self.b.add_pod_of_any_family("pod-b")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def logs(self):
        return "\n".join(f"--- {one.name}\n{one.log.read_text()}" for one in (self.a, self.b) if one.log.exists())

    def is_up(self, name):
        conditions = self.api.nodes[name]["status"].get("conditions", [])
        return any(one["type"] == "NetworkUnavailable" and one["status"] == "False" for one in conditions)

    async def has_route(self, on, destination):
        return destination in await on.sh("ip -6 route")


def ipv6_headers(packet):
    """(source, destination, next header, payload, length of the whole) of an Ethernet frame with IPv6."""
    assert packet[12:14] == b"\x86\xdd"
    ip = packet[14:]
    (length,) = struct.unpack_from(">H", ip, 4)
    return str(IPv6Address(ip[8:24])), str(IPv6Address(ip[24:40])), ip[6], ip[40 : 40 + length], length + 40


async def overlay():
    async with Cluster(DUAL, "vxlan") as cluster:
        a, b = cluster.a, cluster.b
        assert [address.count(":") > 0 for address in cluster.pod_a] == [False, True]
        largest = MTU - 70 - ICMP_AND_IPV6_HEADERS
        async with Capture("p-a", "udp port 8472") as capture:
            assert await a.ping("pod-a", cluster.pod_b[0]) == 1
            assert await a.ping("pod-a", cluster.pod_b[1], size=largest) == 1
            await until(lambda: len(capture.packets()) >= 4, "four encapsulated packets")
        outside = [packet for packet in capture.packets() if packet[12:14] == b"\x86\xdd"]
        source, destination, protocol, udp, total = ipv6_headers(outside[0])
        assert (source, destination, protocol, total) == (a.ipv6, b.ipv6, 17, MTU)
        assert struct.unpack_from(">H", udp, 2) == (8472,)
        inner = udp[16:]
        announced = cluster.api.annotations("b")
        assert inner[:6].hex(":") == json.loads(announced["flannel.alpha.coreos.com/backend-v6-data"])["VtepMAC"]
        assert announced["flannel.alpha.coreos.com/public-ipv6"] == b.ipv6
        # No NAT66: b sees a's pod itself.
        assert ipv6_headers(inner)[:2] == (cluster.pod_a[1], cluster.pod_b[1])
        assert len(outside) == len(capture.packets()) / 2, "IPv4 pods' packets go in IPv4"
        return await a.sh("cat /run/flannel/subnet.env")


def test_a_dual_stack_overlay_has_one_vxlan_device_of_each_family():
    assert isolated(lambda: asyncio.run(overlay())) == (
        "FLANNEL_NETWORK=10.244.0.0/16\n"
        "FLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\n"
        "FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n"
        "FLANNEL_MTU=1450\n"
        "FLANNEL_IPMASQ=true\n"
    )


async def too_big():
    """pods' MTU is 50 less than the node's, what flannel-v6.1 carries 70 less: the node says so (RFC 8201)."""
    async with Cluster(DUAL, "vxlan") as cluster:
        a = cluster.a
        async with Capture("fabric", "udp port 8472") as wire:
            assert await a.ping("pod-a", cluster.pod_b[1], size=MTU - 50 - ICMP_AND_IPV6_HEADERS) == 0
        assert wire.packets() == []
        learnt = await a.sh(f"ip netns exec pod-a ip -6 route get {cluster.pod_b[1]}")
        return f"mtu {MTU - 70}" in learnt


def test_what_fits_a_pods_mtu_and_not_the_ipv6_overlay_is_answered_with_packet_too_big():
    assert isolated(lambda: asyncio.run(too_big()))


async def alone(backend):
    async with Cluster(IPV6_ONLY, backend) as cluster:
        a = cluster.a
        assert cluster.pod_a == [cluster.pod_a[0]] and cluster.pod_a[0].startswith("fd00:10:244:1::")
        async with Capture("p-a", "icmp6[0] == 128 or icmp6[0] == 129 or udp port 8472") as capture:
            assert await a.ping("pod-a", cluster.pod_b[0]) == 1
            await until(lambda: len(capture.packets()) >= 2, "request and reply")
        seen = {ipv6_headers(packet)[:3] for packet in capture.packets()}
        assert "FLANNEL" not in await a.sh("iptables-save"), "nothing is done in the other family"
        return seen, cluster.pod_a[0], cluster.pod_b[0], await a.sh("ip -6 route; ip -o link")


def test_ipv6_alone_in_vxlan():
    seen, _, _, state = isolated(lambda: asyncio.run(alone("vxlan")))
    assert seen == {("fd00:18::2", "fd00:18::3", 17), ("fd00:18::3", "fd00:18::2", 17)}
    assert "flannel-v6.1" in state and "flannel.1" not in state


def test_ipv6_alone_in_host_gw_routes_packets_as_they_are():
    seen, pod_a, pod_b, state = isolated(lambda: asyncio.run(alone("host-gw")))
    assert seen == {(pod_a, pod_b, 58), (pod_b, pod_a, 58)}
    assert "fd00:10:244:2::/64 via fd00:18::3 dev eth0" in state and "flannel" not in state


async def entries(on):
    """Routes, permanent neighbours and remote FDB entries of flannel-v6.1."""
    routes = await on.sh("ip -6 route show dev flannel-v6.1 2>&1 | grep via || true")
    neighbours = await on.sh("ip -6 neigh show dev flannel-v6.1 nud permanent 2>&1 || true")
    fdb = await on.sh("bridge fdb show dev flannel-v6.1 2>&1 | grep dst || true")
    return [text.split("\n")[:-1] for text in (routes, neighbours, fdb)]


async def drift():
    async with Cluster(DUAL, "vxlan") as cluster:
        a = cluster.a
        whole = await entries(a)
        mac = json.loads(cluster.api.annotations("b")["flannel.alpha.coreos.com/backend-v6-data"])["VtepMAC"]
        assert whole[0][0].startswith("fd00:10:244:2::/64 via fd00:10:244:2:: ") and "onlink" in whole[0][0]
        assert whole[1][0].startswith(f"fd00:10:244:2:: lladdr {mac} PERMANENT")
        assert whole[2] == [f"{mac} dst fd00:18::3 self permanent"]

        index = await a.sh("cat /sys/class/net/flannel-v6.1/ifindex")
        announced, patches = dict(cluster.api.annotations("a")), len(cluster.api.patches)
        await a.kill_flanneld()
        await a.start_flanneld(cluster.net_conf)
        await until(lambda: len(cluster.api.patches) > patches, "flanneld running again")
        assert cluster.api.annotations("a") == announced
        assert await a.sh("cat /sys/class/net/flannel-v6.1/ifindex") == index, "traffic is not interrupted"
        await a.sh("ip -6 route del fd00:10:244:2::/64 && ip -6 neigh del fd00:10:244:2:: dev flannel-v6.1")
        await until(lambda: same(a, whole), "repaired entries")
        await a.sh("ip link del flannel-v6.1")
        await until(lambda: same(a, whole), "the device made again")
        await a.sh("ip6tables -t nat -F FLANNEL-POSTRTG && ip6tables -F FORWARD")
        await until(lambda: rules_are_back(a), "ip6tables rules repaired")
        assert await a.ping("pod-a", cluster.pod_b[1]) == 1

        cluster.api.remove("b")
        await until(lambda: same(a, [[], [], []]), "the entries of a node that is gone")


async def same(on, wanted):
    return await entries(on) == wanted


async def rules_are_back(on):
    saved = await on.sh("ip6tables-save")
    return saved.count("-j FLANNEL-FWD") == 1 and saved.count("-A FLANNEL-POSTRTG") == 6


def test_ipv6_entries_are_repaired_and_follow_the_nodes():
    isolated(lambda: asyncio.run(drift()))


async def masquerading():
    """Addresses that a host outside the cluster, and a pod, see: (from a pod, from the other node)."""
    async with Cluster(DUAL, "vxlan") as cluster:
        a = cluster.a
        async with Capture("fabric", f"icmp6[0] == 128 and dst host {GATEWAY_IPV6}") as capture:
            assert await a.ping("pod-a", GATEWAY_IPV6) == 1
            await until(capture.packets, "the packet outside")
        async with Capture("p-b", "udp port 8472") as overlay:
            await a.sh(f"ping -c 1 -W 2 {cluster.pod_b[1]}")
            await until(lambda: len(overlay.packets()) >= 2, "the node's packet to a pod")
        from_node = ipv6_headers(ipv6_headers(overlay.packets()[0])[3][16:])
        return ipv6_headers(capture.packets()[0])[0], from_node[0]


def test_pods_leave_the_cluster_with_the_nodes_address_in_ipv6_too():
    assert isolated(lambda: asyncio.run(masquerading())) == ("fd00:18::2", "fd00:10:244:1::")


async def ipv4_flannel_on_a_dual_stack_node():
    async with Cluster(DUAL, "vxlan") as cluster:
        await cluster.a.stop_flanneld()
        await cluster.a.start_flanneld('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}')
        return await cluster.a.agent.wait(), cluster.a.log.read_text()


def test_a_pod_cidr_of_a_family_that_net_conf_does_not_have_ends_the_start():
    code, log = isolated(lambda: asyncio.run(ipv4_flannel_on_a_dual_stack_node()))
    assert code == 1
    assert (
        'failed to acquire lease: subnet "fd00:10:244:1::/64" specified in the PodCIDR, but doesn\'t exist in the '
        'flannel net config of the "a" node'
    ) in log
