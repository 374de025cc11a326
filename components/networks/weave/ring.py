"""The ring: a replicated table of which peer owns which part of the range. Pure.

A token starts a part; the part extends to the next token, the last one to the end of the range. A
peer assigns addresses only from its own parts, so it needs no other peer to do so, and a partition
of the network stops no peer.

All peers hold a copy of the ring and merge the copies that they receive. This converges without any
order of messages (it is a CRDT) because of one rule: only the owner of a part changes its entry
(cuts it, gives it away, reports its free addresses), and each change raises the entry's version. So
for each token the entry with the higher version is the newer truth, and two peers never own one
address. A merge that would break the rule, such as another peer's claim to a part with addresses in
use here, is a RingConflict, and the connection is closed.

The exception is transfer(), for owners that are dead and cannot give their parts away. It raises
versions by a large step, so that it wins over what the dead peer may have said last.
(github.com/weaveworks/weave, ipam/ring and docs "IP Address Management".)
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

#: transfer() raises versions by this much, to be ahead of the dead peer's last messages.
_TRANSFER = 100


class RingConflict(Exception):
    """A received ring contradicts the local one. The connection that it came from must be
    closed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """free: the number of free addresses in the part, as its owner last reported."""

    token: int
    peer: str
    version: int = 0
    free: int = 0


class Ring:
    """peer: the peer whose copy this is. Entries are sorted; the first token is the start of the
    range."""

    def __init__(
        self, universe: Range, peer: str, entries: Sequence[Entry] = (), seeds: Sequence[str] = ()
    ) -> None:
        self.universe = universe
        self.peer = peer
        self.entries = list(entries)
        self.seeds = list(seeds)

    @property
    def is_empty(self) -> bool:
        return not self.entries

    def parts(self) -> Iterator[tuple[Entry, Range]]:
        """Each entry with the part that it starts."""
        ends = [entry.token for entry in self.entries[1:]] + [self.universe.end]
        for entry, end in zip(self.entries, ends, strict=False):
            yield entry, Range(entry.token, end)

    def owned_by(self, peer: str) -> list[Range]:
        return [part for entry, part in self.parts() if entry.peer == peer]

    def owner(self, address: int) -> str:
        """The owner of an address; "" while the ring is empty."""
        return self.entries[self._position(address)].peer if self.entries else ""

    def peers(self) -> set[str]:
        return {entry.peer for entry in self.entries}

    def peers_to_ask(self, within: Range, chance: random.Random) -> list[str]:
        """Other peers with free addresses there, in random order; those with more come first more
        often."""
        weights: dict[str, int] = {}
        for entry, part in self.parts():
            if entry.peer != self.peer and entry.free and part.intersection(within):
                weights[entry.peer] = weights.get(entry.peer, 0) + entry.free
        drawn = {peer: chance.random() * weight for peer, weight in sorted(weights.items())}
        return sorted(drawn, key=lambda peer: drawn[peer], reverse=True)

    def claim(self, peers: Sequence[str]) -> None:
        """Makes the first ring: halves the range among the peers until each has a part. The ring
        must be empty."""
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
        """Gives a piece of an own part to another peer."""
        first = self._position(given.start)
        last = self._position(given.end - 1)
        assert given.size > 0 and all(
            entry.peer == self.peer for entry in self.entries[first : last + 1]
        )
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
        """Cuts an own part at a token. The part before it becomes shorter, which also is a change
        of that entry."""
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
        """Updates the free counts of own entries. Returns True if any changed."""
        changed = False
        for position, (entry, part) in enumerate(list(self.parts())):
            if entry.peer == self.peer and entry.free != (now := free(part)):
                self.entries[position] = replace(entry, version=entry.version + 1, free=now)
                changed = True
        return changed

    def transfer(self, dead: str, heir: str) -> list[Range]:
        """Gives all parts of a dead peer to another one, without its consent (`weave rmpeer`)."""
        taken = self.owned_by(dead)
        self.entries = [
            replace(entry, peer=heir, version=entry.version + _TRANSFER)
            if entry.peer == dead
            else entry
            for entry in self.entries
        ]
        return taken

    def merge(self, other: Ring, has_allocations: Callable[[Range], bool]) -> bool:
        """Takes over the newer entries of another copy. Returns True if anything changed.

        A newer claim of another peer to an own part is accepted if none of its addresses are in
        use, so that diverged copies can converge again. Raises RingConflict without changing
        anything.
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

    def _check_cut(
        self, received: Entry, piece: Range, has_allocations: Callable[[Range], bool]
    ) -> None:
        """Checks an unknown token inside an own part."""
        if (
            received.peer != self.peer
            and self.owner(received.token) == self.peer
            and has_allocations(piece)
        ):
            raise RingConflict(
                f"Peer {received.peer} says it owns the IP range from {IPv4Address(received.token)}, "
                "which I think I own",
            )

    def _newer(
        self, mine: Entry, part: Range, theirs: Entry, has_allocations: Callable[[Range], bool]
    ) -> Entry:
        if mine == theirs or theirs.version < mine.version:
            return mine
        if mine.peer != self.peer:
            # A version has one content, unless two peers took over the same dead peer: then all
            # must pick the same.
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
        """Limits free counts to the parts' sizes, which a previously unknown token may have
        reduced."""
        self.entries = [
            replace(entry, free=part.size) if entry.free > part.size else entry
            for entry, part in self.parts()
        ]

    def check(self) -> None:
        """Raises RingConflict if the ring is malformed."""
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

    def encode(self) -> dict[str, Any]:
        return {
            "range": list(self.universe),
            "seeds": self.seeds,
            "entries": [
                [entry.token, entry.peer, entry.version, entry.free] for entry in self.entries
            ],
        }

    @classmethod
    def decode(cls, data: dict[str, Any], peer: str) -> Ring:
        """Raises RingConflict if the data is not a ring."""
        try:
            entries = [
                Entry(*jsontext.typed(entry, int, str, int, int)) for entry in data["entries"]
            ]
            universe = Range(*jsontext.typed(data["range"], int, int))
            seeds = data["seeds"]
            ring = cls(universe, peer, entries, jsontext.typed(seeds, *(str for _ in seeds)))
        except (KeyError, TypeError, ValueError) as error:
            raise RingConflict(f"not a ring: {error}") from None
        ring.check()
        return ring
