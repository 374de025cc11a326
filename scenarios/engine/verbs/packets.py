"""The verb `packets`: the packets of a capture, at single interfaces or along a path.

The headers in `match` are those of the innermost packet, which applications see; `outer` are those
of the packet that carries it (VXLAN). On a path, the same packet is recognised at each interface by
the parts that nothing on the way changes (kubewire.scenarios.engine.packets.decode.identity). So a
path also shows where addresses were translated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, ClassVar

from kubewire.scenarios.engine.packets.capturing import CaptureFailed, RunningCapture, Sighting
from kubewire.scenarios.engine.packets.decode import ICMP, Identity, Packet, identity, summary
from kubewire.scenarios.engine.scene.scene import End, Scene, SceneError
from kubewire.scenarios.engine.verbs.arguments import (
    Arguments,
    Form,
    Port,
    Texts,
    Way,
    choice,
    mapping,
)
from kubewire.scenarios.engine.verbs.base import (
    AT_LEAST_ONE,
    Counted,
    Look,
    Observation,
    first_lines,
    listed,
)

#: name -> IP version -> (type, code or None for any).
ICMP_KINDS: Mapping[str, Mapping[int, tuple[int, int | None]]] = {
    "echo-request": {4: (8, None), 6: (128, None)},
    "echo-reply": {4: (0, None), 6: (129, None)},
    "unreachable": {4: (3, None), 6: (1, None)},
    "port-unreachable": {4: (3, 3), 6: (1, 4)},
    "fragmentation-needed": {4: (3, 4)},
    "packet-too-big": {6: (2, None)},
    "time-exceeded": {4: (11, None), 6: (3, None)},
    "router-solicitation": {6: (133, None)},
    "router-advertisement": {6: (134, None)},
    "neighbour-solicitation": {6: (135, None)},
    "neighbour-advertisement": {6: (136, None)},
}


def _address_fits(address: str, wanted: str) -> bool:
    return ip_address(address) in ip_network(wanted, strict=False)


def _icmp_fits(icmp: ICMP | None, name: str) -> bool:
    if icmp is None or icmp.version not in ICMP_KINDS[name]:
        return False
    kind, code = ICMP_KINDS[name][icmp.version]
    return icmp.type == kind and code in (None, icmp.code)


def _target(packet: Packet) -> str:
    """The address for which neighbour discovery or ARP asks."""
    if packet.arp:
        return packet.arp.target_ip
    return packet.icmp.target if packet.icmp else ""


#: key of match or outer -> function that says whether a packet has this value.
CHECKS: Mapping[str, Callable[[Packet, Any], bool]] = {
    "protocol": lambda p, v: p.protocol == v,
    "source": lambda p, v: bool(p.addresses) and _address_fits(p.addresses[0], v),  # type: ignore[index]
    "destination": lambda p, v: bool(p.addresses) and _address_fits(p.addresses[1], v),  # type: ignore[index]
    "sport": lambda p, v: bool(p.ports) and p.ports[0] == int(v),  # type: ignore[index]
    "dport": lambda p, v: bool(p.ports) and p.ports[1] == int(v),  # type: ignore[index]
    "flags": lambda p, v: p.tcp is not None and set(p.tcp.flags) == set(v),
    "icmp": lambda p, v: _icmp_fits(p.icmp, v),
    "target": lambda p, v: bool(_target(p)) and _address_fits(_target(p), v),
    "ttl": lambda p, v: p.ip is not None and p.ip.ttl == v,
    "payload": lambda p, v: v.encode() in p.payload,
    "vni": lambda p, v: p.vni == v,
}


def fits(packet: Packet, wanted: Mapping[str, Any]) -> bool:
    """Whether a packet has all these header values."""
    return all(CHECKS[key](packet, value) for key, value in wanted.items())


@dataclass(frozen=True)
class Headers(Arguments):
    """Headers of the innermost packet, which applications see."""

    protocol: Annotated[str, choice("tcp", "udp", "icmp", "arp", "esp")] = ""
    source: Annotated[str, "an address or a range"] = ""
    destination: Annotated[str, "an address or a range"] = ""
    sport: Annotated[Port, "the source port"] = 0
    dport: Annotated[Port, "the destination port"] = 0
    flags: Annotated[
        str,
        Form(
            {
                "type": "string",
                "pattern": "^[FSRPAUEC]+$",
                "description": "TCP flags as letters of FSRPAUEC, such as S or SA",
            }
        ),
        "exactly these TCP flags, such as S or SA",
    ] = ""
    icmp: Annotated[str, choice(*ICMP_KINDS), "the kind of ICMP or ICMPv6 message"] = ""
    target: Annotated[str, "the address for which ARP or neighbour discovery asks"] = ""
    ttl: Annotated[int, "the time to live, or the hop limit of IPv6"] = 0
    payload: Annotated[str, "a text that occurs in the payload"] = ""


@dataclass(frozen=True)
class OuterHeaders(Arguments):
    """Headers of the packet that carries another one."""

    protocol: Annotated[str, choice("udp", "tcp", "icmp", "arp")] = ""
    source: Annotated[str, "an address or a range"] = ""
    destination: Annotated[str, "an address or a range"] = ""
    sport: Annotated[Port, "the source port"] = 0
    dport: Annotated[Port, "the destination port"] = 0
    vni: Annotated[int, "the network identifier of VXLAN"] = 0


@dataclass(frozen=True)
class Packets(Look):
    """The packets of a capture: at each of several interfaces, or the same packet along a path."""

    SOURCE: ClassVar = "none"
    capture: Annotated[str, "the name of the capture (default: the last one started)"] = ""
    on: Annotated[Texts, "interfaces; the packets must be seen at each of them"] = ()
    path: Annotated[Way, "interfaces that the same packet must pass in this order"] = ()
    match: Annotated[
        Mapping[str, Any] | None,
        mapping(Headers),
        "headers of the innermost packet",
    ] = None
    outer: Annotated[
        Mapping[str, Any] | None,
        mapping(OuterHeaders),
        "headers of the packet that carries it",
    ] = None
    encapsulated: Annotated[bool | None, "whether another packet carries it"] = None
    direction: Annotated[
        str,
        choice("in", "out"),
        "in: the interface receives it; out: the interface sends it",
    ] = ""
    length: Annotated[Counted | None, "bytes on the wire"] = None
    count: Annotated[Counted, "the number of such packets"] = AT_LEAST_ONE
    nat: Annotated[
        str,
        choice("none", "source", "destination", "both"),
        "which addresses or ports differ between the first and the last interface of path",
    ] = ""

    @classmethod
    def contradiction(cls, args: Mapping[str, Any]) -> tuple[str, str] | None:
        if ("on" in args) == ("path" in args):
            return "", "needs either on (interfaces) or path (interfaces in the packet's order)"
        if "nat" in args and "path" not in args:
            return "nat", "needs path, because it compares the first and the last interface of it"
        return None

    def look(self, scene: Scene, source: End) -> Observation:
        capture = self._capture(scene)
        unknown = [point for point in (*self.on, *self.path) if point not in capture.points]
        if unknown:
            raise SceneError(
                f"capture {capture.name} does not include {listed(unknown)}; it includes {listed(capture.points)}"
            )
        try:
            capture.sync()
        except CaptureFailed as error:
            raise SceneError(str(error)) from error
        seen = capture.sightings()
        observed = self._along(seen) if self.path else self._at(seen)
        return Observation(
            holds=not observed.why,
            command=f"tcpdump -nr captures/{capture.name}.pcapng",
            seen=observed.seen,
            why=observed.why,
            detail=first_lines("\n".join(lines(observed.sightings))),
            sightings=observed.sightings,
            final=observed.too_many,
        )

    def _capture(self, scene: Scene) -> RunningCapture:
        if not scene.captures:
            raise SceneError("no capture has been started; add a step with capture: {start: NAME}")
        if not self.capture:
            return list(scene.captures.values())[-1]
        if self.capture not in scene.captures:
            captures = listed(scene.captures)
            raise SceneError(f"no capture {self.capture!r} has been started; captures: {captures}")
        return scene.captures[self.capture]

    def _fits(self, sighting: Sighting) -> bool:
        packet = sighting.packet
        return (
            fits(packet.innermost, self.match or {})
            and (not self.outer or fits(packet, self.outer))
            and self.encapsulated in (None, packet.inner is not None)
            and self.direction in ("", "out" if sighting.outbound else "in")
            and (self.length is None or self.length.holds(packet.length))
        )

    def _at(self, seen: Sequence[Sighting]) -> _Seen:
        by_point = {}
        for point in self.on:
            by_point[point] = [one for one in seen if one.point == point and self._fits(one)]
        wrong = [
            f"{point}: expected {self.count}, got {len(found)}"
            for point, found in by_point.items()
            if not self.count.holds(len(found))
        ]
        shown = listed(f"{point} {len(found)}" for point, found in by_point.items())
        example = next((found[0] for found in by_point.values() if found), None)
        text = f"packets: {shown}" + (f"  {summary(example.packet)}" if example else "")
        why = listed(wrong, "")
        if wrong and not example:
            why += _others(seen, self.on, self.match or {})
        limit = self.count.high
        too_many = limit is not None and any(len(found) > limit for found in by_point.values())
        return _Seen(
            text,
            why,
            tuple(one for found in by_point.values() for one in found[:3]),
            too_many,
        )

    def _along(self, seen: Sequence[Sighting]) -> _Seen:
        first = [one for one in seen if one.point == self.path[0] and self._fits(one)]
        if not first:
            others = _others(seen, self.path[:1], self.match or {})
            return _Seen(
                "packets: none",
                f"no matching packet at {self.path[0]}{others}",
                (),
            )
        by_identity: dict[Identity, list[Sighting]] = {}
        for one in seen:
            by_identity.setdefault(identity(one.packet), []).append(one)
        ways = [_way(self.path, one, by_identity[identity(one.packet)]) for one in first]
        judged = [(one, self._way_problem(one)) for one in ways]
        way, problem = max(judged, key=lambda item: (not item[1], len(item[0])))
        took = (way[-1].time - way[0].time) / 1000
        good = [one for one, wrong in judged if not wrong]
        if not problem and not self.count.holds(len(good)):
            problem = f"expected {self.count} packets on this path, got {len(good)}"
        if problem:
            text = f"packets: seen at {len(way)} of {len(self.path)} interfaces"
            return _Seen(text, problem, tuple(way))
        count = f"{len(good)} seen at {len(self.path)} interfaces in order"
        text = f"packets: {count}, {took:.0f} us from first to last"
        return _Seen(text, "", tuple(way))

    def _way_problem(self, way: Sequence[Sighting]) -> str:
        if len(way) < len(self.path):
            return f"seen at {listed(one.point for one in way)}, then not at {self.path[len(way)]}"
        if self.nat:
            translated = nat_between(way[0].packet.innermost, way[-1].packet.innermost)
            if translated != self.nat:
                before = summary(way[0].packet.innermost)
                after = summary(way[-1].packet.innermost)
                return f"expected NAT {self.nat}, got {translated}: {before} became {after}"
        return ""


@dataclass(frozen=True)
class _Seen:
    seen: str
    why: str
    sightings: tuple[Sighting, ...]
    too_many: bool = False


def _way(path: Sequence[str], start: Sighting, sightings: Sequence[Sighting]) -> list[Sighting]:
    """The sightings of one packet along a path, up to the first interface that has not seen it.
    Each is later than the one before."""
    way = [start]
    for point in path[1:]:
        later = [one for one in sightings if one.point == point and one.time >= way[-1].time]
        if not later:
            break
        way.append(later[0])
    return way


def nat_between(first: Packet, last: Packet) -> str:
    """Which addresses or ports differ: none, source, destination or both."""
    if not first.addresses or not last.addresses:
        return "none"
    before = first.ports or (0, 0)
    after = last.ports or (0, 0)
    changed = [
        side
        for number, side in enumerate(("source", "destination"))
        if (first.addresses[number], before[number]) != (last.addresses[number], after[number])
    ]
    return changed[0] if len(changed) == 1 else ("both" if changed else "none")


def _others(seen: Sequence[Sighting], points: Sequence[str], wanted: Mapping[str, Any]) -> str:
    """What was seen instead: the packet that has most of the wanted headers."""
    there = [one for one in seen if one.point in points]
    if not there:
        return "; no packet was seen there"

    def similarity(one: Sighting) -> int:
        return sum(CHECKS[key](one.packet.innermost, value) for key, value in wanted.items())

    nearest = max(there, key=similarity)
    return f"; {len(there)} other packets were, the most similar: {summary(nearest.packet)}"


def lines(sightings: Sequence[Sighting]) -> list[str]:
    """One line per sighting, with the time in microseconds since the first."""
    width = max((len(one.point) for one in sightings), default=0)
    text = []
    for one in sightings:
        since = (one.time - sightings[0].time) / 1000
        text.append(f"{since:8.0f} us  {one.point:<{width}}  {summary(one.packet)}")
    return text


VERBS = {"packets": Packets}
