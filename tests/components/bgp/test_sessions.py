"""Sessions with BIRD 2, FRR and GoBGP: what each side believes, and what the kernel has."""

import asyncio

import pytest

from tests.components.bgp import routers
from tests.components.bgp.fabric import Host, Node, configuration, until, wire
from tests.components.bgp.routers import Bird, Frr, GoBgp
from tests.scratch import isolated

KINDS = pytest.mark.parametrize("kind", [Bird, Frr, GoBgp], ids=["bird", "frr", "gobgp"])
pytestmark = [
    pytest.mark.packet,
    pytest.mark.skipif(not routers.unpacked(), reason="Debian's bird2, frr and gobgpd cannot be downloaded"),
]
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
