"""Who owns which part of the range: a replicated ring of tokens. Pure.

A token begins a peer's part, which goes on to the next token; the last one ends where the range does. Only a part's
owner changes its entry (gives it away, reports what is free), and raises its version; so of two versions the higher one
is true, and no address has two owners. The one exception is transfer(), for owners that are dead.
(github.com/weaveworks/weave, ipam/ring and docs "IP Address Management"; Chord's ring, the CRDT's merge.)
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

from kubewire.components.base import jsontext
from kubewire.components.networks.weave.space import Range

#: transfer() raises versions by this, to be ahead of what the dead peer may have said last.
_TRANSFER = 100


class RingConflict(Exception):
    """What came from a peer cannot be true together with what is here. The connection it came by is of no use."""


@dataclass(frozen=True, slots=True)
class Entry:
    """free: addresses of the part that nobody has, as its owner has last said."""

    token: int
    peer: str
    version: int = 0
    free: int = 0


class Ring:
    """peer: whose copy this is. Entries are sorted; the first token is the range's start."""

    def __init__(self, universe: Range, peer: str, entries: Sequence[Entry] = (), seeds: Sequence[str] = ()) -> None:
        self.universe = universe
        self.peer = peer
        self.entries = list(entries)
        self.seeds = list(seeds)

    # --- questions

    @property
    def is_empty(self) -> bool:
        return not self.entries

    def parts(self) -> Iterator[tuple[Entry, Range]]:
        """Each entry with what it begins."""
        ends = [entry.token for entry in self.entries[1:]] + [self.universe.end]
        for entry, end in zip(self.entries, ends, strict=False):
            yield entry, Range(entry.token, end)

    def owned_by(self, peer: str) -> list[Range]:
        return [part for entry, part in self.parts() if entry.peer == peer]

    def owner(self, address: int) -> str:
        """ "" while the ring is empty."""
        return self.entries[self._position(address)].peer if self.entries else ""

    def peers(self) -> set[str]:
        return {entry.peer for entry in self.entries}

    def peers_to_ask(self, within: Range, chance: random.Random) -> list[str]:
        """Others with something free there, by lot; who has more comes first more often."""
        weights: dict[str, int] = {}
        for entry, part in self.parts():
            if entry.peer != self.peer and entry.free and part.intersection(within):
                weights[entry.peer] = weights.get(entry.peer, 0) + entry.free
        drawn = {peer: chance.random() * weight for peer, weight in sorted(weights.items())}
        return sorted(drawn, key=lambda peer: drawn[peer], reverse=True)

    # --- changes of what is ours

    def claim(self, peers: Sequence[str]) -> None:
        """The first ring: the range is halved among the peers until each has a part. Only for an empty one."""
        assert self.is_empty and peers
        self.seeds = list(peers)
        self._divide(self.universe, self.seeds)

    def _divide(self, part: Range, peers: Sequence[str]) -> None:
        if part.size <= 1 or len(peers) == 1:
            if part.size:
                self.entries.append(Entry(part.start, peers[0], free=part.size))
            return
        middle = part.start + part.size // 2
        half = len(peers) // 2
        self._divide(Range(part.start, middle), peers[:half])
        self._divide(Range(middle, part.end), peers[half:])

    def grant(self, given: Range, to: str) -> None:
        """A piece of what is ours becomes another's."""
        first = self._position(given.start)
        last = self._position(given.end - 1)
        assert given.size > 0 and all(entry.peer == self.peer for entry in self.entries[first : last + 1])
        self._cut(given.start)
        if given.end < self.universe.end:
            self._cut(given.end)
        for position, (entry, part) in enumerate(list(self.parts())):
            if given.start <= entry.token < given.end:
                self.entries[position] = replace(
                    entry,
                    peer=to,
                    version=entry.version + 1,
                    free=part.size,
                )

    def _cut(self, token: int) -> None:
        """A token where our part can be given away; the part before it becomes shorter, which is a change of it."""
        position = self._position(token)
        before = self.entries[position]
        if before.token == token:
            return
        rest = list(self.parts())[position][1].end - token
        self.entries[position] = replace(
            before,
            version=before.version + 1,
            free=min(before.free, token - before.token),
        )
        self.entries.insert(position + 1, Entry(token, self.peer, free=rest))

    def report_free(self, free: Callable[[Range], int]) -> bool:
        """Our entries with what is free now; whether anything changed."""
        changed = False
        for position, (entry, part) in enumerate(list(self.parts())):
            if entry.peer == self.peer and entry.free != (now := free(part)):
                self.entries[position] = replace(entry, version=entry.version + 1, free=now)
                changed = True
        return changed

    def transfer(self, dead: str, heir: str) -> list[Range]:
        """All that a peer has becomes another's, without asking it: for peers that never come back (`weave rmpeer`)."""
        found = self.owned_by(dead)
        self.entries = [
            replace(entry, peer=heir, version=entry.version + _TRANSFER) if entry.peer == dead else entry
            for entry in self.entries
        ]
        return found

    # --- merging

    def merge(self, other: Ring, has_allocations: Callable[[Range], bool]) -> bool:
        """Take what the other copy knows better; whether anything changed.

        What others say about our own parts is believed where no address of them is in use, so that two copies that
        have come apart can meet again. Raises RingConflict, and nothing has changed then.
        """
        if other.universe != self.universe:
            raise RingConflict(
                f"Incompatible IP allocation ranges (received: {other.universe}, ours: {self.universe})",
            )
        if self.seeds and other.seeds and self.seeds != other.seeds:
            raise RingConflict(
                f"IP allocation was seeded by different peers (received: {other.seeds}, ours: {self.seeds})",
            )
        other.check()
        merged = Ring(
            self.universe,
            self.peer,
            self._merged(other, has_allocations),
            self.seeds or other.seeds,
        )
        merged._shorten()
        merged.check()
        changed = merged.entries != self.entries
        self.entries = merged.entries
        self.seeds = merged.seeds
        return changed

    def _merged(self, other: Ring, has_allocations: Callable[[Range], bool]) -> list[Entry]:
        mine = {entry.token: (entry, part) for entry, part in self.parts()}
        theirs = {entry.token: entry for entry in other.entries}
        result: list[Entry] = []
        tokens = sorted(mine.keys() | theirs.keys())
        for token, following in zip(tokens, [*tokens[1:], self.universe.end], strict=False):
            received = theirs.get(token)
            if token not in mine:
                assert received is not None
                self._check_cut(received, Range(token, following), has_allocations)
                result.append(received)
            elif received is None:
                result.append(mine[token][0])
            else:
                result.append(self._newer(*mine[token], received, has_allocations))
        return result

    def _check_cut(self, received: Entry, piece: Range, has_allocations: Callable[[Range], bool]) -> None:
        """A token inside of a part of ours that we know nothing of."""
        if received.peer != self.peer and self.owner(received.token) == self.peer and has_allocations(piece):
            raise RingConflict(
                f"Peer {received.peer} says it owns the IP range from {IPv4Address(received.token)}, "
                "which I think I own",
            )

    def _newer(self, mine: Entry, part: Range, theirs: Entry, has_allocations: Callable[[Range], bool]) -> Entry:
        if mine == theirs or theirs.version < mine.version:
            return mine
        if mine.peer != self.peer:
            # One version, one truth; unless two have taken over the same dead peer: then the same one wins everywhere.
            return max(mine, theirs, key=lambda entry: (entry.version, entry.free, entry.peer))
        if theirs.peer == self.peer:
            return replace(mine, version=max(mine.version, theirs.version) + 1)
        if has_allocations(part):
            raise RingConflict(
                f"Received update for IP range I own at {IPv4Address(mine.token)} v{mine.version}: "
                f"incoming message says owner {theirs.peer} v{theirs.version}",
            )
        return max(mine, theirs, key=lambda entry: (entry.version, entry.free, entry.peer))

    def _shorten(self) -> None:
        """No part has more free than it is long: cut by a token that was not known here."""
        self.entries = [
            replace(entry, free=part.size) if entry.free > part.size else entry for entry, part in self.parts()
        ]

    def check(self) -> None:
        """Raises RingConflict for what is no ring."""
        tokens = [entry.token for entry in self.entries]
        if tokens != sorted(set(tokens)):
            raise RingConflict("Ring not sorted, or a token appears twice in it")
        if tokens and (tokens[0] != self.universe.start or tokens[-1] >= self.universe.end):
            raise RingConflict("Token is out of range")
        for entry, part in self.parts():
            if entry.free > part.size:
                raise RingConflict(
                    f"Entry {part} reporting too much free space: {entry.free} > {part.size}",
                )

    def _position(self, address: int) -> int:
        return bisect_right(self.entries, address, key=lambda entry: entry.token) - 1

    # --- as JSON

    def encode(self) -> dict[str, Any]:
        return {
            "range": list(self.universe),
            "seeds": self.seeds,
            "entries": [[entry.token, entry.peer, entry.version, entry.free] for entry in self.entries],
        }

    @classmethod
    def decode(cls, data: dict[str, Any], peer: str) -> Ring:
        """Raises RingConflict for what is no ring."""
        try:
            entries = [Entry(*jsontext.typed(entry, int, str, int, int)) for entry in data["entries"]]
            universe = Range(*jsontext.typed(data["range"], int, int))
            seeds = data["seeds"]
            ring = cls(universe, peer, entries, jsontext.typed(seeds, *(str for _ in seeds)))
        except (KeyError, TypeError, ValueError) as error:
            raise RingConflict(f"not a ring: {error}") from None
        ring.check()
        return ring
