"""The verb `conntrack`: the connections that a node's kernel tracks, and how it translates them.

The kernel decides about NAT only for the first packet of a connection. It stores the connection
with both directions: the original direction as the first packet had it, and the reply direction as
answers must look, already translated. All later packets are translated according to this entry
(conntrack(8)). So an entry shows which endpoint kube-proxy has chosen, and that a change of the
rules does not affect existing connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import Port, choice
from kubewire.scenarios.engine.verbs.base import (
    AT_LEAST_ONE,
    Count,
    Counted,
    Look,
    Observation,
    first_lines,
    listed,
)
from kubewire.scenarios.engine.verbs.commands import execute


@dataclass(frozen=True)
class Tuple:
    """One direction of a connection. The ports are 0 for ICMP."""

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
    """A tracked connection. original: the direction of the first packet. reply: the direction of
    the answers, which shows the translation."""

    protocol: str
    state: str
    original: Tuple
    reply: Tuple
    flags: tuple[str, ...]

    @property
    def nat(self) -> str:
        """The kind of translation: none, source, destination or both."""
        destination = (self.original.destination, self.original.dport) != (
            self.reply.source,
            self.reply.sport,
        )
        source = (self.original.source, self.original.sport) != (
            self.reply.destination,
            self.reply.dport,
        )
        return {(False, False): "none", (True, False): "source", (False, True): "destination"}.get(
            (source, destination), "both"
        )

    def __str__(self) -> str:
        translated = "no NAT" if self.nat == "none" else f"NAT {self.nat}"
        text = f"{self.protocol} {self.state} {self.original}, answers {self.reply} ({translated})"
        return text.replace("  ", " ")


def parse(text: str) -> Iterator[Entry]:
    """Reads the output of `conntrack -L`."""
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
    return Tuple(
        values.get("src", ""),
        values.get("dst", ""),
        int(values.get("sport", 0)),
        int(values.get("dport", 0)),
    )


@dataclass(frozen=True)
class Conntrack(Look):
    """The connections that a node's kernel tracks, in their original and their reply direction."""

    protocol: Annotated[str, choice("tcp", "udp", "icmp")] = ""
    source: Annotated[str, "source address of the original direction"] = ""
    destination: Annotated[str, "destination address of the original direction"] = ""
    sport: Annotated[Port, "source port of the original direction"] = 0
    dport: Annotated[Port, "destination port of the original direction"] = 0
    reply_source: Annotated[str, "source address of the reply direction: the endpoint"] = ""
    reply_destination: Annotated[
        str,
        "destination address of the reply direction: where answers go",
    ] = ""
    reply_sport: Annotated[Port, "source port of the reply direction"] = 0
    reply_dport: Annotated[Port, "destination port of the reply direction"] = 0
    state: Annotated[str, "the state, such as ESTABLISHED"] = ""
    nat: Annotated[
        str,
        choice("none", "source", "destination", "both", "any"),
        "which addresses are translated, in all of the entries",
    ] = "any"
    count: Annotated[Counted, "the number of such entries"] = AT_LEAST_ONE

    def look(self, scene: Scene, source: End) -> Observation:
        addresses = (self.source, self.destination, self.reply_source, self.reply_destination)
        ipv6 = any(":" in text for text in addresses)
        protocol = "icmpv6" if ipv6 and self.protocol == "icmp" else self.protocol
        argv = [
            "conntrack",
            "-L",
            *(["-f", "ipv6"] if ipv6 else []),
            *(["-p", protocol] if protocol else []),
        ]
        done = execute(scene, source, argv)
        if done.returncode:
            raise NotYet(f"conntrack: {done.stderr.decode(errors='replace').strip()}")
        entries = [entry for entry in parse(done.text) if self._about(entry)]
        fitting = [entry for entry in entries if self.nat in ("any", entry.nat)]
        why = ""
        if not self.count.holds(len(fitting)):
            why = f"expected {self.count} such entries, got {len(fitting)}"
        others = [entry for entry in entries if entry not in fitting]
        if not why and others and self.nat != "any" and self.count != Count(0, 0):
            why = f"expected NAT {self.nat} for all entries, but there is: {others[0]}"
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
