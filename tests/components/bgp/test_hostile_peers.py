"""Peers that send what they should not: their session pays, the other's does not, and the daemon lives."""

import asyncio

import pytest

from kubewire.components.bgp import messages
from tests.components.bgp.fabric import until
from tests.components.bgp.hostile import (
    GOOD,
    KEEPALIVE,
    NEXT_HOP,
    ORIGIN,
    OTHER,
    HostileNode,
    HostilePeer,
    opened,
    update,
)
from tests.scratch import isolated

pytestmark = pytest.mark.packet


def scenario(body, *arguments):
    isolated(lambda: asyncio.run(body(*arguments)), timeout=60)


async def lives(node, other):
    """The other peer's session goes on: what it announces reaches the kernel."""
    other.send(update(b"\x18\xc0\xa8\x07"))

    async def there():
        return (await node.kernel_routes()).get("192.168.7.0/24") == ["10.0.1.2"]

    await until(there, "the other peer's route")
    other.send(update(attributes=b"", withdrawn=b"\x18\xc0\xa8\x07"))

    async def gone():
        return "192.168.7.0/24" not in await node.kernel_routes()

    await until(gone, "its withdrawal")
    assert node.daemon.returncode is None


def test_prefixes_whose_trailing_bits_differ_are_one_route():
    async def body():
        node = await HostileNode.begin()
        other, peer = await HostilePeer.established(OTHER), await HostilePeer.established()
        peer.send(update(b"\x18\x0a\x09\x01\x18\x0a\x09\x01" + b"\x14\xac\x1e\x11\x14\xac\x1e\x1f"))

        async def learned():
            return set(await node.kernel_routes()) == {"10.9.1.0/24", "172.30.16.0/20"}

        await until(learned, "both routes")
        peer.send(update(attributes=b"", withdrawn=b"\x14\xac\x1e\x1a"))

        async def withdrawn():
            return set(await node.kernel_routes()) == {"10.9.1.0/24"}

        await until(withdrawn, "one route")
        await lives(node, other)

    scenario(body)


def test_a_malformed_attribute_withdraws_its_routes_and_the_session_goes_on():
    async def body():
        node = await HostileNode.begin()
        peer = await HostilePeer.established()
        peer.send(update(b"\x18\x0a\x09\x01\x18\x0a\x09\x02"))

        async def both():
            return set(await node.kernel_routes()) == {"10.9.1.0/24", "10.9.2.0/24"}

        await until(both, "both routes")
        for _ in range(3):
            peer.send(update(b"\x18\x0a\x09\x02", GOOD + b"\xc0\x08\x03abc"))

        async def one():
            return set(await node.kernel_routes()) == {"10.9.1.0/24"}

        await until(one, "the other route")
        assert await node.is_up("bad")
        told = [line for line in node.log.read_text().splitlines() if "COMMUNITIES" in line]
        assert len(told) == 1
        assert "127.0.0.2: UPDATE: COMMUNITIES has length 3: its routes are withdrawn" in told[0]

    scenario(body)


FIRST = {
    "no marker": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", (1, 1, b"")),
    "type 9": (b"\xff" * 16 + b"\x00\x13\x09", (1, 3, b"\x09")),
    "length 65535": (b"\xff" * 16 + b"\xff\xff\x01", (1, 2, b"\xff\xff")),
    "version 3": (opened().replace(b"\x01\x04\xfd\xe9", b"\x01\x03\xfd\xe9", 1), (2, 1, b"\x00\x04")),
    "another AS": (opened(b"\x02\x06\x41\x04\x00\x00\xfd\xea"), (2, 2, b"")),
    "hold time 1": (opened(hold=1), (2, 6, b"")),
    "a capability cut": (opened(b"\x02\x05\x41\x04\x00\x00"), (2, 0, b"")),
    "UPDATE first": (update(b"\x18\x0a\x09\x01"), (5, 1, b"")),
    "KEEPALIVE first": (KEEPALIVE, (5, 1, b"")),
    "UPDATE before KEEPALIVE": (opened() + update(b"\x18\x0a\x09\x01"), (5, 2, b"")),
    "OPEN twice": (opened() + opened(), (5, 2, b"")),
}
LATER = {
    "OPEN": (opened(), (5, 3, b"")),
    "attributes beyond the end": (messages.message(2, b"\x00\x00\xff\xff"), (3, 1, b"")),
    "a prefix of 200 bits": (update(b"\xc8" + bytes(25)), (3, 10, b"")),
    "well-known 200": (update(b"\x08\x0a", GOOD + b"\x40\xc8\x01a"), (3, 2, b"\x40\xc8a")),
    "MP_REACH_NLRI cut": (update(b"", GOOD + b"\x80\x0e\x03\x00\x02\x01"), (3, 9, b"")),
}


