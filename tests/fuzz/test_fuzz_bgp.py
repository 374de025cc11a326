"""BGP: what a peer sends becomes messages that os-ken reads, or the NOTIFICATION that ends the session."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import bgp

from kubewire.components.bgp import messages
from kubewire.components.bgp.messages import ProtocolError, Session
from tests.components.bgp.hostile import GOOD, KEEPALIVE, OTHER, PEER, HostileNode, HostilePeer, opened, update
from tests.components.bgp.test_messages import MP_REACH
from tests.fuzz.mutation import mutated
from tests.scratch import isolated

COMMUNITIES = b"\xc0\x08\x08\xfd\xe9\x00\x01\xfd\xe9\x00\x02"
EXTENDED = b"\xc0\x10\x10\x00\x02\xfd\xe9\x00\x00\x00\x01\x43\x0c\x00\x00\x00\x00\x00\x08"
AGGREGATOR = b"\xc0\x07\x08\x00\x00\xfd\xe9\x0a\x00\x01\x02"
MP_UNREACH = b"\x80\x0f\x08\x00\x02\x01\x20\x20\x01\x0d\xb9"
UPDATES = (
    update(b"\x18\x0a\x09\x01\x14\xac\x1e\x10", GOOD + COMMUNITIES + EXTENDED + AGGREGATOR),
    update(b"", GOOD[:13] + MP_UNREACH + MP_REACH),
    update(b"\x10\xac\x1e", GOOD + b"\x80\x04\x04\x00\x00\x00\x01\xc0\xc8\x03abc", withdrawn=b"\x18\x0a\x09\x02"),
    update(b"\x08\x0a", GOOD + b"\x40\x05\x04\x00\x00\x00\x64\x80\x09\x04\x0a\x00\x00\x01\x80\x0a\x04\x0a\x00\x00\x02"),
    update(
        b"\x08\x0a",
        b"\x40\x01\x01\x00\x40\x02\x06\x02\x02\xfd\xe9\x00\x07" + GOOD[13:] + b"\xc0\x11\x06\x02\x01\x00\x01\x00\x01",
    ),
    update(b"", b""),
)
REFRESH = messages.message(messages.ROUTE_REFRESH, b"\x00\x01\x00\x01")
OPENS = (
    opened(),
    opened(b"\x02\x14\x01\x04\x00\x02\x00\x01\x02\x00\x40\x06\x00\x78\x00\x01\x01\x80\x41\x04\x00\x00\xfd\xe9"),
    opened(b"\xff\x00\x0f\x02\x00\x0c\x01\x04\x00\x01\x00\x01\x41\x04\x00\x00\xfd\xe9"),
)
SESSIONS = [Session(four, external) for four in (True, False) for external in (True, False)]


def read(data: bytes, session: Session) -> None:
    """All of a stream, as session.Connection takes it."""
    rest = data
    while True:
        whole, rest = messages.split(rest)
        if whole is None:
            return
        kind = whole[messages.HEADER - 1]
        accepted: tuple[bytes, ...] = (whole,)
        if kind == messages.OPEN:
            accepted = (messages.accepted_open(whole),)
            assert messages.accepted_open(accepted[0]) == accepted[0]
        elif kind == messages.UPDATE:
            accepted = messages.accepted_update(whole, session).messages
        for one in accepted:
            decoded, _, _ = bgp.BGPMessage.parser(one)
            if kind == messages.UPDATE:
                if session.four_octet_as:  # of two octets there may be an AS4_PATH, which others may not send
                    again = messages.accepted_update(one, session)
                    assert again.messages == (one,), "what is accepted once is accepted as it is"
                for prefix in [*decoded.nlri, *decoded.withdrawn_routes]:
                    assert prefix.length <= 32


def takes(data: bytes, session: Session) -> None:
    with contextlib.suppress(ProtocolError):
        read(data, session)


@given(st.sampled_from(SESSIONS), st.sampled_from([1, 2, 3, 4, 5]), st.binary(max_size=200))
def test_any_body(session: Session, kind: int, body: bytes) -> None:
    takes(messages.message(kind, body), session)


def test_mutated_streams(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    for _ in range(examples):
        corpus = chance.choice((UPDATES, OPENS, (*UPDATES, *OPENS)))
        data = mutated(chance, corpus)
        if chance.random() < 0.7 and len(data) >= messages.HEADER:  # the header right, the rest wrong
            kind = data[18] if 1 <= data[18] <= 5 else 2
            data = messages.message(kind, data[messages.HEADER : 4000])
        timely(partial(takes, data, chance.choice(SESSIONS)))


@pytest.mark.packet
def test_a_live_session(examples: int, chance: random.Random) -> None:
    """A peer that mutates what it sends, and one that does not: the daemon serves the other one all the time."""

    async def body() -> None:
        node = await HostileNode.begin(announce=["10.1.0.0/24"])
        other = await HostilePeer.established(OTHER)
        reading = asyncio.create_task(swallow(other))
        peer = await HostilePeer.established(PEER)
        files = memory = answered = 0
        for number in range(examples):
            if number == examples // 4:
                files, memory = node.open_files(), node.resident()
            data = mutated(chance, UPDATES, most=3)
            if len(data) >= messages.HEADER and chance.random() < 0.9:
                data = messages.message(2, data[messages.HEADER : 4000])
            if number % 8 == 0:
                other.send(KEEPALIVE)
            try:
                # The daemon's answer to the second one says that it has read the first one.
                peer.send(data + REFRESH)
                async with asyncio.timeout(2):
                    while await peer.heard() != messages.UPDATE:
                        pass
                answered += 1
            except (OSError, EOFError):
                peer.close()
                peer = await HostilePeer.established(PEER)
        other.send(update(b"\x18\xc0\xa8\x07"))
        async with asyncio.timeout(20):
            while "192.168.7.0/24" not in await node.kernel_routes():
                assert node.daemon.returncode is None, node.log.read_text()[-3000:]
                await asyncio.sleep(0.05)
        assert await node.is_up("other")
        assert "by a fault" not in node.log.read_text(), node.log.read_text()[-3000:]
        assert answered > examples // 4
        assert node.open_files() <= files + 3
        assert node.resident() < memory + 32 * 1024
        reading.cancel()

    async def swallow(peer: HostilePeer) -> None:
        while await peer.reader.read(65536):
            pass

    isolated(lambda: asyncio.run(body()), timeout=30 + examples / 20)
