"""The members of the address sets.

Two endpoints can have one address for a while: a new pod gets the address of one whose deletion is
not yet known. So each member counts the endpoints that it comes from, and leaves with the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from kubewire.components.policy.model import AddressSet, Endpoint

Diff = tuple[frozenset[str], frozenset[str]]


class Members(Mapping[str, frozenset[str]]):
    """Set id -> members. A frozenset is made when someone reads it, and kept until it changes."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._read: dict[str, frozenset[str]] = {}
        #: What the reader of changes() has been told of: the sets, and which of the members that
        #: were touched since then were in them.
        self._reported: set[str] = set()
        self._touched: dict[str, dict[str, bool]] = {}

    def __getitem__(self, set_id: str) -> frozenset[str]:
        found = self._read.get(set_id)
        if found is None:
            found = self._read[set_id] = frozenset(self._counts[set_id])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def create(self, set_id: str) -> None:
        self._counts[set_id] = {}
        self._touched.setdefault(set_id, {})

    def drop(self, set_id: str) -> None:
        counts = self._counts.pop(set_id)
        self._read.pop(set_id, None)
        touched = self._touched.setdefault(set_id, {})
        for member in counts:
            touched.setdefault(member, True)

    def add(self, set_id: str, members: tuple[str, ...]) -> None:
        counts = self._counts[set_id]
        for member in members:
            count = counts.get(member, 0)
            counts[member] = count + 1
            if not count:
                self._touch(set_id, member, False)

    def remove(self, set_id: str, members: tuple[str, ...]) -> None:
        counts = self._counts[set_id]
        for member in members:
            counts[member] -= 1
            if not counts[member]:
                del counts[member]
                self._touch(set_id, member, True)

    def _touch(self, set_id: str, member: str, before: bool) -> None:
        self._read.pop(set_id, None)
        touched = self._touched.setdefault(set_id, {})
        if set_id in self._reported:
            touched.setdefault(member, before)

    def changes(self) -> tuple[dict[str, Diff], frozenset[str], frozenset[str]]:
        """What has changed since the last call: differences of sets, new sets, old sets."""
        touched, self._touched = self._touched, {}
        new = frozenset(touched.keys() & self._counts.keys() - self._reported)
        old = frozenset(touched.keys() & self._reported - self._counts.keys())
        diffs = {}
        for set_id in touched.keys() - new - old:
            if set_id in self._reported and (diff := self._diff(set_id, touched[set_id])):
                diffs[set_id] = diff
        self._reported = (self._reported | new) - old
        return diffs, new, old

    def _diff(self, set_id: str, touched: Mapping[str, bool]) -> Diff | None:
        counts = self._counts[set_id]
        added = frozenset(m for m, before in touched.items() if not before and m in counts)
        removed = frozenset(m for m, before in touched.items() if before and m not in counts)
        return (added, removed) if added or removed else None


def members_of(endpoint: Endpoint, made: AddressSet) -> tuple[str, ...]:
    """What an endpoint contributes to a set of which it fulfils the definition."""
    if made.named_port is None:
        return tuple(map(_prefixed, endpoint.addresses))
    protocol, name = made.named_port.protocol, made.named_port.name
    numbers = dict.fromkeys(
        port.number for port in endpoint.ports if (port.protocol, port.name) == (protocol, name)
    )
    return tuple(
        f"{address},{protocol.lower()}:{number}"
        for address in endpoint.addresses
        for number in numbers
        if "/" not in address
    )


@lru_cache(maxsize=65536)
def _prefixed(address: str) -> str:
    """An address as a CIDR; a network set's are CIDRs already. All sets share the text."""
    if "/" in address:
        return address
    return f"{address}/128" if ":" in address else f"{address}/32"
