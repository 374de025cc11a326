"""Sessions with BIRD 2, FRR and GoBGP: what each side believes, and what the kernel has."""

import asyncio
import json
import os
import signal

import pytest

from tests.components.bgp.fabric import Host, Node, configuration, until, wire
from tests.components.bgp.routers import Bird, Frr, GoBgp
from tests.existing import existing
from tests.scratch import isolated

KINDS = pytest.mark.parametrize("kind", [Bird, Frr, GoBgp], ids=["bird", "frr", "gobgp"])
pytestmark = pytest.mark.packet
TOR_AS = 65001


def scenario(body, *arguments):
    isolated(lambda: asyncio.run(body(*arguments)), timeout=60)


async def racks(kind, count=1, **options):
    """A node and its routers, not yet talking. Each announces 172.30.0.0/16."""
    node = await Node("node").start()
    tors = []
    for number in range(1, count + 1):
        host = await Host(f"tor{number}").start()
        await wire(node, host, number)
        asn = options.get("asn", TOR_AS)
        rest = {key: value for key, value in options.items() if key != "asn"}
        tors.append(kind(host, asn, [(f"10.0.{number}.1", 64512)], ["172.30.0.0/16"], **rest))
    return node, tors


def peers(count=1, **more):
    return [{"name": f"tor{n}", "address": f"10.0.{n}.2", "remoteAS": TOR_AS, **more} for n in range(1, count + 1)]


async def both_up(node, tors):
    for number, tor in enumerate(tors, 1):
        await until(lambda number=number: node.is_up(f"tor{number}"), f"session with tor{number}")
        await until(tor.is_up, f"tor{number} sees it up")


@KINDS
def test_routes_go_both_ways_with_communities_and_are_withdrawn(kind):
    async def body():
        node, tors = await racks(kind, community="65001,7")
        (tor,) = tors
        await tor.start()
        announced = [{"prefix": "10.244.1.0/24", "communities": ["64512:100", "64512:200"]}]
        await node.start_daemon(configuration(peers(), announced))
        await both_up(node, tors)

        async def learned():
            return await node.kernel_routes() == {"172.30.0.0/16": ["10.0.1.2"]}

        await until(learned, "the router's prefix in the node's kernel")
        assert "65001:7" in await node.ask("show route")

        async def told():
            return (await tor.routes()).get("10.244.1.0/24") == {"10.0.1.1"}

        await until(told, "the node's prefix at the router")
        assert await tor.communities("10.244.1.0/24") == ["64512:100", "64512:200"]

        await node.reconfigure(configuration(peers(), ["10.244.9.0/24"]))

        async def swapped():
            found = await tor.routes()
            return "10.244.9.0/24" in found and "10.244.1.0/24" not in found

        await until(swapped, "the withdrawal at the router")
        await tor.withdraw()
        await until(lambda: none(node), "no route after the router's withdrawal")

    scenario(body)


async def none(node):
    return await node.kernel_routes() == {}


@KINDS
def test_two_uplinks_are_one_multipath_route_and_a_dead_router_leaves_it(kind):
    async def body():
        node, tors = await racks(kind, 2)
        for tor in tors:
            await tor.start()
        await node.start_daemon(configuration(peers(2)))
        await both_up(node, tors)

        async def two():
            return await node.kernel_routes() == {"172.30.0.0/16": ["10.0.1.2", "10.0.2.2"]}

        async def one():
            return await node.kernel_routes() == {"172.30.0.0/16": ["10.0.2.2"]}

        await until(two, "both next hops")
        await tors[0].kill()
        await until(one, "one next hop after the router was killed")
        assert await node.is_up("tor2")

    scenario(body)


