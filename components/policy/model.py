"""What the compiler makes of policies: the values that the evaluator and every engine read.

A policy is a list of rules for each direction, and belongs to a tier. The rules that act on an
endpoint in one direction are those of the policies that select it, tier by tier, in the order of
their policies. The first rule that matches decides: ALLOW and DENY end the search, PASS skips the
rest of the tier, LOG notes the packet and goes on. If at least one policy of a tier selects the
endpoint in this direction and no rule matches, the tier's default action applies. After all tiers
the traffic is allowed (Calico: what the endpoint's profiles say).

NetworkPolicy is the special case of one tier whose policies have only ALLOW rules and whose default
action is DENY: so a pod is isolated as soon as a policy selects it, and policies add up.

Every rule keeps its origin, so that an answer can name the object, the rule and the peer.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kubewire.components.policy.selectors import EVERYTHING, Selector


class Direction(enum.Enum):
    """As the protected endpoint sees it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Action(enum.Enum):
    """What a rule does with a packet that matches, or a tier with one that no rule matches."""

    ALLOW = "Allow"
    DENY = "Deny"
    PASS = "Pass"
    LOG = "Log"


class EndpointKind(enum.Enum):
    """What a selector can select. Only pods are subjects of policies of Kubernetes."""

    POD = "Pod"
    NETWORK_SET = "NetworkSet"
    HOST = "HostEndpoint"
    NODE = "Node"


class ObjectKey(NamedTuple):
    """An API object. namespace: "" for one of the whole cluster. A tuple, because indexes look it up
    millions of times, and a tuple's hash is that much faster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}"


@dataclass(frozen=True)
class Origin:
    """Where a rule comes from.

    rule: the index in the object's list for the direction. peer: the index in the rule's list of
    peers, None if the rule has none. name: the rule's own name, where its kind has one.
    """

    policy: ObjectKey
    direction: Direction
    rule: int
    peer: int | None = None
    name: str = ""

    def __str__(self) -> str:
        """Such as `NetworkPolicy default/web, ingress[0].from[1]`."""
        text = f"{self.policy}, {self.direction.value}[{self.rule}]"
        if self.peer is not None:
            text += f".{'from' if self.direction is Direction.INGRESS else 'to'}[{self.peer}]"
        return f"{text} ({self.name})" if self.name else text


@dataclass(frozen=True, order=True)
class PortRange:
    """Ports from first to last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}:{self.last}"


@dataclass(frozen=True, order=True)
class NamedPort:
    """A port by the name that a container gives it; each pod has its own number for it."""

    protocol: str
    name: str


@dataclass(frozen=True)
class Definition:
    """The endpoints that an address set is made of.

    An endpoint belongs to it if its kind is among kinds and all selectors match. namespace: only
    endpoints in it, "" for no such limit. namespaces, service_accounts: selectors of the labels of
    the endpoint's namespace and service account, None for no such limit. only_global: only objects
    without a namespace (Calico's global()).
    """

    selector: Selector = EVERYTHING
    namespace: str = ""
    namespaces: Selector | None = None
    service_accounts: Selector | None = None
    only_global: bool = False
    kinds: frozenset[EndpointKind] = frozenset({EndpointKind.POD})


@dataclass(frozen=True)
class AddressSet:
    """A set of which rules need the members, which change more often than the rules do.

    id: the same for the same definition, so that two rules share a set. Its members are CIDRs
    (`10.244.1.7/32`, or those of a network set). With named_port the members are addresses with
    protocol and port: `10.244.1.7,tcp:8080`, of those endpoints that have a port of this name.
    """

    id: str
    definition: Definition
    named_port: NamedPort | None = None


