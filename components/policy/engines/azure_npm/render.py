"""The chains and sets of Azure NPM for a State. Pure.

FORWARD leads new connections to AZURE-NPM, which has rules as long as there is a policy:

    AZURE-NPM           -j AZURE-NPM-INGRESS, -j AZURE-NPM-EGRESS, -j AZURE-NPM-ACCEPT
    AZURE-NPM-INGRESS   for each policy: destination in its pods -> the policy's chain; drop what is
                        marked 0x400
    the policy's chain  for each rule: -j AZURE-NPM-INGRESS-ALLOW-MARK; then mark 0x400
    ...-ALLOW-MARK      mark 0x200; -j AZURE-NPM-EGRESS
    AZURE-NPM-EGRESS    for each policy: source in its pods -> the policy's chain; drop what is marked
                        0x800; accept what is marked 0x200
    the policy's chain  for each rule: -j AZURE-NPM-ACCEPT; then mark 0x800

So a connection that one of a pod's policies allows leaves the chains before the mark of another
policy can drop it, and ingress is decided before egress.

Source: github.com/Azure/azure-container-networking, npm/pkg/dataplane and
npm/pkg/controlplane/translation (version 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.policy.applier import IPSet
from kubewire.components.policy.engines.azure_npm import names
from kubewire.components.policy.engines.azure_npm.names import Match
from kubewire.components.policy.model import (
    Definition,
    Direction,
    EndpointKind,
    ObjectKey,
    Policy,
    Rule,
    Side,
    State,
)

_KIND = "NetworkPolicy"
#: What iptables takes.
_LONGEST_COMMENT = 255
#: Characters that iptables-save writes without quotes.
_PLAIN = frozenset("_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_EVERYTHING = Definition()
#: iptables' and upstream's words of a direction: the chain of its policies, the end of the policy's
#: own pods and that of its peers, the name in a block's set.
_CHAINS = {Direction.INGRESS: names.INGRESS, Direction.EGRESS: names.EGRESS}
_OWN = {Direction.INGRESS: "dst", Direction.EGRESS: "src"}
_PEERS = {Direction.INGRESS: "src", Direction.EGRESS: "dst"}
_IN_OUT = {Direction.INGRESS: "IN", Direction.EGRESS: "OUT"}
_TARGETS = {Direction.INGRESS: names.INGRESS_ALLOW, Direction.EGRESS: names.ACCEPT}
_DROP_MARKS = {
    Direction.INGRESS: names.INGRESS_DROP_MARK,
    Direction.EGRESS: names.EGRESS_DROP_MARK,
}


@dataclass(frozen=True)
class Rendered:
    """sets: lists of sets come after the sets that they list. rejected: why a policy is left
    out."""

    ruleset: Ruleset
    sets: tuple[IPSet, ...]
    rejected: Mapping[ObjectKey, str]


def render(state: State) -> Rendered:
    """Everything that the kernel of a node should have."""
    every = [policy for key, policy in sorted(state.policies.items()) if key.kind == _KIND]
    rejected = {policy.key: reason for policy in every if (reason := _why_rejected(policy))}
    policies = [policy for policy in every if policy.key not in rejected]
    needed: dict[str, Match] = {}
    blocks: dict[str, Side] = {}
    chains = [*_base_chains(bool(policies))]
    jumps: dict[Direction, list[str]] = {direction: [] for direction in Direction}
    for policy in policies:
        for direction in sorted(policy.directions, key=lambda one: one.value):
            writer = _PolicyChain(state, policy, direction, needed, blocks)
            chains.append(writer.chain())
            jumps[direction] += writer.jumps()
    chains += [_ingress(jumps[Direction.INGRESS]), _egress(jumps[Direction.EGRESS])]
    lead = Lead("filter", "FORWARD", (f"-m conntrack --ctstate NEW -j {names.MAIN}",), at_head=True)
    ruleset = Ruleset(tuple(chains), (lead,), owned=(("filter", f"{names.MAIN}-"),))
    return Rendered(ruleset, tuple(_sets(state, needed, blocks)), rejected)


def _why_rejected(policy: Policy) -> str:
    for direction in Direction:
        for rule in policy.rules(direction):
            for side in (rule.match.source, rule.match.destination):
                if any(":" in net for net in side.nets or ()):
                    return "unsupported IP address"
    return ""


# --- chains ---


def _base_chains(active: bool) -> Iterator[Chain]:
    order = (names.INGRESS, names.EGRESS, names.ACCEPT) if active else ()
    yield _chain(names.MAIN, [f"-j {name}" for name in order])
    yield _chain(names.ACCEPT, ["-j ACCEPT"])
    mark = names.INGRESS_ALLOW_MARK
    yield _chain(
        names.INGRESS_ALLOW,
        [
            f"{_comment(f'SET-INGRESS-ALLOW-MARK-{mark}')} -j MARK --set-xmark {mark}",
            f"-j {names.EGRESS}",
        ],
    )


def _ingress(jumps: list[str]) -> Chain:
    mark = names.INGRESS_DROP_MARK
    drop = f"-m mark --mark {mark} {_comment(f'DROP-ON-INGRESS-DROP-MARK-{mark}')} -j DROP"
    return _chain(names.INGRESS, [*jumps, drop])


def _egress(jumps: list[str]) -> Chain:
    drop, allow = names.EGRESS_DROP_MARK, names.INGRESS_ALLOW_MARK
    return _chain(
        names.EGRESS,
        [
            *jumps,
            f"-m mark --mark {drop} {_comment(f'DROP-ON-EGRESS-DROP-MARK-{drop}')} -j DROP",
            f"-m mark --mark {allow} {_comment(f'ACCEPT-ON-INGRESS-ALLOW-MARK-{allow}')} "
            f"-j {names.ACCEPT}",
        ],
    )


def _chain(name: str, rules: list[str]) -> Chain:
    return Chain("filter", name, tuple(rules))


def rules_of(state: State, policy: Policy, rule: Rule, direction: Direction) -> tuple[str, ...]:
    """The lines of the policy's chain that stand for a rule."""
    chain = _PolicyChain(state, policy, direction, {}, {})
    if any(_allows_everything(one) for one in policy.rules(direction)):
        return tuple(map(str, chain.chain().rules))
    return tuple(chain.words_of(rule))


