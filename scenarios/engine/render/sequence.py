"""Draws a capture as SVG: one lane per interface, one row per packet, and the packet's way from
lane to lane.

A circle is a packet without encapsulation, a square a packet inside VXLAN, a diamond a packet whose
addresses have been translated on the way to this interface. The colours come from the style sheet
of the page, so the picture follows the light or dark mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from kubewire.scenarios.engine.packets.capturing import Sighting
from kubewire.scenarios.engine.packets.decode import Identity, describe, identity
from kubewire.scenarios.engine.verbs.packets import nat_between

LANE = 118
ROW = 34
LEFT = 70
TOP = 74
MAX_ROWS = 48
#: Width of a letter in the style sheet's font of 11 px, rounded up.
LETTER = 6.9


@dataclass(frozen=True)
class Way:
    """One packet: all its sightings, in the order of time."""

    sightings: tuple[Sighting, ...]

    @property
    def text(self) -> str:
        """The innermost packet at its first sighting: "10.244.1.2:33000 → 10.244.2.3:8080 TCP
        SYN"."""
        inner = self.sightings[0].packet.innermost
        source, destination = inner.addresses or ("", "")
        if inner.ports:
            source = f"{source}:{inner.ports[0]}"
            destination = f"{destination}:{inner.ports[1]}"
        return f"{source} → {destination}  {describe(inner)}"

    @property
    def kind(self) -> str:
        """The class in the style sheet, by protocol."""
        inner = self.sightings[0].packet.innermost
        if inner.tcp and "R" in inner.tcp.flags:
            return "reset"
        return inner.protocol if inner.protocol in ("tcp", "udp", "icmp", "arp") else "other"


def ways(sightings: Sequence[Sighting]) -> list[Way]:
    """The packets, in the order of their first sighting."""
    found: dict[Identity, list[Sighting]] = {}
    for one in sightings:
        found.setdefault(identity(one.packet), []).append(one)
    return [Way(tuple(members)) for members in found.values()]


def svg(points: Sequence[str], sightings: Sequence[Sighting]) -> str:
    """The picture; "" if there is nothing to draw."""
    known = [one for one in sightings if one.point in points]
    if not known:
        return ""
    drawn = ways(known)[:MAX_ROWS]
    height = TOP + ROW * len(drawn) + 16
    lanes_end = LEFT + LANE * len(points)
    text_ends = [_first_lane(way, points) + LETTER * len(way.text) for way in drawn]
    width = round(max(lanes_end, *text_ends)) + 20
    parts = [
        f'<svg class="sequence" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="packets by interface and time">',
        *_hosts(points),
        *_lanes(points, height),
    ]
    began = known[0].time
    for row, way in enumerate(drawn):
        parts += _row(way, TOP + ROW * row + ROW // 2 + 6, points, began)
    return "\n".join([*parts, "</svg>"])


def place(point: str) -> tuple[str, str]:
    """The host or pod, and the interface, in the name of a point."""
    if "veth@" in point:
        host, _, rest = point.rpartition("veth@")
        return (host.rstrip(":") or rest, "veth of pod" if host else "host side")
    owner, _, interface = point.rpartition(":")
    return owner, interface


def _x(number: int) -> int:
    return LEFT + LANE * number + LANE // 2


def _first_lane(way: Way, points: Sequence[str]) -> int:
    """The x coordinate at which a packet's text begins."""
    return _x(min(points.index(one.point) for one in way.sightings))


def _hosts(points: Sequence[str]) -> Iterator[str]:
    """Draws a box over neighbouring lanes of the same host or pod."""
    start = 0
    for number in range(1, len(points) + 1):
        if number == len(points) or place(points[number])[0] != place(points[start])[0]:
            owner = place(points[start])[0]
            x = LEFT + LANE * start + 4
            width = LANE * (number - start) - 8
            kind = "pod" if owner.startswith("pod:") else "host"
            name = escape(_short(owner, width // 7))
            yield f'<rect class="{kind}" x="{x}" y="6" width="{width}" height="56" rx="8"/>'
            yield f'<text class="owner" x="{x + width // 2}" y="25">{name}</text>'
            start = number


def _lanes(points: Sequence[str], height: int) -> Iterator[str]:
    for number, point in enumerate(points):
        x = _x(number)
        name = escape(_short(place(point)[1], 16))
        yield f'<text class="interface" x="{x}" y="47">{name}</text>'
        yield f'<line class="lane" x1="{x}" y1="64" x2="{x}" y2="{height - 8}"/>'


def _row(way: Way, y: int, points: Sequence[str], began: int) -> Iterator[str]:
    yield f'<g class="way {way.kind}"><title>{escape(way.text)}</title>'
    since = (way.sightings[0].time - began) / 1e6
    yield f'<text class="time" x="{LEFT - 8}" y="{y + 4}">{since:.2f} ms</text>'
    lanes = [points.index(one.point) for one in way.sightings]
    for before, after in pairwise(lanes):
        yield f'<line class="hop" x1="{_x(before)}" y1="{y}" x2="{_x(after)}" y2="{y}"/>'
    yield from _marks(way, lanes, y)
    if len(lanes) > 1:
        yield _arrow(_x(lanes[-1]), y, 1 if lanes[-1] >= lanes[-2] else -1)
    x = _first_lane(way, points)
    yield f'<text class="what" x="{x}" y="{y - 8}">{escape(way.text)}</text></g>'


def _marks(way: Way, lanes: Sequence[int], y: int) -> Iterator[str]:
    before: Sighting | None = None
    for one, lane in zip(way.sightings, lanes, strict=True):
        x = _x(lane)
        translated = before and nat_between(before.packet.innermost, one.packet.innermost) != "none"
        if translated:
            yield f'<path class="nat" d="M{x} {y - 7}L{x + 7} {y}L{x} {y + 7}L{x - 7} {y}Z"/>'
        elif one.packet.inner:
            yield f'<rect class="vxlan" x="{x - 6}" y="{y - 6}" width="12" height="12" rx="2"/>'
        else:
            yield f'<circle class="bare" cx="{x}" cy="{y}" r="4.5"/>'
        before = one


def _arrow(x: int, y: int, direction: int) -> str:
    tip = x - direction * 7
    return f'<path class="arrow" d="M{tip} {y}l{-direction * 8} -4v8z"/>'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(1, limit - 1)] + "…"
