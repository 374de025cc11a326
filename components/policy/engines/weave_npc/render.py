"""The chains and sets of Weave NPC for a State. Pure.

Ingress: every packet to the bridge goes through WEAVE-NPC. What belongs to a connection is
accepted, and what leaves by a port of the bridge that leads to other nodes, because the node of the
destination decides. A new connection is accepted if its destination is in the set of pods that no
ingress policy selects (WEAVE-NPC-DEFAULT), or if a rule matches (WEAVE-NPC-INGRESS). The rest comes
back to FORWARD, where weave-net logs and drops it.

Egress: every packet from the bridge goes through WEAVE-NPC-EGRESS before that. A packet is marked if
its source is in the set of pods that no egress policy selects (WEAVE-NPC-EGRESS-DEFAULT), or if a
rule matches (WEAVE-NPC-EGRESS-CUSTOM); what has no mark is logged and dropped. That last part
exists only while there is an egress policy.

Source: github.com/weaveworks/weave, npc/ and prog/weave-npc. As there, a policy with a named port is
rejected as a whole, and endPort is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubewire.components.kernel.iptables import Chain, Ruleset
from kubewire.components.policy.applier import IPSet
from kubewire.components.policy.engines.weave_npc import names
from kubewire.components.policy.model import (
    Definition,
    Direction,
    Endpoint,
    EndpointKind,
    Match,
    ObjectKey,
    Policy,
    Rule,
    Side,
    State,
)

_MULTICAST = "224.0.0.0/4"
#: What iptables takes.
_LONGEST_COMMENT = 255
_KIND = "NetworkPolicy"


@dataclass(frozen=True)
class Options:
    """bridge_ports: the ports of the bridge `weave` that lead to other nodes.
    allow_multicast: weave-npc's --allow-mcast."""

    bridge_ports: tuple[str, ...] = ("vethwe-bridge", "vxlan-6784")
    allow_multicast: bool = True


@dataclass(frozen=True)
class Rendered:
    """sets: lists of sets come after the sets that they list. rejected: why a policy is left
    out."""

    ruleset: Ruleset
    sets: tuple[IPSet, ...]
    rejected: Mapping[ObjectKey, str]


def render(state: State, options: Options) -> Rendered:
    """Everything that the kernel of a node should have."""
    rejected = {
        key: reason
        for key, policy in state.policies.items()
        if key.kind == _KIND and (reason := _why_rejected(policy))
    }
    policies = [
        policy
        for key, policy in sorted(state.policies.items())
        if key.kind == _KIND and key not in rejected
    ]
    pods = _Pods.of(state)
    namespaces = sorted({pod.key.namespace for pod in pods.all})
    sets = _sets(state, policies, pods, namespaces)
    rules = _chains(state, policies, namespaces, options)
    return Rendered(Ruleset(tuple(rules)), tuple(sets), rejected)


def _why_rejected(policy: Policy) -> str:
    for direction in Direction:
        for rule in policy.rules(direction):
            if rule.match.source.port_sets or rule.match.destination.port_sets:
                return (
                    "named ports in network policies is not supported yet. Rejecting network "
                    f"policy: {policy.key.name} from further processing"
                )
    return ""


@dataclass(frozen=True)
class _Pods:
    """The pods that have an IPv4 address. by_address: an address that two pods have is the first
    one's. selected: the pods that a policy selects, by its key and direction."""

    all: tuple[Endpoint, ...]
    by_address: Mapping[str, Endpoint]
    selected: Mapping[tuple[ObjectKey, Direction], tuple[Endpoint, ...]]

    @classmethod
    def of(cls, state: State) -> _Pods:
        found = (one for one in state.endpoints.values() if one.kind is EndpointKind.POD)
        every = sorted((pod for pod in found if pod.address(4)), key=lambda pod: pod.key)
        by_address = {pod.address(4): pod for pod in reversed(every)}
        selected: dict[tuple[ObjectKey, Direction], list[Endpoint]] = {}
        for pod in every:
            for direction in Direction:
                for _, keys in state.applied[pod.key].tiers(direction):
                    for key in keys:
                        selected.setdefault((key, direction), []).append(pod)
        return cls(tuple(every), by_address, {key: tuple(pods) for key, pods in selected.items()})

    def subjects(self, policy: Policy) -> tuple[str, ...]:
        """The members of the set of the policy's own pods."""
        direction = next(iter(policy.directions))
        return _members(self.selected.get((policy.key, direction), ()))

    def of_set(self, state: State, name: str) -> tuple[str, ...]:
        """The members of a set that the compiler keeps."""
        addresses = sorted(member.partition("/")[0] for member in state.members[name])
        found = (self.by_address.get(address) for address in addresses)
        return _members(pod for pod in found if pod is not None)


