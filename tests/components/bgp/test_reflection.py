"""Our daemon as a route reflector and as a client of one (RFC 4456), byte for byte: its peers are sockets."""

import asyncio
import contextlib
import json

import pytest
from os_ken.lib.packet import bgp

from kubewire.components.bgp import messages
from tests.components.bgp.fabric import until
from tests.components.bgp.hostile import KEEPALIVE, NEXT_HOP, ORIGIN, HostileNode, HostilePeer, update
from tests.scratch import isolated

pytestmark = pytest.mark.packet

LOCAL_AS = 64512
#: Address of a peer -> its BGP identifier.
PEERS = {"127.0.0.2": "10.0.1.2", "127.0.0.3": "10.0.1.3", "127.0.0.4": "10.0.1.4"}
SENDER, OBSERVER, OTHER = PEERS
PREFIX, WIRE = "10.9.1.0/24", b"\x18\x0a\x09\x01"
EMPTY_PATH, LOCAL_PREF = b"\x40\x02\x00", b"\x40\x05\x04\x00\x00\x00\xc8"
INTERNAL = ORIGIN + EMPTY_PATH + NEXT_HOP + LOCAL_PREF


def scenario(body, *arguments):
    isolated(lambda: asyncio.run(body(*arguments)), timeout=60)


class Client:
    """A peer, and what it has been told: prefix -> attributes by type."""

    def __init__(self, peer):
        self.peer = peer
        self.routes = {}
        self.longest = 0
        self.ended = None
        self.end_of_rib = asyncio.Event()
        self.reading = asyncio.ensure_future(self._read())

    @classmethod
    async def established(cls, address, identifier=None):
        identifier = identifier or PEERS[address]
        number = LOCAL_AS.to_bytes(2, "big")
        capabilities = b"\x02\x06\x01\x04\x00\x01\x00\x01\x02\x06\x41\x04\x00\x00" + number
        octets = bytes(map(int, identifier.split(".")))
        body = b"\x04" + number + b"\x00\x5a" + octets + bytes([len(capabilities)]) + capabilities
        return cls(await HostilePeer.established(address, messages.message(messages.OPEN, body)))

    def send(self, attributes=INTERNAL, prefix=WIRE):
        self.peer.send(update(prefix, attributes))

    async def _read(self):
        while True:
            kind, body = await self.peer.message()
            self.longest = max(self.longest, messages.HEADER + len(body))
            if kind == messages.NOTIFICATION:
                self.ended = body[0], body[1]
            if kind != messages.UPDATE:
                continue
            if not any(body):
                self.end_of_rib.set()
            said, _, _ = bgp.BGPMessage.parser(messages.message(kind, body))
            for prefix in said.withdrawn_routes:
                self.routes.pop(prefix.prefix, None)
            for prefix in said.nlri:
                self.routes[prefix.prefix] = {one.type: one.value for one in said.path_attributes}

    async def heard_all(self):
        """RFC 4724, 2: what it was to be told when the session began."""
        async with asyncio.timeout(20):
            await self.end_of_rib.wait()

    async def told(self, prefix=PREFIX):
        await until(lambda: prefix in self.routes, f"{prefix} at a peer")
        return self.routes[prefix]


async def reflector(**more):
    node = HostileNode("node")
    await node.uplink()
    options = {"remoteAS": LOCAL_AS, "passive": True, "gracefulRestart": False, "routeReflectorClient": True}
    peers = [{"name": address, "address": address, **options} for address in PEERS]
    own = {"localAS": LOCAL_AS, "routerID": "10.0.1.1", "clusterID": "10.0.0.9", "listen": ["0.0.0.0"]}
    await node.start_daemon({**own, "peers": peers, "announce": ["10.200.0.0/24"], **more})
    return node


def test_a_reflected_route_keeps_its_local_pref_and_names_its_originator():
    async def body():
        await reflector()
        sender, observer = await Client.established(SENDER), await Client.established(OBSERVER)
        sender.send()
        told = await observer.told()
        assert told[messages.ORIGINATOR_ID] == "10.0.1.2"
        assert told[messages.CLUSTER_LIST] == ["10.0.0.9"]
        assert told[messages.LOCAL_PREF] == 200

    scenario(body)


