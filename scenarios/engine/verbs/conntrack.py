"""conntrack: the connections a node's kernel tracks, and how it translates them (conntrack(8))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import Port, choice
from kubewire.scenarios.engine.verbs.base import AT_LEAST_ONE, Count, Counted, Look, Observation, first_lines, listed
from kubewire.scenarios.engine.verbs.commands import execute


@dataclass(frozen=True)
class Tuple:
    """One direction. ports are 0 for ICMP."""

    source: str
    destination: str
    sport: int
    dport: int

    def __str__(self) -> str:
        if not self.dport:
            return f"{self.source} -> {self.destination}"
        return f"{self.source}:{self.sport} -> {self.destination}:{self.dport}"


@dataclass(frozen=True)
class Entry:
    """original: the direction of the first packet. reply: that of the answers, which shows the translation."""

    protocol: str
    state: str
    original: Tuple
    reply: Tuple
    flags: tuple[str, ...]

    @property
    def nat(self) -> str:
        """none, source, destination or both."""
        destination = (self.original.destination, self.original.dport) != (self.reply.source, self.reply.sport)
        source = (self.original.source, self.original.sport) != (self.reply.destination, self.reply.dport)
        return {(False, False): "none", (True, False): "source", (False, True): "destination"}.get(
            (source, destination), "both"
        )

    def __str__(self) -> str:
        translated = "no NAT" if self.nat == "none" else f"NAT {self.nat}"
        return f"{self.protocol} {self.state} {self.original}, answers {self.reply} ({translated})".replace("  ", " ")


def parse(text: str) -> Iterator[Entry]:
    """The output of `conntrack -L`."""
    for line in text.splitlines():
        words = line.split()
        pairs = re.findall(r"\b(src|dst|sport|dport)=(\S+)", line)
        if len(words) < 4 or not pairs:
            continue
        state = words[3] if "=" not in words[3] else ""
        flags = tuple(word.strip("[]") for word in words if word.startswith("["))
        half = next((n for n, (key, _) in enumerate(pairs) if n and key == "src"), len(pairs))
        yield Entry(words[0], state, _tuple(pairs[:half]), _tuple(pairs[half:]), flags)


def _tuple(pairs: list[tuple[str, str]]) -> Tuple:
    values = dict(pairs)
    return Tuple(values.get("src", ""), values.get("dst", ""), int(values.get("sport", 0)), int(values.get("dport", 0)))


@dataclass(frozen=True)
class Conntrack(Look):
    """The connections that a node's kernel tracks, in their original and their reply direction."""

    protocol: Annotated[str, choice("tcp", "udp", "icmp")] = ""
    source: Annotated[str, "the original direction's source address"] = ""
    destination: Annotated[str, "the original direction's destination address"] = ""
    sport: Annotated[Port, "the original direction's source port"] = 0
    dport: Annotated[Port, "the original direction's destination port"] = 0
    reply_source: Annotated[str, "the reply direction's source address: that of the endpoint"] = ""
    reply_destination: Annotated[str, "the reply direction's destination address: where answers go"] = ""
    reply_sport: Annotated[Port, "the reply direction's source port"] = 0
    reply_dport: Annotated[Port, "the reply direction's destination port"] = 0
    state: Annotated[str, "such as ESTABLISHED"] = ""
    nat: Annotated[
        str, choice("none", "source", "destination", "both", "any"), "which addresses are translated, in all of them"
    ] = "any"
    count: Annotated[Counted, "how many such entries"] = AT_LEAST_ONE

    def look(self, scene: Scene, source: End) -> Observation:
        ipv6 = any(":" in text for text in (self.source, self.destination, self.reply_source, self.reply_destination))
        protocol = "icmpv6" if ipv6 and self.protocol == "icmp" else self.protocol
        argv = ["conntrack", "-L", *(["-f", "ipv6"] if ipv6 else []), *(["-p", protocol] if protocol else [])]
        done = execute(scene, source, argv)
        if done.returncode:
            raise NotYet(f"conntrack: {done.stderr.decode(errors='replace').strip()}")
        entries = [entry for entry in parse(done.text) if self._about(entry)]
        fitting = [entry for entry in entries if self.nat in ("any", entry.nat)]
        why = "" if self.count.holds(len(fitting)) else f"expected {self.count} such entries, got {len(fitting)}"
        others = [entry for entry in entries if entry not in fitting]
        if not why and others and self.nat != "any" and self.count != Count(0, 0):
            why = f"expected NAT {self.nat} for all, but: {others[0]}"
        return Observation(
            holds=not why,
            command=typed(source, " ".join(argv)),
            seen=f"conntrack: {listed(map(str, fitting[:2]), 'no such entry')}" + _more(fitting),
            why=why,
            detail=first_lines("\n".join(str(entry) for entry in entries) or done.text),
        )

    def _about(self, entry: Entry) -> bool:
        wanted = (
            (self.protocol, entry.protocol.removesuffix("v6")),
            (self.source, entry.original.source),
            (self.destination, entry.original.destination),
            (self.sport, entry.original.sport),
            (self.dport, entry.original.dport),
            (self.reply_source, entry.reply.source),
            (self.reply_destination, entry.reply.destination),
            (self.reply_sport, entry.reply.sport),
            (self.reply_dport, entry.reply.dport),
            (self.state, entry.state),
        )
        return all(not expected or expected == got for expected, got in wanted)


def _more(fitting: list[Entry]) -> str:
    return f" and {len(fitting) - 2} more" if len(fitting) > 2 else ""


VERBS = {"conntrack": Conntrack}
