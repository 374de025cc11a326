"""Answers who may talk to whom: a flow -> the verdict, with the rule that decides.

The evaluator knows State and nothing of the objects from which it was compiled, and no engine uses
it to write rules; so it can be compared with what a kernel does. It judges the first packet of a
connection, with the addresses that policies see: of a Service, those of the pod behind it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from kubewire.components.policy.model import (
    ANY,
    ICMP,
    Action,
    Applied,
    Changes,
    Direction,
    Endpoint,
    EndpointKind,
    Match,
    ObjectKey,
    Origin,
    PortRange,
    Rule,
    Side,
    State,
)

_NUMBERS = {
    "1": "ICMP",
    "6": "TCP",
    "17": "UDP",
    "58": "ICMPV6",
    "132": "SCTP",
    "136": "UDPLITE",
}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Flow:
    """The first packet of a connection. protocol: as in Match, in any case. icmp: of ICMP, instead
    of the ports. name: the DNS name from which the client has the destination's address."""

    source: str
    destination: str
    protocol: str = "TCP"
    destination_port: int = 0
    source_port: int = 0
    icmp: ICMP | None = None
    name: str = ""


@dataclass(frozen=True)
class Decision:
    """What one direction says. origin: the rule that decided, None if none did. tier: the tier in
    which it was decided, "" if in none. isolated_by: if the tier's default denied, the policies
    that made it apply. text: all of it in a sentence."""

    allowed: bool
    origin: Origin | None
    tier: str
    text: str
    isolated_by: tuple[ObjectKey, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """egress is the answer of the source's policies, ingress that of the destination's."""

    allowed: bool
    egress: Decision
    ingress: Decision

    def __str__(self) -> str:
        verb = "allowed" if self.allowed else "denied"
        return f"{verb}: egress: {self.egress.text}; ingress: {self.ingress.text}"


class Evaluator:
    """nodes: the addresses of each node, with which it reaches its own pods; without it, those of
    the Node objects that the compiler was given. A State is a view that follows its compiler:
    after each change call update."""

    def __init__(self, state: State, nodes: Mapping[str, Iterable[str]] | None = None) -> None:
        given = (nodes or {}).items()
        self._nodes = {name: frozenset(map(_address, of)) for name, of in given}
        self._asks_nodes = nodes is None
        self._networks: dict[str, tuple[frozenset[str], tuple[Network, ...]]] = {}
        self.update(state)

    def update(self, state: State, changes: Changes | None = None) -> None:
        """Takes a newer state. changes: what differs from the one before, if that is known."""
        self._state = state
        self._tiers = {tier.name: tier for tier in state.tiers}
        self._rules: dict[tuple[tuple[ObjectKey, ...], Direction, str], tuple[Rule, ...]] = {}
        if changes is None:
            self._known: dict[ObjectKey, Endpoint] = {}
            self._shown: dict[str, dict[ObjectKey, Endpoint]] = {}
        for key in state.endpoints if changes is None else changes.endpoints:
            self._replace(key, state.endpoints.get(key))

    def _replace(self, key: ObjectKey, new: Endpoint | None) -> None:
        old = self._known.pop(key, None)
        if old is not None:
            for address in old.addresses:
                del self._shown[address][key]
                if not self._shown[address]:
                    del self._shown[address]
        if key.kind == EndpointKind.NODE.value and self._asks_nodes:
            self._nodes.pop(key.name, None)
        if new is None:
            return
        if new.kind is EndpointKind.POD:
            self._known[key] = new
            for address in new.addresses:
                self._shown.setdefault(address, {})[key] = new
        elif new.kind is EndpointKind.NODE and self._asks_nodes:
            self._nodes[new.node] = frozenset(new.addresses)

    def pod_at(self, address: str) -> Endpoint | None:
        """The pod with an address; of two that show it, the one that got it last."""
        return self._pod(_address(address))

    def _pod(self, address: str) -> Endpoint | None:
        shown = self._shown.get(address)
        if not shown:
            return None
        if len(shown) == 1:
            return next(iter(shown.values()))
        last_first = reversed(tuple(self._state.endpoints))
        return shown[next(key for key in last_first if key in shown)]

    def verdict(self, flow: Flow) -> Verdict:
        """Raises ValueError if an address is none."""
        flow = replace(
            flow,
            source=_address(flow.source),
            destination=_address(flow.destination),
            protocol=_protocol(flow.protocol),
        )
        source, destination = self._pod(flow.source), self._pod(flow.destination)
        if source is not None and source is destination:
            itself = Decision(True, None, "", "a pod always reaches itself")
            return Verdict(True, itself, itself)
        egress = self._egress(source, flow)
        ingress = self._ingress(destination, flow)
        return Verdict(egress.allowed and ingress.allowed, egress, ingress)

    def _egress(self, pod: Endpoint | None, flow: Flow) -> Decision:
        if pod is None:
            return _no_pod(flow.source)
        return self._decide(pod, Direction.EGRESS, flow)

    def _ingress(self, pod: Endpoint | None, flow: Flow) -> Decision:
        """A pod's own node always reaches it (the API's text of NetworkPolicy's ingress), because
        the kubelet's probes must."""
        if pod is None:
            return _no_pod(flow.destination)
        if flow.source in self._nodes.get(pod.node, ()):
            text = f"{flow.source} is the pod's own node, which always reaches it"
            return Decision(True, None, "", text)
        return self._decide(pod, Direction.INGRESS, flow)

    def _decide(self, pod: Endpoint, direction: Direction, flow: Flow) -> Decision:
        acting = self._state.applied.get(pod.key, Applied())
        passed: Origin | None = None
        for tier, keys in acting.tiers(direction):
            rule = self._first_match(keys, direction, flow)
            if rule is None:
                if self._tiers[tier].default_action is Action.DENY:
                    return _isolated(tier, keys)
            elif rule.action is Action.PASS:
                passed = rule.origin
            else:
                allowed = rule.action is Action.ALLOW
                verb = "allows" if allowed else "denies"
                return Decision(allowed, rule.origin, tier, f"{rule.origin} {verb}")
        return Decision(True, passed, "", _undecided(acting, direction, passed))

    def _first_match(
        self, keys: tuple[ObjectKey, ...], direction: Direction, flow: Flow
    ) -> Rule | None:
        """The first rule that decides."""
        for rule in self._rules_for(keys, direction, flow.protocol):
            if self.matches(rule.match, flow):
                return rule
        return None

    def _rules_for(
        self, keys: tuple[ObjectKey, ...], direction: Direction, protocol: str
    ) -> tuple[Rule, ...]:
        """The rules of these policies that are about the protocol; one that only logs does not
        decide."""
        found = self._rules.get((keys, direction, protocol))
        if found is None:
            rules = (rule for key in keys for rule in self._state.policies[key].rules(direction))
            found = self._rules[keys, direction, protocol] = tuple(
                rule
                for rule in rules
                if rule.action is not Action.LOG
                and (not rule.match.protocol or _protocol(rule.match.protocol) == protocol)
            )
        return found

    # Rules

    def matches(self, match: Match, flow: Flow) -> bool:
        """Whether all conditions of a rule hold. The flow's addresses are canonical."""
        if match.protocol and _protocol(match.protocol) != flow.protocol:
            return False
        if match.not_protocol and _protocol(match.not_protocol) == flow.protocol:
            return False
        if match.version and match.version != (6 if ":" in flow.destination else 4):
            return False
        if match.icmp is not None and not _icmp(match.icmp, flow.icmp):
            return False
        if match.not_icmp is not None and _icmp(match.not_icmp, flow.icmp):
            return False
        return self._side(
            match.destination, flow.destination, flow.destination_port, flow
        ) and self._side(match.source, flow.source, flow.source_port, flow)

    def _side(self, side: Side, address: str, port: int, flow: Flow) -> bool:
        """An ANY by identity is the frequent case, and comparing it would be most of the work."""
        if side is ANY:
            return True
        if side.domains:
            return any(_is_name(pattern, flow.name) for pattern in side.domains)
        return self._ports(side, address, port, flow.protocol) and self._address(side, address)

    def _address(self, side: Side, address: str) -> bool:
        for set_id in side.sets:
            if not self._in_set(set_id, address):
                return False
        for set_id in side.not_sets:
            if self._in_set(set_id, address):
                return False
        if side.nets is not None and not _in_any(address, side.nets):
            return False
        return not _in_any(address, side.not_nets)

    def _ports(self, side: Side, address: str, port: int, protocol: str) -> bool:
        if (side.ports or side.port_sets) and not self._is_port(
            side.ports, side.port_sets, address, port, protocol
        ):
            return False
        return not self._is_port(side.not_ports, side.not_port_sets, address, port, protocol)

    def _is_port(
        self,
        ranges: tuple[PortRange, ...],
        sets: tuple[str, ...],
        address: str,
        port: int,
        protocol: str,
    ) -> bool:
        for one in ranges:
            if one.first <= port <= one.last:
                return True
        if not sets:
            return False
        member = f"{address},{protocol.lower()}:{port}"
        return any(member in self._state.members[set_id] for set_id in sets)

    def _in_set(self, set_id: str, address: str) -> bool:
        members = self._state.members[set_id]
        if (f"{address}/128" if ":" in address else f"{address}/32") in members:
            return True
        kinds = self._state.sets[set_id].definition.kinds
        if EndpointKind.NETWORK_SET not in kinds:
            return False
        known = self._networks.get(set_id)
        if known is None or known[0] is not members:
            wide = (text for text in members if not text.endswith(("/32", "/128")))
            known = self._networks[set_id] = (members, tuple(map(_network, wide)))
        return any(_parsed(address) in network for network in known[1])


def _isolated(tier: str, keys: tuple[ObjectKey, ...]) -> Decision:
    named = ", ".join(map(str, keys[:3]))
    if len(keys) > 3:
        named += f" and {len(keys) - 3} more"
    text = f"isolated by {named}, no rule allows"
    return Decision(False, None, tier, text, isolated_by=keys)


def _undecided(acting: Applied, direction: Direction, passed: Origin | None) -> str:
    if passed is not None:
        return f"{passed} passes, and no later tier decides: traffic is allowed"
    if acting.tiers(direction):
        return "no rule of the policies that select the pod matches: traffic is allowed"
    if acting.ingress or acting.egress:
        return f"no policy that selects the pod acts on its {direction.value}"
    return "no policy selects the pod"


def _no_pod(address: str) -> Decision:
    return Decision(True, None, "", f"{address} is not a pod's address: no policy acts on it")


def _protocol(text: str) -> str:
    return _NUMBERS.get(text, text.upper())


def _icmp(wanted: ICMP, found: ICMP | None) -> bool:
    return (
        found is not None
        and wanted.type == found.type
        and (wanted.code is None or wanted.code == found.code)
    )


def _is_name(pattern: str, name: str) -> bool:
    """`*.` stands for one or more labels; a dot at the end says nothing more."""
    pattern, name = pattern.rstrip(".").lower(), name.rstrip(".").lower()
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) >= len(pattern)
    return bool(name) and name == pattern


def _in_any(address: str, networks: tuple[str, ...]) -> bool:
    return bool(networks) and any(_parsed(address) in _network(one) for one in networks)


@lru_cache(maxsize=16384)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


@lru_cache(maxsize=16384)
def _network(text: str) -> Network:
    return ipaddress.ip_network(text, strict=False)


def _address(text: str) -> str:
    return str(_parsed(text))
