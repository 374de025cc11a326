"""Agreement on the peers of the first ring: Paxos by gossip. Pure.

Each node says what it has promised and accepted, everybody passes on all that he knows, and Update/Think of
github.com/weaveworks/weave's ipam/paxos decide on that alone. A minority cannot begin a ring of its own.
(Lamport, "Paxos Made Simple", 2001.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kubewire.components.base import jsontext


class NodeId(NamedTuple):
    """uid: of one start of the process. Who comes back without its memory must not be bound by, nor break, promises."""

    name: str
    uid: int


class Proposal(NamedTuple):
    """Ordered by round; round 0 is before all."""

    round: int = 0
    name: str = ""
    uid: int = 0


_NONE = Proposal()


@dataclass(frozen=True, slots=True)
class Claims:
    """origin: the proposal that has brought the value up."""

    promise: Proposal = _NONE
    accepted: Proposal = _NONE
    value: tuple[str, ...] = ()
    origin: Proposal = _NONE


class Node:
    """One participant. knows: the newest claims of all that it has heard of, its own among them."""

    def __init__(self, name: str, uid: int, quorum: int) -> None:
        self.id = NodeId(name, uid)
        self.quorum = quorum
        self.knows: dict[NodeId, Claims] = {}

    @property
    def _own(self) -> Claims:
        return self.knows.get(self.id, Claims())

    def propose(self) -> None:
        """Prepare: a proposal above all that are known."""
        highest = max(
            (max(c.promise.round, c.accepted.round) for c in self.knows.values()),
            default=0,
        )
        self.knows[self.id] = replace(self._own, promise=Proposal(highest + 1, *self.id))
        self.think()

    def update(self, others: dict[NodeId, Claims]) -> bool:
        """What others know; whether anything of it is new."""
        changed = False
        for node, theirs in others.items():
            mine = self.knows.get(node)
            merged = theirs if mine is None else _newest(mine, theirs)
            if merged != mine:
                self.knows[node] = merged
                changed = True
        return changed

    def think(self) -> bool:
        """Promise, ask for acceptance, accept; whether our claims have changed."""
        before = self._own
        own = replace(
            before,
            promise=max([before.promise, *(c.promise for c in self.knows.values())]),
        )
        self.knows[self.id] = own
        if own.promise[1:] == self.id and own.accepted != own.promise:
            own = self._asked_to_accept(own)
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

    def _asked_to_accept(self, own: Claims) -> Claims:
        """When a quorum has promised: the value that the latest of them has accepted, else all whom we know."""
        promised = [claims for claims in self.knows.values() if claims.promise == own.promise]
        if len(promised) < self.quorum:
            return own
        latest = max(promised, key=lambda claims: claims.accepted)
        if latest.accepted != _NONE:
            return replace(own, accepted=own.promise, value=latest.value, origin=latest.origin)
        names = tuple(sorted({node.name for node in self.knows}))
        return replace(own, accepted=own.promise, value=names, origin=own.promise)

    def consensus(self) -> tuple[str, ...] | None:
        """The value that a quorum has accepted."""
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
    """Raises ValueError, TypeError for what encode() has not written."""
    found: dict[NodeId, Claims] = {}
    for one in data:
        node, promise, accepted, value, origin = jsontext.typed(one, *(5 * [list]))
        rounds = (Proposal(*jsontext.typed(proposal, int, str, int)) for proposal in (promise, accepted, origin))
        promised, agreed, first = rounds
        if agreed != _NONE and not value:
            raise ValueError("an accepted proposal has a value")
        value = tuple(jsontext.typed(value, *(str for _ in value)))
        found[NodeId(*jsontext.typed(node, str, int))] = Claims(promised, agreed, value, first)
    return found


def _newest(mine: Claims, theirs: Claims) -> Claims:
    merged = replace(mine, promise=max(mine.promise, theirs.promise))
    if mine.accepted < theirs.accepted:
        merged = replace(merged, accepted=theirs.accepted, value=theirs.value, origin=theirs.origin)
    return merged