@dataclass(frozen=True)
class Side:
    """The conditions on a packet's source or destination. All that are given must hold.

    sets, not_sets: in every one of sets, in none of not_sets (AddressSet.id). nets: in one of these
    CIDRs; None for any, an empty tuple for nowhere. not_nets: in none of them. ports, port_sets: the
    port is in one of these ranges, or the address with its port is in one of these sets; both empty
    for any port. not_ports, not_port_sets: in none of them. domains: one of these names (`*.` in
    front stands for one or more labels) resolves to the address; nets is () beside it, so that an
    engine that does not see DNS answers takes it for nowhere.
    """

    sets: tuple[str, ...] = ()
    not_sets: tuple[str, ...] = ()
    nets: tuple[str, ...] | None = None
    not_nets: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ()
    port_sets: tuple[str, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    not_port_sets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


ANY = Side()


@dataclass(frozen=True)
class ICMP:
    """An ICMP type, and a code if it is not None."""

    type: int
    code: int | None = None


@dataclass(frozen=True)
class Match:
    """The conditions of a rule. All that are given must hold.

    protocol: TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a decimal number; "" for any. version: 4 or
    6, 0 for both.
    """

    protocol: str = ""
    not_protocol: str = ""
    version: int = 0
    icmp: ICMP | None = None
    not_icmp: ICMP | None = None
    source: Side = ANY
    destination: Side = ANY


@dataclass(frozen=True)
class Rule:
    """action is taken for a packet for which match holds."""

    action: Action
    match: Match
    origin: Origin


@dataclass(frozen=True)
class Tier:
    """order: lower ones first; equal ones by name. default_action: DENY or PASS."""

    name: str
    order: float
    default_action: Action


@dataclass(frozen=True)
class Policy:
    """A compiled policy.

    order: lower ones first within the tier; equal ones by key. subjects: what it selects.
    directions: those in which it acts on its subjects, with or without rules. do_not_track,
    pre_dnat, apply_on_forward: Calico's fields for host endpoints.
    """

    key: ObjectKey
    tier: str
    order: float
    subjects: Definition
    directions: frozenset[Direction]
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True)
class ContainerPort:
    """A port of a container. name: "" if it has none."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True)
class Endpoint:
    """What policies can select: a pod, a network set, a host endpoint, a node (only as a peer).

    addresses: without prefix lengths; a network set's are CIDRs. node: the node that it runs on.
    interface: of a host endpoint. labels: its own. namespace_labels, account_labels: of its
    namespace and of its service account. Pods with hostNetwork, and pods that have ended, are no
    endpoints.
    """

    key: ObjectKey
    kind: EndpointKind
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    node: str = ""
    uid: str = ""
    service_account: str = ""
    ports: tuple[ContainerPort, ...] = ()
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    account_labels: Mapping[str, str] = field(default_factory=dict)
    interface: str = ""

    def address(self, version: int) -> str:
        """The first address of an IP version, "" if there is none."""
        found = (one for one in self.addresses if (":" in one) == (version == 6))
        return next(found, "")

    def is_in(self, definition: Definition) -> bool:
        """Whether the endpoint belongs to a definition."""
        namespace = self.key.namespace
        return (
            self.kind in definition.kinds
            and (not definition.namespace or namespace == definition.namespace)
            and not (definition.only_global and namespace)
            and (
                definition.namespaces is None
                or (bool(namespace) and definition.namespaces.matches(self.namespace_labels))
            )
            and (
                definition.service_accounts is None
                or definition.service_accounts.matches(self.account_labels)
            )
            and definition.selector.matches(self.labels)
        )


@dataclass(frozen=True)
class Applied:
    """The policies that act on an endpoint: for each direction, tier by tier, their keys in the
    order in which they are asked. A tier without a policy for the endpoint is absent."""

    ingress: tuple[tuple[str, tuple[ObjectKey, ...]], ...] = ()
    egress: tuple[tuple[str, tuple[ObjectKey, ...]], ...] = ()

    def tiers(self, direction: Direction) -> tuple[tuple[str, tuple[ObjectKey, ...]], ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True)
class Changes:
    """What one update of the compiler's input has changed.

    endpoints: those whose addresses, ports or applied policies changed, or that are gone. policies:
    those that are new, different or gone. sets: id -> (members added, members removed), of sets that
    existed before and still do. new_sets, old_sets: sets that rules now need, or need no more.
    tiers: whether the list of tiers changed.
    """

    endpoints: frozenset[ObjectKey] = frozenset()
    policies: frozenset[ObjectKey] = frozenset()
    sets: Mapping[str, tuple[frozenset[str], frozenset[str]]] = field(default_factory=dict)
    new_sets: frozenset[str] = frozenset()
    old_sets: frozenset[str] = frozenset()
    tiers: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.endpoints
            or self.policies
            or self.sets
            or self.new_sets
            or self.old_sets
            or self.tiers
        )


@dataclass(frozen=True)
class State:
    """Everything at one moment. An engine renders it as a whole when it starts, and then follows
    Changes.

    tiers: in their order. members: of each set. applied: of each endpoint, pods without a policy
    included.
    """

    tiers: tuple[Tier, ...]
    policies: Mapping[ObjectKey, Policy]
    sets: Mapping[str, AddressSet]
    members: Mapping[str, frozenset[str]]
    endpoints: Mapping[ObjectKey, Endpoint]
    applied: Mapping[ObjectKey, Applied]