def _members(pods: Iterable[Endpoint]) -> tuple[str, ...]:
    """An address is there once, with the first pod's name, while two pods have it."""
    by_address: dict[str, str] = {}
    for pod in pods:
        comment = f"namespace: {pod.key.namespace}, pod: {pod.key.name}"
        by_address.setdefault(pod.address(4), f'comment "{comment}"')
    return tuple(f"{address} {comment}" for address, comment in by_address.items())


# --- sets ---


def _sets(
    state: State, policies: list[Policy], pods: _Pods, namespaces: list[str]
) -> Iterator[IPSet]:
    made: dict[str, IPSet] = {}
    isolating = {
        direction: {policy.key for policy in policies if direction in policy.directions}
        for direction in Direction
    }
    inside_of: dict[str, list[Endpoint]] = {name: [] for name in namespaces}
    for pod in pods.all:
        inside_of[pod.key.namespace].append(pod)
    for namespace, inside in inside_of.items():
        name = names.name_of(Definition(namespace=namespace))
        made[name] = IPSet(name, "hash:ip comment", _members(inside))
        for direction in Direction:
            name = default_name(namespace, direction)
            open_pods = (
                pod for pod in inside if not _isolated(state, pod, direction, isolating[direction])
            )
            made[name] = IPSet(name, "hash:ip comment", _members(open_pods))
    lists: dict[str, IPSet] = {}
    for policy in policies:
        name = names.name_of(policy.subjects)
        if name not in made:
            made[name] = IPSet(name, "hash:ip comment", pods.subjects(policy))
        for identifier in _peers_of(policy):
            definition = state.sets[identifier].definition
            name = names.name_of(definition)
            if name in made or name in lists:
                continue
            if names.selects_namespaces(definition):
                members = _namespaces_of(pods, state, identifier)
                lists[name] = IPSet(name, "list:set comment", members)
            else:
                members = pods.of_set(state, identifier)
                made[name] = IPSet(name, "hash:ip comment", members)
        for side, excepted in _exceptions(policy):
            name = _except_name(policy, excepted)
            comment = f'comment "excepted from {side.nets[0] if side.nets else ""}"'
            members = tuple(f"{net} {comment}" for net in excepted)
            made[name] = IPSet(name, "hash:net comment", members)
    yield from made.values()
    yield from lists.values()


def _isolated(state: State, pod: Endpoint, direction: Direction, isolating: set[ObjectKey]) -> bool:
    applied = state.applied[pod.key].tiers(direction)
    return any(key in isolating for _, keys in applied for key in keys)


def default_name(namespace: str, direction: Direction) -> str:
    """The set of the pods of a namespace that no policy isolates in a direction."""
    return names.set_name(f"{direction.value}-default-allow:{namespace}")


def _namespaces_of(pods: _Pods, state: State, identifier: str) -> tuple[str, ...]:
    """The sets of all pods of the namespaces in a set that the compiler keeps."""
    addresses = (member.partition("/")[0] for member in state.members[identifier])
    found = (pods.by_address.get(address) for address in addresses)
    selected = sorted({pod.key.namespace for pod in found if pod is not None})
    return tuple(
        f'{names.name_of(Definition(namespace=name))} comment "namespace: {name}"'
        for name in selected
    )


def _peers_of(policy: Policy) -> Iterator[str]:
    """The ids of the sets of its peers."""
    for direction in Direction:
        for rule in policy.rules(direction):
            yield from (*rule.match.source.sets, *rule.match.destination.sets)


def _exceptions(policy: Policy) -> Iterator[tuple[Side, tuple[str, ...]]]:
    for direction in Direction:
        for rule in policy.rules(direction):
            for side in (rule.match.source, rule.match.destination):
                if side.not_nets:
                    yield side, tuple(sorted(side.not_nets))


def _except_name(policy: Policy, excepted: Iterable[str]) -> str:
    return names.set_name(f"{policy.key.namespace}:ipblock-except:{' '.join(excepted)}")


# --- chains ---


def _chains(
    state: State, policies: list[Policy], namespaces: list[str], options: Options
) -> Iterator[Chain]:
    ingress, egress = ([], [])  # type: tuple[list[str], list[str]]
    for policy in policies:
        for rule in policy.ingress:
            ingress += rules_of(state, policy, rule, Direction.INGRESS)
        for rule in policy.egress:
            egress += rules_of(state, policy, rule, Direction.EGRESS)
    has_egress = any(Direction.EGRESS in policy.directions for policy in policies)
    yield _chain(names.EGRESS_ACCEPT, [f"-j MARK --set-xmark {names.EGRESS_MARK}"])
    yield _chain(names.DEFAULT, [_default_ingress(name) for name in namespaces])
    yield _chain(names.INGRESS, [f"{rule} -j ACCEPT" for rule in dict.fromkeys(ingress)])
    yield _chain(
        names.EGRESS_DEFAULT,
        [rule for name in namespaces for rule in _default_egress(name)],
    )
    yield _chain(
        names.EGRESS_CUSTOM,
        [
            f"{rule} -j {target}"
            for rule in dict.fromkeys(egress)
            for target in (names.EGRESS_ACCEPT, "RETURN")
        ],
    )
    yield _chain(names.MAIN, list(_main(options)))
    yield _chain(names.EGRESS, list(_egress(options, has_egress)))