def test_a_route_that_is_reflected_again_keeps_its_originator():
    async def body():
        await reflector()
        sender, observer = await Client.established(SENDER), await Client.established(OBSERVER)
        sender.send(INTERNAL + b"\x80\x09\x04\x0a\x00\x01\x07\x80\x0a\x04\x0a\x00\x00\x08")
        told = await observer.told()
        assert told[messages.ORIGINATOR_ID] == "10.0.1.7"
        assert told[messages.CLUSTER_LIST] == ["10.0.0.9", "10.0.0.8"]

    scenario(body)


def test_a_reflectors_own_route_is_not_reflected():
    async def body():
        await reflector()
        told = await (await Client.established(OBSERVER)).told("10.200.0.0/24")
        assert messages.ORIGINATOR_ID not in told
        assert messages.CLUSTER_LIST not in told
        assert told[messages.LOCAL_PREF] == 100

    scenario(body)


LOOPS = {
    "our router id as ORIGINATOR_ID": INTERNAL + b"\x80\x09\x04\x0a\x00\x01\x01",
    "our cluster id in CLUSTER_LIST": INTERNAL + b"\x80\x0a\x08\x0a\x00\x00\x08\x0a\x00\x00\x09",
    "our AS in AS_PATH": ORIGIN + b"\x40\x02\x06\x02\x01\x00\x00\xfc\x00" + NEXT_HOP + LOCAL_PREF,
}


@pytest.mark.parametrize("attributes", LOOPS.values(), ids=LOOPS)
def test_a_route_that_comes_round_takes_the_one_before_with_it(attributes):
    async def body():
        node = await reflector()
        sender, observer = await Client.established(SENDER), await Client.established(OBSERVER)
        sender.send()
        await observer.told()
        sender.send(attributes)
        await until(lambda: PREFIX not in observer.routes, "its withdrawal")

        async def gone():
            return PREFIX not in await node.kernel_routes()

        await until(gone, "none in the kernel")

    scenario(body)


def test_a_route_whose_originator_is_the_reflector_that_sends_it_is_good():
    async def body():
        node = await reflector()
        sender = await Client.established(SENDER)
        sender.send(INTERNAL + b"\x80\x09\x04\x0a\x00\x01\x02")

        async def there():
            return PREFIX in await node.kernel_routes()

        await until(there, "the route in the kernel")

    scenario(body)


def test_a_peer_of_our_as_with_our_identifier_is_refused():
    async def body():
        await reflector()
        first = await Client.established(OBSERVER)
        await first.told("10.200.0.0/24")
        peer = await HostilePeer.connect(SENDER)
        number = LOCAL_AS.to_bytes(2, "big")
        peer.send(messages.message(messages.OPEN, b"\x04" + number + b"\x00\x5a\x0a\x00\x01\x01\x00") + KEEPALIVE)
        assert (await peer.notification())[:2] == (2, 3)

    scenario(body)


def test_a_route_that_would_make_too_long_a_message_is_withdrawn():
    """RFC 4271, 4.1: 4096 octets. What the reflector adds must not end the sessions of the others."""

    async def body():
        await reflector()
        sender, observer = await Client.established(SENDER), await Client.established(OBSERVER)
        sender.send()
        await observer.told()
        room = messages.LARGEST - len(update(WIRE, INTERNAL)) - 4
        communities = b"\xd0\x08" + (room // 4 * 4).to_bytes(2, "big") + room // 4 * b"\xfd\xe9\x00\x01"
        sender.send(INTERNAL + communities)
        await until(lambda: PREFIX not in observer.routes, "its withdrawal")
        sender.send(prefix=b"\x18\x0a\x09\x02")
        await observer.told("10.9.2.0/24")
        assert observer.longest <= messages.LARGEST

    scenario(body)


def test_a_route_that_a_new_export_filter_blocks_goes_with_the_session():
    """A peer whose filters change is begun anew: it is told only what passes them."""

    async def body():
        node = await reflector(announce=["10.200.0.0/24", "10.201.0.0/24"])
        observer = await Client.established(OBSERVER)
        await observer.told("10.200.0.0/24")
        configured = json.loads(json.dumps(node.configured))
        (one,) = (peer for peer in configured["peers"] if peer["address"] == OBSERVER)
        one["export"] = {"rules": [{"prefix": "10.200.0.0/24", "action": "reject"}]}
        await node.reconfigure(configured)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(20):
                await observer.reading
        assert observer.ended == (6, 2)
        again = await Client.established(OBSERVER)
        await again.told("10.201.0.0/24")
        await again.heard_all()
        assert "10.200.0.0/24" not in again.routes

    scenario(body)
