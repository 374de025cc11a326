"""Several weave-nets in namespaces: real sessions, devices, rules, plugins and packets; the API is a fake."""

import asyncio
import contextlib
import re

import pytest

from tests.components.networks.flannel.fabric import Capture
from tests.components.networks.weave.fabric import Cluster
from tests.scratch import isolated

pytestmark = pytest.mark.packet


def in_cluster(body, *arguments, **options):
    async def run():
        async with Cluster(*arguments, **options) as cluster:
            return await body(cluster)

    isolated(lambda: asyncio.run(run()), timeout=100)


async def block(node, peers, action="-I"):
    """Weave's ports between a node and others."""
    for peer in peers:
        await node.sh(
            f"iptables {action} INPUT -s {peer.address} -p tcp -m multiport --ports 6783 -j DROP; "
            f"iptables {action} INPUT -s {peer.address} -p udp --dport 6784 -j DROP; "
            f"iptables {action} OUTPUT -d {peer.address} -p udp --dport 6784 -j DROP"
        )


def test_pods_of_three_nodes_are_on_one_segment():
    async def body(cluster):
        await cluster.up()
        addresses = [await node.add_pod(f"pod-{node.name}") for node in cluster.nodes]
        assert len(set(addresses)) == 3
        for node in cluster.nodes:
            for address in addresses:
                assert await node.ping(f"pod-{node.name}", address, size=1376 - 28) == 1
        for node in cluster.nodes:
            await node.delete_pod(f"pod-{node.name}")
            assert await node.http("ip") == ""
            assert "vethwepl" not in await node.sh("ip -o link")

    in_cluster(body, 3)


def test_a_minority_waits_for_the_first_ring_and_the_rest_does_not():
    async def body(cluster):
        one, two, three = cluster.nodes
        await block(one, [two, three])
        await cluster.launch()
        for node in (two, three):
            await cluster.until(node.exposed, f"{node.name} exposed")
        await cluster.until(one.answers, "the minority's HTTP")
        await cluster.until(lambda: waiting(one), "the minority waits for consensus")
        assert not await one.exposed()
        await block(one, [two, three], "-D")
        await cluster.until(one.exposed, "with the ring of the others it goes on")

    async def waiting(node):
        return "awaiting consensus (quorum: 2, known: 1)" in await node.http()

    in_cluster(body, 3)


def test_both_sides_of_a_partition_go_on_and_meet_again():
    async def body(cluster):
        await cluster.up()
        left, right = cluster.nodes
        pods = [await left.add_pod("left-0"), await right.add_pod("right-0")]
        await block(left, [right])
        await cluster.until(lambda: left.is_meshed(0), "left is alone")
        await cluster.until(lambda: right.is_meshed(0), "right is alone")
        assert "- unreachable!" in await left.http("status/ipam")
        for number in range(1, 4):
            pods += [await left.add_pod(f"left-{number}"), await right.add_pod(f"right-{number}")]
        assert len(set(pods)) == len(pods)
        assert await left.ping("left-0", pods[1]) == 0
        await block(left, [right], "-D")
        await cluster.until(lambda: left.is_meshed(1), "they meet again")
        await cluster.until(lambda: answered(left, pods[1]), "and reach each other's pods")
        shares = [sorted(re.findall(r"\((w\d)\) +(\d+) IPs", await node.http("status/ipam"))) for node in (left, right)]
        assert shares[0] == shares[1]

    async def answered(node, address):
        return await node.ping("left-0", address) == 1

    in_cluster(body, 2)


def test_who_is_killed_and_comes_back_has_what_it_had():
    async def body(cluster):
        await cluster.up()
        one, _ = cluster.nodes
        pod = await one.add_pod("pod")
        before = await one.http("status/ipam"), await one.sh("ip -o -4 address show dev weave")
        await one.kill()
        await one.sh("ip link delete vxlan-6784; iptables -t nat -F WEAVE; iptables -t nat -D POSTROUTING -j WEAVE")
        await one.start_weave(2)
        await cluster.until(lambda: one.is_meshed(1), "connected again")
        assert (await one.http("status/ipam"), await one.sh("ip -o -4 address show dev weave")) == before
        assert await one.add_pod("another") != pod
        rules = await one.sh("iptables-save -t nat")
        assert rules.count("-A POSTROUTING -j WEAVE") == 1
        assert rules.count("-A WEAVE ") == 4

    in_cluster(body, 2)


