"""What of a peer's ranges is free: arithmetic on half-open ranges [start, end) of addresses as numbers. Pure.

The lowest free address is given out, the upper half of the largest gap is given away (github.com/weaveworks/weave,
ipam/space).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple


class Range(NamedTuple):
    """[start, end)."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address < self.end

    def __str__(self) -> str:
        return f"{IPv4Address(self.start)}-{IPv4Address(self.end - 1)}"

    def intersection(self, other: Range) -> Range | None:
        found = Range(max(self.start, other.start), min(self.end, other.end))
        return found if found.start < found.end else None


def range_of(network: IPv4Network) -> Range:
    """All addresses."""
    first = int(network.network_address)
    return Range(first, first + network.num_addresses)


def hosts_of(network: IPv4Network) -> Range:
    """Without the network's own and the broadcast address."""
    whole = range_of(network)
    return Range(whole.start + 1, whole.end - 1)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, neighbours as one."""
    found: list[Range] = []
    for one in sorted(ranges):
        if found and found[-1].end == one.start:
            found[-1] = Range(found[-1].start, one.end)
        else:
            found.append(one)
    return found


def gaps(ranges: Iterable[Range], used: Sequence[int], within: Range) -> Iterator[Range]:
    """Free stretches of the ranges, in order; used is sorted."""
    for one in joined(ranges):
        if (part := one.intersection(within)) is None:
            continue
        start = part.start
        for position in range(bisect_left(used, part.start), len(used)):
            if used[position] >= part.end:
                break
            if start < used[position]:
                yield Range(start, used[position])
            start = used[position] + 1
        if start < part.end:
            yield Range(start, part.end)


def donation(ranges: Iterable[Range], used: Sequence[int], within: Range) -> Range | None:
    """The upper half, rounded up, of the largest gap; None when nothing is free."""
    largest = max(gaps(ranges, used, within), key=lambda gap: gap.size, default=None)
    return Range(largest.end - (largest.size + 1) // 2, largest.end) if largest else None
