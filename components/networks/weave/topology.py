"""The graph of connections, as each peer describes its own, and the next hop to every reachable
peer. Pure.

A peer reports only its own connections and raises its version with every change, so newer reports
win. Messages to a peer without a direct connection take the shortest way.
(github.com/weaveworks/mesh, peers.go and routes.go.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kubewire.components.base import jsontext


@dataclass(frozen=True)
class Link:
    """A connection as one of its ends sees it. address: of the other end, with its port."""

    peer: str
    address: str
    outbound: bool
    established: bool


@dataclass(frozen=True)
class Peer:
    """A peer's report about itself; it raises the version with every change."""

    name: str
    nickname: str
    uid: int
    version: int = 0
    links: tuple[Link, ...] = ()

    @cached_property
    def linked(self) -> frozenset[str]:
        """The peers it is connected to."""
        return frozenset(link.peer for link in self.links)

    def encode(self) -> list[Any]:
        links = [
            [link.peer, link.address, int(link.outbound), int(link.established)]
            for link in self.links
        ]
        return [self.name, self.nickname, self.uid, self.version, links]

    @classmethod
    def decode(cls, data: list[Any]) -> Peer:
        """Raises TypeError or ValueError if the data is not a peer."""
        name, nickname, uid, version, links = jsontext.typed(data, str, str, int, int, list)
        given = (jsontext.typed(link, str, str, int, int) for link in links)
        known = tuple(
            Link(peer, address, bool(out), bool(there)) for peer, address, out, there in given
        )
        return cls(name, nickname, uid, version, known)


class Topology:
    """This peer, and the peers reachable from it. Ways are computed only for peers without a direct
    connection."""

    def __init__(self, own: Peer) -> None:
        self._own = own.name
        self._peers = {own.name: own}
        self._ways: dict[str, str] | None = None

    @property
    def own(self) -> Peer:
        return self._peers[self._own]

    def peers(self) -> list[Peer]:
        """The reachable peers, this one first."""
        self._forget_unreachable()
        return list(self._peers.values())

    def set_links(self, links: Iterable[Link]) -> bool:
        """Sets this peer's connections. Returns True if they have changed."""
        now = tuple(sorted(links, key=lambda link: link.peer))
        if self.own.links == now:
            return False
        self._peers[self._own] = replace(self.own, version=self.own.version + 1, links=now)
        self._ways = None
        self._forget_unreachable()
        return True

    def merge(self, peers: Iterable[Peer]) -> list[Peer]:
        """Merges reports and returns those that are news."""
        news = []
        for peer in peers:
            known = self._peers.get(peer.name)
            if peer.name == self._own:
                if (
                    peer != self.own and peer.version >= self.own.version
                ):  # from before a restart: get ahead of it
                    self._peers[self._own] = replace(self.own, version=peer.version + 1)
                    news.append(self.own)
            elif known is None or (known.version, known.uid) < (peer.version, peer.uid):
                self._peers[peer.name] = peer
                news.append(peer)
        if news:
            self._ways = None
        return news

    def unknown_to(self, name: str) -> list[Peer]:
        """The peers that a neighbour cannot have heard of directly, because it is not connected to
        them."""
        told = {name, *self.neighbours(name)}
        return [peer for peer in self.peers() if peer.name not in told or peer.name == self._own]

    def knows(self, name: str) -> bool:
        """Tells whether a peer can be reached."""
        return name == self._own or bool(self.next_hop(name))

    def neighbours(self, name: str) -> frozenset[str]:
        """The peers that a peer reports a connection to."""
        peer = self._peers.get(name)
        return peer.linked if peer else frozenset()

    def next_hop(self, target: str) -> str:
        """The first neighbour on a shortest way to a peer; "" if there is none."""
        if target in self.own.linked:
            return target
        if self._ways is None:
            self._ways = self._found_ways()
        return self._ways.get(target, "")

    def _forget_unreachable(self) -> None:
        self._peers = {name: peer for name, peer in self._peers.items() if self.knows(name)}

    def _found_ways(self) -> dict[str, str]:
        """Reachable peer -> first hop. A connection counts if both ends report it, or one end has
        not reported yet."""
        ways: dict[str, str] = {}
        queue = deque([self._own])
        while queue:
            name = queue.popleft()
            for other in sorted(self.neighbours(name) - ways.keys() - {self._own}):
                if (
                    name == self._own
                    or other not in self._peers
                    or name in self._peers[other].linked
                ):
                    ways[other] = ways.get(name, other)
                    queue.append(other)
        return ways