@KINDS
def test_a_wrong_md5_key_keeps_a_session_down_and_the_right_one_brings_it_up(kind):
    async def body():
        node, tors = await racks(kind, password="secret")
        await tors[0].start()
        await node.start_daemon(configuration(peers(password="wrong")))

        async def unsigned_or_wrong():
            text = await node.sh("nstat -asz TcpExtTCPMD5NotFound TcpExtTCPMD5Unexpected TcpExtTCPMD5Failure")
            text += await tors[0].host.sh("nstat -asz TcpExtTCPMD5NotFound TcpExtTCPMD5Unexpected TcpExtTCPMD5Failure")
            return any(int(line.split()[1]) for line in text.splitlines() if line.startswith("TcpExtTCPMD5"))

        await until(unsigned_or_wrong, "a segment that the kernel refused for its signature")
        assert not await node.is_up("tor1")
        await node.reconfigure(configuration(peers(password="secret")))
        await both_up(node, tors)

    scenario(body)


def test_a_silent_router_is_given_up_when_the_hold_timer_expires():
    async def body():
        node, tors = await racks(Bird, hold=3)
        await tors[0].start()
        await node.start_daemon(configuration(peers(holdTime=3)))
        await both_up(node, tors)
        await until(lambda: some(node), "a route")
        os.kill(tors[0].process.pid, signal.SIGSTOP)
        await until(lambda: none(node), "no route once nothing was heard for 3 s", timeout=8)
        os.kill(tors[0].process.pid, signal.SIGCONT)
        await until(lambda: some(node), "the route again")

    scenario(body)


async def some(node):
    return "172.30.0.0/16" in await node.kernel_routes()


def test_a_link_without_carrier_takes_the_routes_by_it_at_once():
    async def body():
        node, tors = await racks(Bird, 2)
        for tor in tors:
            await tor.start()
        await node.start_daemon(configuration(peers(2)))
        await both_up(node, tors)

        async def hops():
            return (await node.kernel_routes()).get("172.30.0.0/16", [])

        async def both():
            return await hops() == ["10.0.1.2", "10.0.2.2"]

        async def second():
            return await hops() == ["10.0.2.2"]

        await until(both, "both next hops")
        await tors[0].host.sh("ip link set eth1 down")
        await until(second, "the other next hop only", timeout=3)
        await tors[0].host.sh("ip link set eth1 up")
        await until(both, "both next hops again")

    scenario(body)


def test_a_passive_peer_waits_for_the_router_to_connect():
    async def body():
        node, tors = await racks(Bird, passive=False)
        await node.start_daemon(configuration(peers(passive=True)))
        await until(lambda: node.ask("show protocols"), "the control socket")
        await tors[0].start()
        await both_up(node, tors)
        connections = await node.sh("ss -Htn state established '( sport = :179 )'")
        assert len(connections.splitlines()) == 1

    scenario(body)


@KINDS
def test_a_router_reflects_routes_between_two_nodes(kind):
    """iBGP: the reflector leaves the next hop as it is, so both nodes are on one segment with it."""

    async def body():
        nodes, (tor,) = await segment(kind)
        await tor.start()
        for number, node in enumerate(nodes, 1):
            await node.start_daemon(ibgp(number, [{"name": "rr", "address": "10.0.0.9", "remoteAS": 64512}]))
        for number, node in enumerate(nodes, 1):
            other = 3 - number

            async def learned(node=node, other=other):
                return (await node.kernel_routes()).get(f"10.244.{other}.0/24") == [f"10.0.0.{other}"]

            await until(learned, f"the other node's pods at node {number}")

    scenario(body)


def test_our_daemon_reflects_routes_between_two_nodes_and_loses_them_with_a_node():
    async def body():
        nodes, (tor,) = await segment(Bird)
        clients = [
            {
                "name": f"n{n}",
                "address": f"10.0.0.{n}",
                "remoteAS": 64512,
                "routeReflectorClient": True,
                "gracefulRestart": False,
            }
            for n in (1, 2)
        ]
        reflector = Node("rr")
        reflector.pid = tor.host.pid
        await reflector.start_daemon(
            {"localAS": 64512, "routerID": "10.0.0.9", "clusterID": "10.0.0.9", "connectRetry": 1, "peers": clients}
        )
        for number, node in enumerate(nodes, 1):
            await node.start_daemon(ibgp(number, [{"name": "rr", "address": "10.0.0.9", "remoteAS": 64512}]))

        async def learned():
            return await nodes[0].kernel_routes() == {"10.244.2.0/24": ["10.0.0.2"]}

        await until(learned, "node 2's pods at node 1")
        nodes[1].daemon.kill()
        await until(lambda: none(nodes[0]), "no route once node 2's daemon was killed")

    scenario(body)


