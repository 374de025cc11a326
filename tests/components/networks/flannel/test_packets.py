"""Packets through flannel: real agents, real CNI plugins, real kernel; the API is a fake."""

import asyncio
import json
import struct
from ipaddress import IPv4Address

import pytest

from tests.components.networks.flannel.fabric import API_PORT, GATEWAY, MTU, Capture, Node, build_segment, until
from tests.components.networks.flannel.fake_api import FakeApi
from tests.components.networks.flannel.nodes import node
from tests.existing import existing
from tests.scratch import isolated

pytestmark = pytest.mark.packet

VXLAN = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'
HOST_GW = '{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}'
ICMP_AND_IP_HEADERS = 28


class Cluster:
    """Nodes a and b (10.244.1.0/24 and 10.244.2.0/24), an API, and one pod on each."""

    def __init__(self, net_conf):
        self.net_conf = net_conf
        self.api = FakeApi()
        self.a, self.b = Node("a", "172.18.0.2"), Node("b", "172.18.0.3")

    async def __aenter__(self):
        await build_segment()
        self._runner = await self.api.serve(GATEWAY, API_PORT)
        for number, one in enumerate((self.a, self.b), 1):
            await one.start()
            self.api.put(node(one.name, f"10.244.{number}.0/24", one.address, managed=False))
            await one.start_flanneld(self.net_conf)
        try:
            for one in (self.a, self.b):
                await until(lambda one=one: self.is_up(one.name), f"flannel on {one.name}")
            await until(lambda: self.has_route(self.a, "10.244.2.0/24"), "a's route to b's pods")
            await until(lambda: self.has_route(self.b, "10.244.1.0/24"), "b's route to a's pods")
            self.pod_a, self.pod_b = await self.a.add_pod("pod-a"), await self.b.add_pod("pod-b")
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
        return destination in await on.routes()


def headers(packet):
    """(source, destination, protocol, payload) of an Ethernet frame with IPv4."""
    assert packet[12:14] == b"\x08\x00"
    ip = packet[14:]
    length = (ip[0] & 15) * 4
    (total,) = struct.unpack_from(">H", ip, 2)
    return str(IPv4Address(ip[12:16])), str(IPv4Address(ip[16:20])), ip[9], ip[length:total], total


async def vxlan_end_to_end():
    async with Cluster(VXLAN) as cluster:
        a, b = cluster.a, cluster.b
        largest = MTU - 50 - ICMP_AND_IP_HEADERS
        async with Capture("p-a", "udp port 8472") as capture:
            assert await a.ping("pod-a", cluster.pod_b, size=largest) == 1
            await until(lambda: len(capture.packets()) >= 2, "two encapsulated packets")
        assert await a.ping("pod-a", cluster.pod_b, size=largest + 1) == 0
        echo = next(packet for packet in capture.packets() if headers(packet)[0] == a.address)
        source, destination, protocol, udp, total = headers(echo)
        assert (source, destination, protocol, total) == (a.address, b.address, 17, MTU)
        assert struct.unpack_from(">H", udp, 2) == (8472,)
        flags, vni = udp[8], int.from_bytes(udp[12:15], "big")
        assert (flags, vni) == (0x08, 1)
        inner = udp[16:]
        macs = json.loads(cluster.api.annotations("b")["flannel.alpha.coreos.com/backend-data"])
        assert inner[:6].hex(":") == macs["VtepMAC"]
        inner_source, inner_destination, inner_protocol, _, inner_total = headers(inner)
        # No NAT between pods: b sees a's pod itself.
        assert (inner_source, inner_destination, inner_protocol) == (cluster.pod_a, cluster.pod_b, 1)
        assert inner_total == MTU - 50
        assert f"mtu {MTU - 50} " in await a.sh("ip netns exec pod-a ip link show eth0")
        return await udp_between_pods(cluster)


