"""Agreement on the peers of the first ring: Paxos by gossip. Pure.

At the start no peer owns any part of the range. If two groups of peers that cannot reach each other
divided it independently, both would assign the same addresses. So the first division is a
consensus: its value is the list of peers, and it is valid only if a quorum (a majority of the
expected peers) accepted it. Any two majorities share a peer, so a second, different division cannot
be accepted; a minority waits. After the first ring exists Paxos is not needed.

Paxos has two phases (Lamport, "Paxos Made Simple", 2001). A proposer asks for promises for a
proposal number; a peer that promised ignores lower numbers. With promises of a quorum it asks them
to accept a value: the value of the highest proposal that any of them has accepted before, and only
if there is none a value of its own. This is what must hold: once a quorum accepted a value, every
later proposal has the same value.

There are no request and reply messages here. Each node publishes its promise and its accepted
proposal (Claims), all nodes pass on everything they know, and update() and think() decide on that
knowledge alone, as in ipam/paxos of github.com/weaveworks/weave. Gossip may lose, repeat and
reorder; newer claims win in every order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kubewire.components.base import jsontext


class NodeId(NamedTuple):
    """uid: of one start of the process. A process that lost its memory must not act under its old
    promises."""

    name: str
    uid: int


class Proposal(NamedTuple):
    """Ordered by round; round 0 precedes all."""

    round: int = 0
    name: str = ""
    uid: int = 0


_NONE = Proposal()


@dataclass(frozen=True, slots=True)
class Claims:
    """promise, accepted, value: as in Paxos. origin: the proposal in which the value first
    appeared."""

    promise: Proposal = _NONE
    accepted: Proposal = _NONE
    value: tuple[str, ...] = ()
    origin: Proposal = _NONE


class Node:
    """One participant. knows: the newest claims of every node it has heard of, and its own."""

    def __init__(self, name: str, uid: int, quorum: int) -> None:
        self.id = NodeId(name, uid)
        self.quorum = quorum
        self.knows: dict[NodeId, Claims] = {}

    @property
    def _own(self) -> Claims:
        return self.knows.get(self.id, Claims())

    def propose(self) -> None:
        """Prepares a proposal with a higher number than all known ones."""
        highest = max(
            (max(c.promise.round, c.accepted.round) for c in self.knows.values()),
            default=0,
        )
        self.knows[self.id] = replace(self._own, promise=Proposal(highest + 1, *self.id))
        self.think()

    def update(self, others: dict[NodeId, Claims]) -> bool:
        """Merges what other nodes know. Returns True if any of it is new."""
        changed = False
        for node, theirs in others.items():
            mine = self.knows.get(node)
            merged = theirs if mine is None else _newest(mine, theirs)
            if merged != mine:
                self.knows[node] = merged
                changed = True
        return changed

    def think(self) -> bool:
        """Promises, proposes, accepts. Returns True if the node's own claims have changed."""
        before = self._own
        own = replace(
            before,
            promise=max([before.promise, *(c.promise for c in self.knows.values())]),
        )
        self.knows[self.id] = own
        if own.promise[1:] == self.id and own.accepted != own.promise:
            own = self._with_proposed_value(own)
        for claims in self.knows.values():
            if claims.accepted == own.promise != _NONE and own.accepted != own.promise:
                own = replace(
                    own,
                    accepted=claims.accepted,
                    value=claims.value,
                    origin=claims.origin,
                )
        self.knows[self.id] = own
        return own != before

    def _with_proposed_value(self, own: Claims) -> Claims:
        """Once a quorum has promised: accepts the value of its latest accepted proposal, else all
        known peers."""
        promised = [claims for claims in self.knows.values() if claims.promise == own.promise]
        if len(promised) < self.quorum:
            return own
        latest = max(promised, key=lambda claims: claims.accepted)
        if latest.accepted != _NONE:
            return replace(own, accepted=own.promise, value=latest.value, origin=latest.origin)
        names = tuple(sorted({node.name for node in self.knows}))
        return replace(own, accepted=own.promise, value=names, origin=own.promise)

    def consensus(self) -> tuple[str, ...] | None:
        """The value that a quorum has accepted, or None."""
        counts: dict[Proposal, int] = {}
        for claims in self.knows.values():
            if claims.accepted != _NONE:
                counts[claims.origin] = counts.get(claims.origin, 0) + 1
                if counts[claims.origin] >= self.quorum:
                    return claims.value
        return None

    def encode(self) -> list[Any]:
        return [
            [list(node), list(c.promise), list(c.accepted), list(c.value), list(c.origin)]
            for node, c in self.knows.items()
        ]


def decode(data: list[Any]) -> dict[NodeId, Claims]:
    """Raises ValueError or TypeError if encode() did not write the data."""
    decoded: dict[NodeId, Claims] = {}
    for entry in data:
        node, promise, accepted, value, origin = jsontext.typed(entry, *(5 * [list]))
        rounds = (
            Proposal(*jsontext.typed(proposal, int, str, int))
            for proposal in (promise, accepted, origin)
        )
        promised, agreed, first = rounds
        if agreed != _NONE and not value:
            raise ValueError("an accepted proposal has a value")
        value = tuple(jsontext.typed(value, *(str for _ in value)))
        decoded[NodeId(*jsontext.typed(node, str, int))] = Claims(promised, agreed, value, first)
    return decoded


def _newest(mine: Claims, theirs: Claims) -> Claims:
    merged = replace(mine, promise=max(mine.promise, theirs.promise))
    if mine.accepted < theirs.accepted:
        merged = replace(merged, accepted=theirs.accepted, value=theirs.value, origin=theirs.origin)
    return merged