def test_a_reflector_that_learns_a_better_path_takes_nothing_back_from_its_clients():
    async def body():
        nodes, (tor,) = await segment(Bird, count=3)
        options = {"remoteAS": 64512, "routeReflectorClient": True, "gracefulRestart": False}
        clients = [{"name": f"n{n}", "address": f"10.0.0.{n}", **options} for n in (1, 2, 3)]
        reflector = Node("rr")
        reflector.pid = tor.host.pid
        await reflector.start_daemon(
            {"localAS": 64512, "routerID": "10.0.0.9", "clusterID": "10.0.0.9", "connectRetry": 1, "peers": clients}
        )
        observer, better, first = nodes
        session = [{"name": "rr", "address": "10.0.0.9", "remoteAS": 64512}]

        def announcing(number, *prefixes):
            return configuration(session, list(prefixes), routerID=f"10.0.0.{number}")

        async def observed(prefix, via):
            return (await observer.kernel_routes()).get(prefix) == [via]

        await observer.start_daemon(announcing(1))
        await first.start_daemon(announcing(3, "10.99.0.0/16"))
        await until(lambda: observed("10.99.0.0/16", "10.0.0.3"), "the first path")
        # The lower router id makes it the better one (RFC 4271, 9.1.2.2 f); the first path stays known.
        await better.start_daemon(announcing(2, "10.99.0.0/16"))
        await until(lambda: observed("10.99.0.0/16", "10.0.0.2"), "the better path in its place")
        # What the reflector has sent before this one has arrived before it.
        await better.reconfigure(announcing(2, "10.99.0.0/16", "10.98.0.0/16"))
        await until(lambda: observed("10.98.0.0/16", "10.0.0.2"), "a later announcement")
        assert await observed("10.99.0.0/16", "10.0.0.2")
        await better.reconfigure(announcing(2, "10.98.0.0/16"))
        await until(lambda: observed("10.99.0.0/16", "10.0.0.3"), "the first path again")

    scenario(body)


def ibgp(number, peers):
    return configuration(peers, [f"10.244.{number}.0/24"], routerID=f"10.0.0.{number}")


async def segment(kind, count=2):
    """Nodes 10.0.0.1, .2 ... and a reflector 10.0.0.9 on one bridge."""
    switch = await Host("switch").start()
    await switch.sh("ip link add br0 type bridge && ip link set br0 up")
    nodes = [await Node(f"node{number}").start() for number in range(1, count + 1)]
    host = await Host("tor").start()
    for number, one in (*enumerate(nodes, 1), (9, host)):
        one.address = f"10.0.0.{number}"
        await switch.sh(
            f"ip link add p{number} type veth peer name eth0 netns {one.pid} && ip link set p{number} master br0 up"
        )
        await one.sh(f"ip addr add {one.address}/24 dev eth0 && ip link set eth0 up")
    return nodes, [kind(host, 64512, [("10.0.0.1", 64512), ("10.0.0.2", 64512)], reflect=True)]


