"""The verb `rules`: the iptables or nftables rules of a node, as text, or as the way of a packet
through the chains.

kube-proxy distributes a Service over several chains, so the text of one rule says little. A walk
starts at a built-in chain such as PREROUTING and follows the jumps that a described packet can
take. It works on the output of iptables-save and sends nothing. Since it knows neither all matches
of iptables nor all properties of the packet, each rule is in one of three groups: it certainly
matches, it certainly does not, or it may. The walk visits the first and the third group, and stops
only at a verdict that certainly matches.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import (
    Arguments,
    Pattern,
    Patterns,
    Port,
    Texts,
    choice,
    mapping,
)
from kubewire.scenarios.engine.verbs.base import (
    Counted,
    Look,
    Observation,
    first_lines,
    listed,
    quoted,
)
from kubewire.scenarios.engine.verbs.commands import execute

#: The command that prints all rules. iptables-save prints all tables of one IP family.
TOOLS: Mapping[str, tuple[str, ...]] = {
    "iptables": ("iptables-save",),
    "ip6tables": ("ip6tables-save",),
    "nft": ("nft", "list", "ruleset"),
}

#: Targets after which no further rule of the table sees the packet (iptables-extensions(8)).
VERDICTS = frozenset({"ACCEPT", "DROP", "REJECT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT"})
#: The options and matches that the walk understands. A rule with any other may match.
UNDERSTOOD = frozenset(
    ("-A", "-s", "-d", "-p", "-m", "-j", "--comment", "--dport", "--dports", "--dst-type", "!"),
)
MATCHES = frozenset({"comment", "tcp", "udp", "sctp", "multiport", "addrtype"})


@dataclass(frozen=True)
class Rule:
    """One line of iptables-save, with the matches that the walk understands."""

    chain: str
    text: str
    target: str = ""
    source: str = ""
    destination: str = ""
    protocol: str = ""
    dports: tuple[str, ...] = ()
    local: bool = False
    understood: bool = False

    def must_match(self, packet: Mapping[str, Any]) -> bool:
        """Whether the rule certainly matches: it has only options that the walk understands, and
        the packet's values for all of them are known."""
        asked = {
            "source": self.source,
            "destination": self.destination,
            "protocol": self.protocol,
            "dport": self.dports,
            "local": self.local,
        }
        known = all(packet.get(key) is not None for key, wanted in asked.items() if wanted)
        return self.understood and known and self.may_match(packet)

    def may_match(self, packet: Mapping[str, Any]) -> bool:
        """Whether the rule may match. An unknown value of the packet matches any option."""
        if self.local and packet.get("local") is False:
            return False
        protocol = packet.get("protocol")
        if self.protocol and protocol and not _same_protocol(self.protocol, protocol):
            return False
        for key, wanted in (("source", self.source), ("destination", self.destination)):
            if wanted and packet.get(key) and not _within(packet[key], wanted):
                return False
        port = packet.get("dport")
        if not self.dports or not port:
            return True
        return any(_port_in(int(port), item) for item in self.dports)


def _same_protocol(rule: str, packet: str) -> bool:
    negated = rule.startswith("!")
    return (rule.lstrip("! ") == packet) != negated


def _within(address: str, wanted: str) -> bool:
    negated = wanted.startswith("!")
    return (ip_address(address) in ip_network(wanted.lstrip("! "), strict=False)) != negated


def _port_in(port: int, text: str) -> bool:
    low, _, high = text.partition(":")
    return int(low) <= port <= int(high or low)


@dataclass(frozen=True)
class Ruleset:
    """One table of iptables-save."""

    rules: tuple[Rule, ...]

    @cached_property
    def by_chain(self) -> dict[str, list[Rule]]:
        chains: dict[str, list[Rule]] = {}
        for rule in self.rules:
            chains.setdefault(rule.chain, []).append(rule)
        return chains

    def walk(self, chain: str, packet: Mapping[str, Any]) -> Iterator[tuple[int, Rule]]:
        """(depth, rule) for each rule that the packet may match, in order and with jumps followed,
        up to a verdict that certainly matches."""
        yield from self._walk(chain, packet, 0, frozenset())

    def _walk(
        self, chain: str, packet: Mapping[str, Any], depth: int, above: frozenset[str]
    ) -> Generator[tuple[int, Rule], None, bool]:
        """Returns whether the packet has certainly met a verdict."""
        for rule in self.by_chain.get(chain, ()):
            if not rule.may_match(packet):
                continue
            yield depth, rule
            done = rule.target in VERDICTS
            if rule.target in self.by_chain and rule.target not in above:
                done = yield from self._walk(rule.target, packet, depth + 1, above | {chain})
            if rule.must_match(packet):
                if done:
                    return True
                if rule.target == "RETURN":
                    return False
        return False


