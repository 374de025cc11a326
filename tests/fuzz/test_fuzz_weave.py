"""Weave: frames, greetings, datagrams, and what peers say of topology, ring and consensus."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.base import jsontext
from kubewire.components.networks.weave import paxos, sleeve, wire
from kubewire.components.networks.weave.allocator import Allocator, Setup
from kubewire.components.networks.weave.ring import RingConflict
from kubewire.components.networks.weave.topology import Peer, Topology
from kubewire.components.networks.weave.wire import Decoder, Hello, Session, WireError
from tests.fuzz.mutation import mutated, mutated_json

NAME, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
HELLO = Hello(OTHER, "worker-2", 7, 9, "ab" * 32).encode()
PEERS = [[OTHER, "worker-2", 7, 3, [[NAME, "10.0.0.1:6783", 1, 1]]]]
RING: dict[str, Any] = {
    "kind": "gossip",
    "nicknames": {OTHER: "worker-2"},
    "ring": {
        "range": [0x0A200000, 0x0A300000],
        "seeds": [NAME, OTHER],
        "entries": [[0x0A200000, NAME, 1, 5], [0x0A280000, OTHER, 2, 6]],
    },
}
CONSENSUS = {
    "kind": "gossip",
    "nicknames": {},
    "paxos": [[[OTHER, 7], [1, OTHER, 7], [1, OTHER, 7], [NAME, OTHER], [1, OTHER, 7]]],
}
SPACE = {"kind": "space request", "range": [0x0A200000, 0x0A200100]}
REFUSED = (RingConflict, ValueError, LookupError, TypeError, AttributeError)


def allocator() -> Allocator:
    setup = Setup(NAME, 1, "worker-1", IPv4Network("10.32.0.0/12"), 2, chance=random.Random(1))
    return Allocator(setup)


def greet(data: bytes) -> None:
    with contextlib.suppress(WireError):
        for kind, body in Decoder().feed(data):
            hello = Hello.decode(body) if kind == wire.HELLO else None
            if hello is not None:
                assert hash((hello.name, hello.uid)) is not None
                wire.session(None, hello, "", outbound=True)
            Session(b"k" * 32, outbound=True).open(kind, body)


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    greet(data)
    with contextlib.suppress(WireError):
        Hello.decode(data)
    if sleeve.tag_of(data):
        sleeve.Tunnel(1, b"", NAME, OTHER).unpack(data)
        sleeve.Tunnel(1, b"k" * 32, NAME, OTHER).unpack(data)


def test_mutated_greetings(
    examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]
) -> None:
    for _ in range(examples):
        body = json.dumps(mutated_json(chance, json.loads(HELLO))).encode() if chance.random() < 0.6 else HELLO
        data = mutated(chance, (wire.frame(wire.HELLO, body), wire.frame(wire.CONFIRM, b"x" * 20)), most=2)
        timely(partial(greet, data))


def test_mutated_gossip(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    """A message is taken as a whole, or refused; what was taken never makes a later, good one fail."""

    def hear(message: Any) -> None:
        mine, topology = allocator(), Topology(Peer(NAME, "worker-1", 1))
        with contextlib.suppress(*REFUSED):
            mine.receive(OTHER, message)
        with contextlib.suppress(*REFUSED):
            topology.merge(Peer.decode(one) for one in message)
        mine.tick()
        json.dumps(mine.encode())
        topology.merge(Peer.decode(one) for one in [[OTHER, "x", 2**40, 2**40, []]])
        topology.next_hop(OTHER)
        with contextlib.suppress(RingConflict):
            mine.receive(OTHER, CONSENSUS)
            mine.receive(OTHER, RING)

    for _ in range(examples):
        message = mutated_json(chance, chance.choice((RING, CONSENSUS, SPACE, PEERS)))
        timely(partial(hear, message))


def test_mutated_consensus(examples: int, chance: random.Random) -> None:
    for _ in range(examples):
        with contextlib.suppress(ValueError, TypeError):
            claims = paxos.decode(mutated_json(chance, CONSENSUS["paxos"]))
            node = paxos.Node(NAME, 1, 2)
            node.update(claims)
            node.think()
            node.encode()


def test_nesting_is_refused() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with contextlib.suppress(ValueError):
            jsontext.parse_object(text)
        with contextlib.suppress(WireError):
            Hello.decode(text.encode())
