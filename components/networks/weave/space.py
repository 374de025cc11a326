"""The free space in a peer's ranges: arithmetic on half-open ranges [start, end) of addresses as
numbers. Pure.

A pod gets the lowest free address, and another peer gets the upper half of the largest gap, so that
both keep contiguous space (github.com/weaveworks/weave, ipam/space).
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
        common = Range(max(self.start, other.start), min(self.end, other.end))
        return common if common.start < common.end else None


def range_of(network: IPv4Network) -> Range:
    """All addresses of a network."""
    first = int(network.network_address)
    return Range(first, first + network.num_addresses)


def hosts_of(network: IPv4Network) -> Range:
    """The addresses of a network without its network address and its broadcast address."""
    whole = range_of(network)
    return Range(whole.start + 1, whole.end - 1)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The ranges sorted, with adjacent ones merged."""
    merged: list[Range] = []
    for part in sorted(ranges):
        if merged and merged[-1].end == part.start:
            merged[-1] = Range(merged[-1].start, part.end)
        else:
            merged.append(part)
    return merged


def gaps(ranges: Iterable[Range], used: Sequence[int], within: Range) -> Iterator[Range]:
    """The free stretches of the ranges, in order. used must be sorted."""
    for whole in joined(ranges):
        if (part := whole.intersection(within)) is None:
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
    """The upper half, rounded up, of the largest gap; None if nothing is free."""
    largest = max(gaps(ranges, used, within), key=lambda gap: gap.size, default=None)
    return Range(largest.end - (largest.size + 1) // 2, largest.end) if largest else None
