"""What peers tell each other of the topology and of the ring: news at once, and now and then everything to a few."""

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

#: Seconds for which news of the ring, and changes of links, are gathered before they are told; until a new peer is
#: told of the others.
_GATHER, _GATHER_LINKS, _INTRODUCE = 0.02, 0.1, 1.0
_MOST_HOPS = 8


class Gossip:
    """interval: seconds between two rounds of the periodic gossip."""

    def __init__(self, name: str, topology: Topology, allocator: Allocator, mesh: Mesh, interval: float) -> None:
        self._name, self._topology, self._allocator, self._mesh = name, topology, allocator, mesh
        self._interval = interval
        self._links_to_tell = False
        self._news_of: set[str] = set()

    def greet(self, connection: Connection) -> None:
        """The first words to a new peer: this peer's own links, and the ring."""
        connection.send(wire.TOPOLOGY, _topology([self._topology.own]))
        connection.send(wire.IPAM, _json(self._allocator.encode()))
        # In a full mesh every peer describes itself; only those that the new peer still does not know are described.
        asyncio.get_running_loop().call_later(_INTRODUCE, self._introduce, connection)

    def _introduce(self, connection: Connection) -> None:
        connection.send(wire.TOPOLOGY, _topology(self._topology.unknown_to(connection.peer)))

    def received(self, connection: Connection, kind: int, body: bytes) -> None:
        """A message about topology or ring. Raises what a malformed one makes the decoders raise."""
        if kind == wire.TOPOLOGY:
            if news := self._topology.merge(Peer.decode(one) for one in json.loads(body)):
                self._mesh.broadcast(wire.TOPOLOGY, _topology(news), self._have_it(connection.peer))
                self._allocator.retry = True  # a peer may be there that was not
        elif kind == wire.IPAM:
            self._allocator.receive(connection.peer, json.loads(body))
        elif kind == wire.UNICAST:
            self._route(json.loads(body))

    def links_changed(self) -> None:
        """Tells the own links soon: connections come in bursts, and are told once for all of them."""
        if not self._links_to_tell:
            self._links_to_tell = True
            asyncio.get_running_loop().call_later(_GATHER_LINKS, self._tell_links)

    def _have_it(self, sender: str) -> set[str]:
        """The peers that already have a broadcast of sender: a full mesh never relays."""
        return {sender, *self._topology.neighbours(sender)} if sender else set()

    def _route(self, message: dict[str, Any]) -> None:
        """Takes a message, or passes it on to the peer it is for."""
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
        """Sends a message of the allocator's: to its peer at once, to all of them a little later."""
        if not message.to:
            if not self._news_of:
                asyncio.get_running_loop().call_later(_GATHER, self._tell_news)
            self._news_of.add(message.heard_from)
            return
        body = {"from": self._name, "to": message.to, "hops": 0, "body": message.body}
        hop = message.to if message.to in self._mesh.connections else self._topology.next_hop(message.to)
        self._mesh.send(hop, wire.UNICAST, _json(body))

    def _tell_news(self) -> None:
        """Sends the allocator's present state to the peers that cannot have all of it yet."""
        told = set.intersection(*(self._have_it(sender) for sender in self._news_of))
        self._news_of = set()
        self._mesh.broadcast(wire.IPAM, _json(self._allocator.encode()), told)

    async def run(self) -> None:
        """Repeats everything to a few peers now and then, until cancelled (mesh: log2 of the number of peers)."""
        while True:
            await asyncio.sleep(self._interval)
            some = list(self._mesh.connections.values())
            for connection in random.sample(some, min(len(some), 1 + int(math.log2(len(some) + 1)))):
                connection.send(wire.TOPOLOGY, _topology(self._topology.peers()))
                connection.send(wire.IPAM, _json(self._allocator.encode()))


def _topology(peers: Iterable[Peer]) -> bytes:
    return _json([peer.encode() for peer in peers])


def _json(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