def _chain(name: str, rules: list[str]) -> Chain:
    return Chain("filter", name, tuple(rules))


def _main(options: Options) -> Iterator[str]:
    yield "-m state --state RELATED,ESTABLISHED -j ACCEPT"
    if options.allow_multicast:
        yield f"-d {_MULTICAST} -j ACCEPT"
    for port in options.bridge_ports:
        yield f"-m physdev --physdev-out {port} --physdev-is-bridged -j ACCEPT"
    yield f"-m state --state NEW -j {names.DEFAULT}"
    yield f"-m state --state NEW -j {names.INGRESS}"


def _egress(options: Options, has_egress: bool) -> Iterator[str]:
    unmarked = f"-m mark ! --mark {names.EGRESS_MARK}"
    yield "-m state --state RELATED,ESTABLISHED -j ACCEPT"
    for port in options.bridge_ports:
        yield f"-m physdev --physdev-in {port} --physdev-is-bridged -j RETURN"
    yield "-m addrtype --dst-type LOCAL -j RETURN"
    if options.allow_multicast:
        yield f"-d {_MULTICAST} -j RETURN"
    yield f"-m state --state NEW -j {names.EGRESS_DEFAULT}"
    yield f"-m state --state NEW {unmarked} -j {names.EGRESS_CUSTOM}"
    if has_egress:
        yield f"-m state --state NEW {unmarked} -j NFLOG --nflog-group {names.NFLOG_GROUP}"
        yield f"{unmarked} -j DROP"


def _default_ingress(namespace: str) -> str:
    name = default_name(namespace, Direction.INGRESS)
    comment = f"DefaultAllow ingress isolation for namespace: {namespace}"
    return f'-m set --match-set {name} dst -m comment --comment "{comment}" -j ACCEPT'


def _default_egress(namespace: str) -> Iterator[str]:
    name = default_name(namespace, Direction.EGRESS)
    comment = f"DefaultAllow egress isolation for namespace: {namespace}"
    for target in (names.EGRESS_ACCEPT, "RETURN"):
        yield f'-m set --match-set {name} src -m comment --comment "{comment}" -j {target}'


def rules_of(state: State, policy: Policy, rule: Rule, direction: Direction) -> Iterator[str]:
    """The matches of a rule in the order of iptables-save, once for each of its ports; nothing for
    a rule that IPv4 cannot match."""
    match = rule.match
    own = _Words.of_pods(policy.subjects, "dst" if direction is Direction.INGRESS else "src")
    peer_side = match.source if direction is Direction.INGRESS else match.destination
    peer = _peer(state, policy, peer_side, "src" if direction is Direction.INGRESS else "dst")
    if peer is None:
        return
    source, destination = (peer, own) if direction is Direction.INGRESS else (own, peer)
    comment = f"{source.comment} -> {destination.comment} ({direction.value})"
    for port in _ports(match):
        words = [
            source.address,
            destination.address,
            f"-p {match.protocol.lower()}" if match.protocol else "",
            source.matches,
            destination.matches,
            port,
            f'-m comment --comment "{comment[:_LONGEST_COMMENT]}"',
        ]
        yield " ".join(word for word in words if word)


def _ports(match: Match) -> Iterator[str]:
    """The first port of each range: endPort is younger than weave-npc, which does not read it."""
    for port in match.destination.ports:
        yield f"-m {match.protocol.lower()} --dport {port.first}"
    if not match.destination.ports:
        yield ""


@dataclass(frozen=True)
class _Words:
    """The words of one end in a rule. address: -s or -d. matches: of sets."""

    address: str = ""
    matches: str = ""
    comment: str = "anywhere"

    @classmethod
    def of_pods(cls, definition: Definition, side: str) -> _Words:
        matches = f"-m set --match-set {names.name_of(definition)} {side}"
        return cls(matches=matches, comment=names.comment_of(definition))


def _peer(state: State, policy: Policy, side: Side, place: str) -> _Words | None:
    """None for a block of another IP version."""
    if side.sets:
        return _Words.of_pods(state.sets[side.sets[0]].definition, place)
    if side.nets is None:
        return _Words()
    block = side.nets[0]
    if ":" in block:
        return None
    address = f"-{'s' if place == 'src' else 'd'} {block}"
    excepted = sorted(side.not_nets)
    if not excepted:
        return _Words(address=address, comment=f"cidr: {block}")
    name = _except_name(policy, excepted)
    comment = f"cidr: {block} except [{' '.join(excepted)}]"
    return _Words(address, f"-m set ! --match-set {name} {place}", comment)
