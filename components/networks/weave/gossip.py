"""Gossip about the topology and the ring: changes go out soon, and the full state regularly goes to
a few peers."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Iterable
from typing import Any

from kubewire.components.networks.weave import wire
from kubewire.components.networks.weave.allocator import Allocator, Message
from kubewire.components.networks.weave.mesh import Connection, Mesh
from kubewire.components.networks.weave.topology import Peer, Topology

#: Seconds for which changes of the ring are collected before they are sent.
_GATHER = 0.02
#: Seconds for which changes of links are collected before they are sent.
_GATHER_LINKS = 0.1
#: Seconds until a new peer is told of the peers that it does not know.
_INTRODUCE = 1.0
_MOST_HOPS = 8


class Gossip:
    """interval: seconds between two rounds of the periodic gossip."""

    def __init__(
        self, name: str, topology: Topology, allocator: Allocator, mesh: Mesh, interval: float
    ) -> None:
        self._name, self._topology, self._allocator, self._mesh = name, topology, allocator, mesh
        self._interval = interval
        self._links_to_tell = False
        self._news_of: set[str] = set()

    def greet(self, connection: Connection) -> None:
        """Sends this peer's own links and the ring to a new peer."""
        connection.send(wire.TOPOLOGY, _topology([self._topology.own]))
        connection.send(wire.IPAM, _json(self._allocator.encode()))
        # In a full mesh every peer announces itself; peers outside it are announced once they are
        # known.
        asyncio.get_running_loop().call_later(_INTRODUCE, self._introduce, connection)

    def _introduce(self, connection: Connection) -> None:
        connection.send(wire.TOPOLOGY, _topology(self._topology.unknown_to(connection.peer)))

    def received(self, connection: Connection, kind: int, body: bytes) -> None:
        """Handles a message about the topology or the ring. Raises the decoders' errors if it is
        malformed."""
        if kind == wire.TOPOLOGY:
            if news := self._topology.merge(Peer.decode(one) for one in json.loads(body)):
                self._mesh.broadcast(wire.TOPOLOGY, _topology(news), self._have_it(connection.peer))
                self._allocator.retry = True  # a new peer may have free addresses
        elif kind == wire.IPAM:
            self._allocator.receive(connection.peer, json.loads(body))
        elif kind == wire.UNICAST:
            self._route(json.loads(body))

    def links_changed(self) -> None:
        """Announces this peer's links soon: connections come in bursts, and one message announces
        all of them."""
        if not self._links_to_tell:
            self._links_to_tell = True
            asyncio.get_running_loop().call_later(_GATHER_LINKS, self._tell_links)

    def _have_it(self, sender: str) -> set[str]:
        """The peers that already have a broadcast of sender; a full mesh never relays."""
        return {sender, *self._topology.neighbours(sender)} if sender else set()

    def _route(self, message: dict[str, Any]) -> None:
        """Accepts a message for this peer; forwards a message for another peer to the next hop."""
        if not isinstance(message["to"], str) or type(message["hops"]) is not int:
            raise TypeError("to and hops of a message for another peer")
        if message["to"] == self._name:
            self._allocator.receive(message["from"], message["body"])
        elif message["hops"] < _MOST_HOPS:
            again = _json({**message, "hops": message["hops"] + 1})
            self._mesh.send(self._topology.next_hop(message["to"]), wire.UNICAST, again)

    def _tell_links(self) -> None:
        self._links_to_tell = False
        self._mesh.broadcast(wire.TOPOLOGY, _topology([self._topology.own]))

    def say(self, message: Message) -> None:
        """Sends one of the allocator's messages: at once if it is for one peer, after _GATHER if it
        is for all."""
        if not message.to:
            if not self._news_of:
                asyncio.get_running_loop().call_later(_GATHER, self._tell_news)
            self._news_of.add(message.heard_from)
            return
        body = {"from": self._name, "to": message.to, "hops": 0, "body": message.body}
        hop = (
            message.to
            if message.to in self._mesh.connections
            else self._topology.next_hop(message.to)
        )
        self._mesh.send(hop, wire.UNICAST, _json(body))

    def _tell_news(self) -> None:
        """Sends the allocator's state to the peers for which any part of it is new."""
        told = set.intersection(*(self._have_it(sender) for sender in self._news_of))
        self._news_of = set()
        self._mesh.broadcast(wire.IPAM, _json(self._allocator.encode()), told)

    async def run(self) -> None:
        """Repeats the full state to a few peers, in case a message was lost (mesh: log2 of the
        number of peers).

        Runs until cancelled.
        """
        while True:
            await asyncio.sleep(self._interval)
            some = list(self._mesh.connections.values())
            for connection in random.sample(
                some, min(len(some), 1 + int(math.log2(len(some) + 1)))
            ):
                connection.send(wire.TOPOLOGY, _topology(self._topology.peers()))
                connection.send(wire.IPAM, _json(self._allocator.encode()))


def _topology(peers: Iterable[Peer]) -> bytes:
    return _json([peer.encode() for peer in peers])


def _json(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
