"""Who is connected to whom, as each peer says of itself; who can be reached, and by which neighbour. Pure.

(github.com/weaveworks/mesh, peers.go and routes.go.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Link:
    """A connection as one of its two ends has it. address: of the other end, with its port."""

    peer: str
    address: str
    outbound: bool
    established: bool


@dataclass(frozen=True)
class Peer:
    """What a peer says of itself; it raises the version with each change."""

    name: str
    nickname: str
    uid: int
    version: int = 0
    links: tuple[Link, ...] = ()

    @classmethod
    def decode(cls, data: dict[str, Any]) -> Peer:
        """Raises TypeError, KeyError for what is no peer."""
        return cls(**{**data, "links": tuple(Link(**link) for link in data["links"])})


class Topology:
    """peers: oneself, and those that can be reached from here."""

    def __init__(self, own: Peer) -> None:
        self.own = own.name
        self.peers = {own.name: own}

    def set_links(self, links: Iterable[Link]) -> bool:
        """Our own connections; whether they have changed."""
        own, now = self.peers[self.own], tuple(sorted(links, key=lambda link: link.peer))
        if own.links == now:
            return False
        self.peers[self.own] = replace(own, version=own.version + 1, links=now)
        self._forget_unreachable()
        return True

    def merge(self, peers: Iterable[Peer]) -> bool:
        """What others say; whether something of it is news."""
        before = dict(self.peers)
        for peer in peers:
            known = self.peers.get(peer.name)
            if peer.name == self.own:
                own = self.peers[self.own]
                if peer != own and peer.version >= own.version:  # of our former self: be ahead of it
                    self.peers[self.own] = replace(own, version=peer.version + 1)
            elif known is None or (known.version, known.uid) < (peer.version, peer.uid):
                self.peers[peer.name] = peer
        self._forget_unreachable()
        return self.peers != before

    def encode(self) -> list[dict[str, Any]]:
        return [asdict(peer) for peer in self.peers.values()]

    def knows(self, name: str) -> bool:
        return name in self.peers

    def next_hop(self, target: str) -> str:
        """The neighbour that is next on a shortest way; "" when there is none."""
        return self._ways().get(target, "")

    def _forget_unreachable(self) -> None:
        reached = self._ways()
        self.peers = {name: peer for name, peer in self.peers.items() if name == self.own or name in reached}

    def _ways(self) -> dict[str, str]:
        """Reachable peer -> first hop. A connection counts when both ends have it, or one is not heard of yet."""
        ways: dict[str, str] = {}
        queue = deque([self.own])
        while queue:
            name = queue.popleft()
            for other in self._neighbours(name):
                if other not in ways and other != self.own:
                    ways[other] = ways.get(name, other)
                    queue.append(other)
        return ways

    def _neighbours(self, name: str) -> list[str]:
        peer = self.peers.get(name)
        if peer is None:
            return []
        if name == self.own:
            return [link.peer for link in peer.links]
        return [link.peer for link in peer.links if self._says(link.peer, name)]

    def _says(self, name: str, other: str) -> bool:
        peer = self.peers.get(name)
        return peer is None or any(link.peer == other for link in peer.links)