def policy_chain(policy: ObjectKey, direction: Direction) -> str:
    """The name of a policy's chain."""
    return names.chain_name(_CHAINS[direction], policy)


class _PolicyChain:
    """The chain of one policy and direction. needed, blocks: gather the sets that it matches, and
    the blocks among them."""

    def __init__(
        self,
        state: State,
        policy: Policy,
        direction: Direction,
        needed: dict[str, Match],
        blocks: dict[str, Side],
    ) -> None:
        self._state, self._policy, self._direction = state, policy, direction
        self._needed, self._blocks = needed, blocks
        self._name = policy_chain(policy.key, direction)

    def chain(self) -> Chain:
        """A policy that allows everything has that rule alone."""
        rules = self._policy.rules(self._direction)
        if any(_allows_everything(rule) for rule in rules):
            target = _TARGETS[self._direction]
            return _chain(self._name, [f"{_comment('ALLOW-ALL')} -j {target}"])
        mark = f"-j MARK --set-xmark {_DROP_MARKS[self._direction]}"
        written = [words for rule in rules for words in self.words_of(rule)]
        return _chain(self._name, [*written, f"{_comment('DROP-ALL')} {mark}"])

    def jumps(self) -> Iterator[str]:
        """The rules that lead to the chain."""
        policy, side = self._policy, _OWN[self._direction]
        word, to_from = ("INGRESS", "TO") if side == "dst" else ("EGRESS", "FROM")
        for found in names.matches_of(policy.subjects, policy.key):
            self._need(found)
            pods = "-AND-".join(map(str, found))
            text = (
                f"{word}-POLICY-{names.policy_key(policy.key)}-{to_from}-{pods}"
                f"-IN-ns-{policy.key.namespace}"
            )
            words = [*(one.words(side) for one in found), _comment(text), f"-j {self._name}"]
            yield " ".join(words)

    def words_of(self, rule: Rule) -> Iterator[str]:
        for peers in self._peers(rule):
            self._need(peers)
            for port, words, text in self._ports(rule):
                protocol = rule.match.protocol.lower()
                matches = [
                    f"-p {protocol}" if protocol else "",
                    f"-m {protocol} --dport {port}" if port else "",
                    *(one.words(_PEERS[self._direction]) for one in peers),
                    words,
                    _comment(self._says(peers, rule.match.protocol, text)),
                    f"-j {_TARGETS[self._direction]}",
                ]
                yield " ".join(word for word in matches if word)

    def _says(self, peers: tuple[Match, ...], protocol: str, port: str) -> str:
        word = "FROM" if self._direction is Direction.INGRESS else "TO"
        who = f"-{word}-{'-AND-'.join(map(str, peers))}" if peers else "-ALL"
        return f"ALLOW{who}{f'-ON-{protocol}' if protocol else ''}{port}"

    def _peers(self, rule: Rule) -> list[tuple[Match, ...]]:
        side = _peer_side(rule, self._direction)
        if side.nets is not None:
            number, peer = rule.origin.rule, rule.origin.peer or 0
            key = self._policy.key
            name = (
                f"cidr-{key.name}:in-ns:{key.namespace}-{number}-{peer}{_IN_OUT[self._direction]}"
            )
            self._blocks[name] = side
            return [(Match(name),)]
        definition = _peer_definition(self._state, side)
        if definition is None:
            return [()]
        return names.matches_of(definition, self._policy.key)

    def _ports(self, rule: Rule) -> Iterator[tuple[str, str, str]]:
        """The port or range for --dport, the match of a named port, and the comment's words."""
        side = rule.match.destination
        for port in side.ports:
            yield str(port), "", f"-TO-PORT-{port}"
        for name in side.port_sets:
            named = self._state.sets[name].named_port
            assert named is not None
            match = Match(f"namedport:{named.name}")
            self._need((match,))
            yield "", match.words("dst,dst"), f"-TO-{match}"
        if not side.ports and not side.port_sets:
            yield "", "", ""

    def _need(self, matches: Iterable[Match]) -> None:
        self._needed.update((one.name, one) for one in matches)