async def udp_between_pods(cluster):
    """What a server in pod-b sees of a client in pod-a."""
    server = await asyncio.create_subprocess_exec(
        *cluster.b.pod_argv("pod-b", "socat", "-u", "-d", "-d", "UDP4-RECVFROM:9999", "-"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    while b"receiving on" not in await existing(server.stderr).readline():
        pass
    await cluster.a.sh(f"echo hello | ip netns exec pod-a socat -u - UDP4-SENDTO:{cluster.pod_b}:9999")
    said, seen = await asyncio.wait_for(server.communicate(), 5)
    return said, f"{cluster.pod_a}:" in seen.decode()


def test_vxlan_carries_pods_packets_in_udp_between_nodes_at_the_full_mtu():
    assert isolated(lambda: asyncio.run(vxlan_end_to_end())) == (b"hello\n", True)


async def host_gateway_end_to_end():
    async with Cluster(HOST_GW) as cluster:
        async with Capture("p-a", "icmp or udp port 8472") as capture:
            assert await cluster.a.ping("pod-a", cluster.pod_b, size=MTU - ICMP_AND_IP_HEADERS) == 1
            await until(lambda: len(capture.packets()) >= 2, "request and reply")
        seen = {headers(packet)[:3] for packet in capture.packets()}
        assert seen == {(cluster.pod_a, cluster.pod_b, 1), (cluster.pod_b, cluster.pod_a, 1)}
        assert "10.244.2.0/24 via 172.18.0.3 dev eth0" in await cluster.a.routes()
        assert "flannel.1" not in await cluster.a.sh("ip link")
        cluster.api.remove("b")
        await until(lambda: no_route_to_b(cluster), "a's route to b gone")


async def no_route_to_b(cluster):
    return "10.244.2.0/24" not in await cluster.a.routes()


def test_host_gw_routes_pods_packets_as_they_are():
    isolated(lambda: asyncio.run(host_gateway_end_to_end()))


async def direct_routing():
    async with Cluster('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}') as cluster:
        async with Capture("p-a", "icmp or udp port 8472") as capture:
            assert await cluster.a.ping("pod-a", cluster.pod_b) == 1
            await until(lambda: len(capture.packets()) >= 2, "request and reply")
        # A node beyond the segment still is reached through the overlay.
        cluster.api.put(node("far", "10.244.9.0/24", "203.0.113.9", "5e:00:00:00:00:09"))
        await until(lambda: cluster.has_route(cluster.a, "10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink"), "far")
        return {headers(packet)[:3] for packet in capture.packets()} == {
            (cluster.pod_a, cluster.pod_b, 1),
            (cluster.pod_b, cluster.pod_a, 1),
        }


def test_direct_routing_encapsulates_only_what_leaves_the_segment():
    assert isolated(lambda: asyncio.run(direct_routing()))


async def overlay_entries(on):
    """Routes, permanent neighbours and remote FDB entries of flannel.1."""
    routes = await on.sh("ip route show dev flannel.1 2>&1 || true")
    neighbours = await on.sh("ip -4 neigh show dev flannel.1 nud permanent 2>&1 || true")
    fdb = await on.sh("bridge fdb show dev flannel.1 2>&1 | grep dst || true")
    return routes.split("\n")[:-1], neighbours.split("\n")[:-1], fdb.split("\n")[:-1]


async def entries_follow_nodes():
    async with Cluster(VXLAN) as cluster:
        a = cluster.a
        mac = json.loads(cluster.api.annotations("b")["flannel.alpha.coreos.com/backend-data"])["VtepMAC"]
        routes, neighbours, fdb = await overlay_entries(a)
        assert [line.strip() for line in routes] == ["10.244.2.0/24 via 10.244.2.0 onlink"]
        assert [line.strip() for line in neighbours] == [f"10.244.2.0 lladdr {mac} PERMANENT"]
        assert [line.strip() for line in fdb] == [f"{mac} dst 172.18.0.3 self permanent"]
        assert "inet 10.244.1.0/32" in await a.sh("ip addr show flannel.1")
        details = await a.sh("ip -d link show flannel.1")
        assert "vxlan id 1 local 172.18.0.2 dev eth0" in details and "dstport 8472 nolearning" in details

        # A node whose object is made anew is announced and entered again.
        old = cluster.api.nodes["b"]
        cluster.api.remove("b")
        await until(lambda: entries_gone(a), "entries of the removed node gone")
        cluster.api.put(node("b", "10.244.2.0/24", "172.18.0.3", managed=False, uid="another"))
        await until(lambda: cluster.is_up("b"), "the new Node object announced")
        assert cluster.api.annotations("b") == old["metadata"]["annotations"]
        await until(lambda: cluster.has_route(a, "10.244.2.0/24"), "its route back")
        assert await a.ping("pod-a", cluster.pod_b) == 1


async def entries_gone(on):
    return await overlay_entries(on) == ([], [], [])


def test_entries_follow_the_nodes():
    isolated(lambda: asyncio.run(entries_follow_nodes()))


async def restarts_and_drift():
    async with Cluster(VXLAN) as cluster:
        a = cluster.a
        index = await a.sh("cat /sys/class/net/flannel.1/ifindex")
        announced = dict(cluster.api.annotations("a"))
        pinging = asyncio.create_task(a.ping("pod-a", cluster.pod_b, count=15))
        await a.kill_flanneld()
        await a.start_flanneld(VXLAN)
        before = len(cluster.api.patches)
        await until(lambda: len(cluster.api.patches) > before, "flanneld running again")
        assert await pinging == 15
        assert await a.sh("cat /sys/class/net/flannel.1/ifindex") == index
        assert cluster.api.annotations("a") == announced

        # Somebody breaks each of the entries; all come back by themselves.
        whole = await overlay_entries(a)
        await a.sh("ip route del 10.244.2.0/24")
        await a.sh("ip neigh del 10.244.2.0 dev flannel.1")
        await a.sh(f"bridge fdb del {whole[2][0].split()[0]} dev flannel.1 dst 172.18.0.3")
        await until(lambda: same(overlay_entries(a), whole), "repaired entries")
        await a.sh("ip link del flannel.1")
        await until(lambda: same(overlay_entries(a), whole), "the device made again")
        await a.sh("iptables -t nat -F FLANNEL-POSTRTG && iptables -F FORWARD")
        await until(lambda: rules_are_back(a), "iptables rules repaired")
        assert await a.ping("pod-a", cluster.pod_b) == 1
        # What it has made stays when it ends.
        assert await a.stop_flanneld() == 0
        assert await overlay_entries(a) == whole
        assert await a.ping("pod-a", cluster.pod_b) == 1


async def same(awaited, expected):
    return await awaited == expected


async def rules_are_back(on):
    saved = await on.sh("iptables-save")
    return saved.count("-j FLANNEL-FWD") == 1 and saved.count("-A FLANNEL-POSTRTG") == 6


def test_restarts_do_not_interrupt_traffic_and_drift_is_repaired():
    isolated(lambda: asyncio.run(restarts_and_drift()))


async def masquerading():
    """Addresses that a host outside the cluster, and a pod, see: (from a pod, from the other node)."""
    async with Cluster(VXLAN) as cluster:
        a = cluster.a
        async with Capture("fabric", "icmp and dst host 172.18.0.1") as capture:
            assert await a.ping("pod-a", GATEWAY) == 1
            await until(capture.packets, "the packet outside")
        async with Capture("p-b", "udp port 8472") as overlay:
            await a.sh(f"ping -c 1 -W 2 {cluster.pod_b}")
            await until(lambda: len(overlay.packets()) >= 2, "the node's packet to a pod")
        from_node = [headers(headers(packet)[3][16:]) for packet in overlay.packets()]
        return headers(capture.packets()[0])[0], from_node[0][0]


def test_pods_leave_the_cluster_with_the_nodes_address_and_the_node_reaches_pods_from_its_vtep():
    assert isolated(lambda: asyncio.run(masquerading())) == ("172.18.0.2", "10.244.1.0")


async def cni_lifecycle():
    async with Cluster(VXLAN) as cluster:
        a = cluster.a
        ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        first = await a.add_pod("web", {"portMappings": ports})
        assert "10.244.1." in first and "8080" in await a.sh("iptables-save -t nat")
        await a.delete_pod("web")
        left = await a.sh("ls /var/lib/cni/results /var/lib/cni/flannel /var/lib/cni/networks/cbr0")
        assert first not in left.split() and "web" not in left
        assert "8080" not in await a.sh("iptables-save -t nat")
        await a.delete_pod("web")  # idempotent
        await a.sh("rm /run/flannel/subnet.env")
        try:
            await a.add_pod("late")
        except AssertionError as error:
            return str(error)


def test_pods_come_and_go_and_a_missing_subnet_file_is_said_as_upstream_says_it():
    assert isolated(lambda: asyncio.run(cni_lifecycle())) == (
        'plugin type="flannel" failed (add): loadFlannelSubnetEnv failed: '
        "open /run/flannel/subnet.env: no such file or directory"
    )