def tables(text: str) -> dict[str, list[str]]:
    """Reads the output of iptables-save: table name -> its "-A" lines."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("*"):
            name = line[1:].strip()
        elif line.startswith("-A ") and name:
            found.setdefault(name, []).append(line)
    return found


def parse_rule(line: str) -> Rule:
    """Reads one line "-A CHAIN ..."."""
    words = shlex.split(line)
    values: dict[str, str] = {}
    for number, word in enumerate(words[:-1]):
        if word in ("-s", "-d", "-p", "-j", "-g", "--dport", "--dports", "--dst-type"):
            values[word] = ("! " if number and words[number - 1] == "!" else "") + words[number + 1]
    # A rule with -g (goto) has no -j, so -g remains among its options, which are not understood.
    asked = words[: words.index("-j")] if "-j" in words else words
    matches = {word for before, word in itertools.pairwise(asked) if before == "-m"}
    options = {word for word in asked if word.startswith(("-", "!"))}
    ports = values.get("--dport") or values.get("--dports") or ""
    return Rule(
        chain=words[1],
        text=line,
        target=values.get("-j") or values.get("-g") or "",
        source=values.get("-s", ""),
        destination=values.get("-d", ""),
        protocol=values.get("-p", ""),
        dports=tuple(ports.split(",")) if ports and not ports.startswith("!") else (),
        local=values.get("--dst-type") == "LOCAL",
        understood=options <= UNDERSTOOD
        and matches <= MATCHES
        and not ports.startswith("!")
        and values.get("--dst-type", "LOCAL") == "LOCAL",
    )


@dataclass(frozen=True)
class Walk(Arguments):
    """A packet and the chain at which it enters. A value that is not given matches any rule."""

    chain: Annotated[str, "the chain at which it enters, such as PREROUTING"]
    protocol: Annotated[str, choice("tcp", "udp", "sctp", "icmp")] = ""
    source: Annotated[str, "the source address"] = ""
    destination: Annotated[str, "the destination address"] = ""
    dport: Annotated[Port, "the destination port"] = 0
    local: Annotated[bool, "whether the destination is an address of the host"] = False


@dataclass(frozen=True)
class Rules(Look):
    """The iptables or nftables rules of a host: as text, or on the walk of a packet through the
    chains.

    A walk follows the jumps of all rules that may match. A real packet meets at most one of the
    verdicts on it. Where rules choose at random, any of them may be the first to match, and
    `decides` must match each of them.
    """

    tool: Annotated[str, choice("iptables", "ip6tables", "nft")] = "iptables"
    table: Annotated[str, "the table (default: all tables; for a walk: nat)"] = ""
    chain: Annotated[str, "the chain (default: all chains)"] = ""
    contains: Annotated[Texts, "texts that must all occur in one rule"] = ()
    matches: Annotated[Patterns, "regular expressions that must all match in one rule"] = ()
    absent: Annotated[Patterns, "regular expressions that must not match in any rule"] = ()
    count: Annotated[Counted | None, "the number of rules with contains and matches"] = None
    walk: Annotated[
        Mapping[str, Any] | None,
        mapping(Walk),
        "a packet that enters at a chain (iptables only)",
    ] = None
    reaches: Annotated[
        Patterns,
        "regular expressions that must each match in a rule of the walk, such as KUBE-SVC-.*",
    ] = ()
    avoids: Annotated[
        Patterns, "regular expressions that must not match in a rule of the walk"
    ] = ()
    decides: Annotated[
        Pattern,
        "a regular expression that must match in the first verdict of the walk",
    ] = ""

    def look(self, scene: Scene, source: End) -> Observation:
        argv = self._argv()
        done = execute(scene, source, argv)
        if done.returncode:
            raise NotYet(f"{shlex.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
        command = typed(source, shlex.join(argv))
        return self._walked(done.text, command) if self.walk else self._searched(done.text, command)

    def _argv(self) -> list[str]:
        if self.tool == "nft" and self.table:
            what = "chain" if self.chain else "table"
            family = self.table.split() if " " in self.table else ["ip", self.table]
            return ["nft", "list", what, *family, *([self.chain] if self.chain else [])]
        return [*TOOLS[self.tool], *(["-t", self.table] if self.table else [])]

    def _lines(self, text: str) -> list[str]:
        if self.tool == "nft":
            return text.splitlines()
        lines = []
        for name, rows in tables(text).items():
            if self.table in ("", name):
                lines += rows
        if not self.chain:
            return lines
        return [line for line in lines if re.match(rf"-A {self.chain}(\s|$)", line)]

    def _searched(self, text: str, command: str) -> Observation:
        lines = self._lines(text)
        fitting = [line for line in lines if self._fits(line)]
        why = self._missing(lines)
        count = self.count
        if not why and count and not count.holds(len(fitting)):
            why = f"expected {count} rules, got {len(fitting)}"
        wanted = listed([*map(quoted, self.contains), *(f"/{m}/" for m in self.matches)], "any")
        gone = f", none with {listed(f'/{a}/' for a in self.absent)}" if self.absent else ""
        where = " ".join(filter(None, (self.tool, self.table, self.chain)))
        return Observation(
            holds=not why,
            command=command,
            seen=f"{where} rules with {wanted}{gone}: {len(fitting)}",
            why=why,
            detail=first_lines("\n".join(line.strip() for line in (fitting or lines))),
        )

    def _fits(self, line: str) -> bool:
        if not all(part in line for part in self.contains):
            return False
        return all(re.search(pattern, line) for pattern in self.matches)

    def _missing(self, lines: Sequence[str]) -> str:
        if self.absent:
            for pattern in self.absent:
                if found := next((line for line in lines if re.search(pattern, line)), ""):
                    return f"/{pattern}/ should not be there: {found.strip()}"
        searches = bool(self.contains or self.matches)
        if self.count is None and searches and not any(self._fits(line) for line in lines):
            wanted = listed([*map(quoted, self.contains), *self.matches])
            return f"none of the {len(lines)} rules has {wanted}"
        return ""

    def _walked(self, text: str, command: str) -> Observation:
        packet = dict(self.walk or {})
        chain = str(packet.pop("chain"))
        lines = tables(text).get(self.table or "nat", ())
        ruleset = Ruleset(tuple(parse_rule(line) for line in lines))
        steps = list(ruleset.walk(chain, packet))
        texts = [rule.text for _, rule in steps]
        missed = [p for p in self.reaches if not any(re.search(p, one) for one in texts)]
        hit = [p for p in self.avoids if any(re.search(p, one) for one in texts)]
        why = ""
        if missed:
            why = f"the walk does not reach {listed(missed)}"
        elif hit:
            why = f"the walk reaches {listed(hit)}"
        if self.decides and not why:
            why = _undecided(self.decides, [rule for _, rule in steps if rule.target in VERDICTS])
        path = list(dict.fromkeys([chain, *(rule.target for _, rule in steps if rule.target)]))
        way = " > ".join(path[:8]) + (" ..." if len(path) > 8 else "")
        return Observation(
            holds=not why,
            command=command,
            seen=f"{_packet_text(packet)} goes {way}",
            why=why,
            detail=first_lines("\n".join("  " * depth + rule.text for depth, rule in steps)),
        )


def _undecided(pattern: str, verdicts: Sequence[Rule]) -> str:
    """Why the first verdict on the walk is not the expected one; "" if it is."""
    if not verdicts:
        return f"no rule decides, expected /{pattern}/"
    first = verdicts[0].text
    if re.search(pattern, first):
        return ""
    return f"expected /{pattern}/ to decide, but the first verdict is {first}"


def _packet_text(packet: Mapping[str, Any]) -> str:
    port = f":{packet['dport']}" if packet.get("dport") else ""
    return f"{packet.get('protocol', 'a packet')} to {packet.get('destination', 'anywhere')}{port}"


VERBS = {"rules": Rules}