def _allows_everything(rule: Rule) -> bool:
    match = rule.match
    return not match.protocol and match.source == Side() and match.destination == Side()


def _peer_side(rule: Rule, direction: Direction) -> Side:
    return rule.match.source if direction is Direction.INGRESS else rule.match.destination


def _peer_definition(state: State, side: Side) -> Definition | None:
    """The peer's pods, also where they are only in the set of a named port."""
    for name in (*side.sets, *side.port_sets):
        if (definition := state.sets[name].definition) != _EVERYTHING:
            return definition
    return None


def _comment(text: str) -> str:
    text = text[:_LONGEST_COMMENT]
    return f"-m comment --comment {text if set(text) <= _PLAIN else f'{chr(34)}{text}{chr(34)}'}"


# --- sets ---


def _sets(state: State, needed: Mapping[str, Match], blocks: Mapping[str, Side]) -> Iterator[IPSet]:
    """Those of addresses first, then the lists."""
    pods = _Pods.of(state)
    listed: dict[str, tuple[str, ...]] = {}
    plain: dict[str, tuple[str, ...]] = {}
    ports: dict[str, tuple[str, ...]] = {}
    for name, match in needed.items():
        if name.startswith("nslabel-"):
            listed[name] = tuple(pods.namespaces.get(name, ()))
        elif match.listed:
            listed[name] = match.listed
        elif name in blocks:
            plain[name] = tuple(_block(blocks[name]))
        elif name.startswith("namedport:"):
            ports[name] = tuple(pods.ports.get(name, ()))
        else:
            plain[name] = tuple(pods.addresses.get(name, ()))
    for name in dict.fromkeys(one for members in listed.values() for one in members):
        plain.setdefault(name, tuple(pods.addresses.get(name, ())))
    for name in sorted(plain):
        yield IPSet(names.set_name(name), "hash:net", plain[name])
    for name in sorted(ports):
        yield IPSet(names.set_name(name), "hash:ip,port", ports[name])
    for name in sorted(listed):
        members = tuple(names.set_name(one) for one in listed[name])
        yield IPSet(names.set_name(name), "list:set", members)


@dataclass(frozen=True)
class _Pods:
    """The pods with an IPv4 address, by the names of the sets that they are in. The values are
    dictionaries because these keep an order and each member once.

    addresses: of `ns-...` and `podlabel-...`. ports: of `namedport:...`. namespaces: the sets of
    namespaces in each list `nslabel-...`.
    """

    addresses: Mapping[str, dict[str, None]]
    ports: Mapping[str, dict[str, None]]
    namespaces: Mapping[str, dict[str, None]]

    @classmethod
    def of(cls, state: State) -> _Pods:
        addresses: dict[str, dict[str, None]] = {}
        ports: dict[str, dict[str, None]] = {}
        namespaces: dict[str, dict[str, None]] = {}
        found = (one for one in state.endpoints.values() if one.kind is EndpointKind.POD)
        for pod in sorted(found, key=lambda pod: pod.key):
            address, namespace = pod.address(4), f"ns-{pod.key.namespace}"
            if not address:
                continue
            for name in (namespace, *_labels("podlabel", pod.labels)):
                addresses.setdefault(name, {})[address] = None
            for name in (names.ALL_NAMESPACES, *_labels("nslabel", pod.namespace_labels)):
                namespaces.setdefault(name, {})[namespace] = None
            for port in pod.ports:
                member = f"{address},{port.protocol.lower()}:{port.number}"
                ports.setdefault(f"namedport:{port.name}", {})[member] = None
        return cls(
            addresses, ports, {name: dict(sorted(of.items())) for name, of in namespaces.items()}
        )


def _labels(prefix: str, labels: Mapping[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        yield f"{prefix}-{key}"
        yield f"{prefix}-{key}:{value}"


def _block(side: Side) -> Iterator[str]:
    """A set of networks cannot have /0, so that is written as its halves."""
    excepted = list(side.not_nets)
    for net in side.nets or ():
        halves = ("0.0.0.0/1", "128.0.0.0/1") if net == "0.0.0.0/0" else (net,)
        yield from (half for half in halves if half not in excepted)
    yield from (f"{net} nomatch" for net in excepted)