def test_a_path_that_begins_with_a_set_is_a_route_as_any():
    async def body():
        node = await HostileNode.begin()
        other, peer = await HostilePeer.established(OTHER), await HostilePeer.established()
        aggregated = b"\x40\x02\x0c\x01\x01\x00\x00\xfd\xea\x02\x01\x00\x00\xfd\xe9"
        peer.send(update(b"\x18\x0a\x09\x01", ORIGIN + aggregated + NEXT_HOP))

        async def learned():
            return set(await node.kernel_routes()) == {"10.9.1.0/24"}

        await until(learned, "the route")
        await lives(node, other)
        await lives(node, peer)

    scenario(body)


def test_what_ends_a_session_is_told_in_its_notification_and_logged_once():
    async def body():
        node = await HostileNode.begin()
        other = await HostilePeer.established(OTHER)
        for name, (sent, told) in (FIRST | LATER).items():
            peer = await HostilePeer.connect() if name in FIRST else await HostilePeer.established()
            before = ended(node)
            peer.send(sent)
            while (answer := await peer.notification()) == (6, 7, b""):
                # The connection before it is still being ended (RFC 4271, 6.8).
                peer.close()
                before = ended(node)
                peer = await HostilePeer.connect()
                peer.send(sent)
            assert answer == told, name
            peer.close()
            await until(lambda before=before: ended(node) > before, f"the log of {name}")
            assert ended(node) == before + 1, name
        assert "Traceback" not in node.log.read_text()
        await lives(node, other)

    def ended(node):
        return node.log.read_text().count("127.0.0.2: the session ends")

    scenario(body)


def test_a_route_refresh_is_answered_with_what_was_announced():
    """RFC 2918: os-ken ended the session by an assertion."""

    async def body():
        node = await HostileNode.begin(announce=["10.1.0.0/24"])
        peer = await HostilePeer.established()
        while await peer.heard() != messages.UPDATE:
            pass
        for _ in range(3):
            peer.send(messages.message(messages.ROUTE_REFRESH, b"\x00\x01\x00\x01"))
            kind, update_body = await peer.message()
            while kind != messages.UPDATE or not update_body.endswith(b"\x18\x0a\x01\x00"):
                kind, update_body = await peer.message()
        assert await node.is_up("bad")

    scenario(body)


def test_unknown_families_are_not_refreshed_and_not_fatal():
    async def body():
        node = await HostileNode.begin()
        peer = await HostilePeer.established()
        for family in (b"\x00\x19\x00\x46", b"\xff\xff\xff\xff", b"\x00\x01\x07\x01", b"\x00\x01\x00\x01"):
            peer.send(messages.message(messages.ROUTE_REFRESH, family))
        await lives(node, peer)

    scenario(body)


def test_connections_that_say_nothing_are_one():
    async def body():
        node = await HostileNode.begin()
        other = await HostilePeer.established(OTHER)
        files, threads = node.open_files(), node.threads()
        silent = [await HostilePeer.connect() for _ in range(40)]
        await until(lambda: node.open_files() <= files + 2, "the older ones are closed")
        await until(lambda: node.threads() <= threads + 2, "their threads end")
        strangers = [await HostilePeer.connect("127.0.0.9") for _ in range(40)]
        for stranger in strangers:
            assert await stranger.notification() in (None, (6, 5, b""), (6, 4, b""))
        await until(lambda: node.open_files() <= files + 2, "no stranger is left")
        await lives(node, other)
        peer = await HostilePeer.established()
        await lives(node, peer)
        for one in [*silent, *strangers]:
            one.close()

    scenario(body)


def test_a_peer_that_comes_and_goes_is_taken_each_time():
    """A session that begins while the one before it ends: two at a time, one that is closed and one that is reset."""

    async def body():
        node = await HostileNode.begin()
        other = await HostilePeer.established(OTHER)
        for number in range(150):
            peer = await HostilePeer.established()
            if number % 2:
                peer.send(b"nonsense" * 4)
            peer.writer.transport.abort()
            await HostilePeer.connect()
        await lives(node, other)
        await lives(node, await HostilePeer.established())

    scenario(body)