def test_filters_keep_routes_out_of_the_kernel_and_from_the_peer():
    async def body():
        node, tors = await racks(Bird)
        tors[0].announce = ["172.30.0.0/16", "192.0.2.0/24"]
        await tors[0].start()
        only = {"default": "reject", "rules": [{"prefix": "192.0.2.0/24", "action": "accept"}]}
        pods = {"rules": [{"prefix": "10.244.0.0/16", "ge": 26, "le": 32, "action": "reject"}]}
        peer = peers(**{"import": only, "export": pods})
        await node.start_daemon(configuration(peer, ["10.244.1.0/24", "10.244.2.0/26"]))
        await both_up(node, tors)

        async def told():
            return await tors[0].routes()

        await until(told, "a route at the router")
        await until(lambda: node.kernel_routes(), "a route in the kernel")
        assert await node.kernel_routes() == {"192.0.2.0/24": ["10.0.1.2"]}
        assert set(await tors[0].routes()) == {"10.244.1.0/24"}

    scenario(body)


@KINDS
def test_sigterm_says_cease_and_leaves_no_route(kind):
    async def body():
        node, tors = await racks(kind)
        await tors[0].start()
        await node.start_daemon(configuration(peers()))
        await both_up(node, tors)
        await until(lambda: some(node), "a route")
        node.daemon.terminate()
        assert await asyncio.wait_for(node.daemon.wait(), 5) == 0
        assert await node.kernel_routes() == {}

        async def gone():
            return not await tors[0].is_up() and "10.244.1.0/24" not in await tors[0].routes()

        await until(gone, "the router has forgotten the node")

    scenario(body)


@KINDS
def test_a_daemon_that_is_killed_and_begins_anew_loses_no_route_on_either_side(kind):
    """Both sides restart gracefully (RFC 4724): the kernel's routes are watched all the time."""

    async def body():
        node, tors = await racks(kind, graceful=True)
        (tor,) = tors
        await tor.start()
        await node.start_daemon(configuration(peers()))
        await both_up(node, tors)
        await until(lambda: some(node), "a route")

        async def told():
            return "10.244.1.0/24" in await tor.routes()

        await until(told, "the node's prefix at the router")
        lost = await asyncio.create_subprocess_exec(
            *node.argv("ip", "monitor", "route"), stdout=asyncio.subprocess.PIPE
        )
        node.daemon.kill()
        await node.daemon.wait()
        assert await some(node), "the kernel's route outlives the daemon"

        async def noticed():
            return not await tor.is_up()

        await until(noticed, "the router sees the session end")
        assert await told(), "the router keeps the node's prefix"
        await node.start_daemon(node.configured)
        await both_up(node, tors)
        assert await some(node)
        assert await told()
        lost.terminate()
        said = (await existing(lost.stdout).read()).decode()
        assert "Deleted 172.30.0.0/16" not in said

    scenario(body)


def test_a_prefix_that_is_not_announced_again_after_a_restart_goes_with_the_end_of_rib():
    async def body():
        node, tors = await racks(Bird, graceful=True)
        (tor,) = tors
        tor.announce = ["172.30.0.0/16", "192.0.2.0/24"]
        await tor.start()
        await node.start_daemon(configuration(peers()))
        await both_up(node, tors)

        async def both():
            return set(await node.kernel_routes()) == {"172.30.0.0/16", "192.0.2.0/24"}

        await until(both, "both routes")
        await tor.kill()
        await until(down(node), "the session is seen to end")
        assert await both(), "both routes stay while the router may come back"
        tor.announce = ["172.30.0.0/16"]
        await tor.start()

        async def one():
            return set(await node.kernel_routes()) == {"172.30.0.0/16"}

        await until(one, "the one that was announced again")

    scenario(body)


def down(node):
    async def is_down():
        return not await node.is_up("tor1")

    return is_down


def test_a_changed_as_number_begins_the_daemon_anew():
    async def body():
        node, tors = await racks(Bird)
        tors[0].neighbours = [("10.0.1.1", 64999)]
        await tors[0].start()
        await node.start_daemon(configuration(peers()))
        await until(lambda: node.ask("show protocols"), "the control socket")
        node.config.write_text(json.dumps({**node.configured, "localAS": 64999}))
        assert await node.ask("configure") == "Restarting\n"
        await both_up(node, tors)

    scenario(body)