def test_the_share_of_a_removed_node_is_taken_over_and_its_saved_data_is_forgotten():
    async def body(cluster):
        await cluster.up()
        one, two, three = cluster.nodes
        await three.kill()
        await cluster.until(lambda: one.is_meshed(1), "three is lost")
        cluster.api.remove("w3")
        await cluster.until(lambda: gone(one), "taken over")
        await cluster.until(lambda: gone(two), "everybody knows")
        assert "w3" not in str(cluster.api.configmap)
        old = await three.sh("cat /var/lib/weave/weave-netdata.json")
        assert "weave:expose" in old
        cluster.api.put({**cluster.api.nodes["w1"], "metadata": {"name": "w3", "uid": "new"},
                         "status": {"addresses": [{"type": "InternalIP", "address": three.address}]}})  # fmt: skip
        await three.start_weave(3)
        await cluster.until(lambda: three.is_meshed(2), "three is back")
        await cluster.until(lambda: listed(cluster), "and listed")
        addresses = {(await node.sh("ip -o -4 address show dev weave")).split()[3] for node in cluster.nodes}
        assert len(addresses) == 3, "with an address that nobody has"

    async def gone(node):
        return "w3" not in await node.http("status/ipam")

    async def listed(cluster):
        return "w3" in str(cluster.api.configmap)

    in_cluster(body, 3)


def test_rmpeer_by_hand_and_reset():
    async def body(cluster):
        await cluster.up()
        one, two = cluster.nodes
        await two.kill()
        await cluster.until(lambda: one.is_meshed(0), "two is lost")
        assert "- unreachable!" in await one.http("status/ipam")
        assert re.fullmatch(r"\d+ IPs taken over from w2\n", await one.http("peer/w2", "DELETE"))
        assert "256 IPs (100.0% of total)" in await one.http("status/ipam")

    in_cluster(body, 2)


def test_where_vxlan_is_blocked_frames_go_in_datagrams_and_by_vxlan_again_afterwards():
    async def body(cluster):
        await cluster.up()
        one, two, three = cluster.nodes
        pods = [await node.add_pod(f"pod-{node.name}") for node in cluster.nodes]
        await cluster.until(lambda: one.goes_by("fastdp", 2), "VXLAN to both")
        assert await one.ping("pod-w1", pods[1]) == 1
        await one.sh(f"iptables -I INPUT -s {two.address} -p udp --dport 6784 -j DROP")
        await two.sh(f"iptables -I INPUT -s {one.address} -p udp --dport 6784 -j DROP")
        for node in (one, two):
            await cluster.until(lambda node=node: node.goes_by("sleeve"), f"{node.name}: datagrams to one")
            assert await node.goes_by("fastdp"), "VXLAN to the third"
        for size in (56, 1376 - 28):
            await cluster.until(lambda size=size: answered(one, pods[1], size), f"{size} bytes arrive")
        assert await three.ping("pod-w3", pods[0]) == await three.ping("pod-w3", pods[1]) == 1
        speed = await tcp(two, one, pods[1])
        assert speed == "65536\n", "large writes, which the kernel would cut into segments on a device"
        for node in (one, two):
            await node.sh("iptables -F INPUT")
        for node in (one, two):
            await cluster.until(lambda node=node: node.goes_by("fastdp", 2), f"{node.name}: VXLAN again")
            await cluster.until(lambda node=node: without_veth(node), f"{node.name}: its veth goes")
        await cluster.until(lambda: answered(one, pods[1], 56), "reached by VXLAN")
        assert await tcp(two, one, pods[1]) == "65536\n"

    async def answered(node, address, size):
        return await node.ping("pod-w1", address, size=size) == 1

    async def without_veth(node):
        return "vethwe-bridge" not in await node.sh("ip -o link")

    async def tcp(server, client, address):
        listening = await asyncio.create_subprocess_exec(
            *server.pod_argv("pod-w2", "socat", "-u", "OPEN:/dev/zero", "TCP-LISTEN:9,reuseaddr"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        got = await client.sh(
            f"ip netns exec pod-w1 socat -u TCP:{address}:9,retry=50,interval=0.1 - | head -c 65536 | wc -c"
        )
        with contextlib.suppress(ProcessLookupError):  # it may have ended with its connection
            listening.kill()
        await listening.wait()
        return got

    in_cluster(body, 3)


@pytest.mark.parametrize("password", ["", "secret"], ids=["in clear", "sealed"])
def test_without_the_fast_datapath_all_goes_in_datagrams(password):
    async def body(cluster):
        await cluster.up()
        one, _ = cluster.nodes
        pods = [await node.add_pod(f"pod-{node.name}") for node in cluster.nodes]
        assert "vxlan" not in await one.sh("ip -o -d link")
        assert await one.goes_by("sleeve")
        capture = Capture("p-w2", "udp port 6783")
        async with capture:
            assert await one.ping("pod-w1", pods[1]) == 1
        frames = b"".join(capture.packets())
        assert frames
        # The padding of an echo request, as ping fills it.
        assert (bytes(range(0x10, 0x30)) in frames) == (not password)

    flags = ["--no-fastdp", *(["--password-secret", "weave-passwd"] if password else [])]
    in_cluster(body, 2, *flags, password=password)
