"""What NetworkPolicy and the cluster's policies have in common: a peer and the ports of a rule as
the conditions on a packet, and how a named port is resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubewire.components.policy.compiler.translation import Sets, merged
from kubewire.components.policy.model import (
    Definition,
    Direction,
    Match,
    NamedPort,
    PortRange,
    Side,
)


@dataclass(frozen=True)
class Peer:
    """The other end: endpoints, or networks with exceptions, or DNS names; nothing for anyone."""

    definition: Definition | None = None
    nets: tuple[str, ...] | None = None
    not_nets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


ANYONE = Peer()


@dataclass
class Ports:
    """The ports of one protocol in a rule. everything: an entry names the protocol alone."""

    everything: bool = False
    ranges: list[PortRange] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def match(direction: Direction, peer: Peer, protocol: str, ports: Ports, sets: Sets) -> Match:
    """A name of a port is looked up at the destination: for egress at the pods of the peer, for
    ingress at the pod that is selected, so there a set of all pods does, because the destination of
    the packet is the pod itself."""
    to_peer = direction is Direction.EGRESS
    ranges, names = ([], []) if ports.everything else (ports.ranges, ports.names)
    named_at = peer.definition if to_peer and peer.definition else Definition()
    port_sets = tuple(
        sets.add(named_at, NamedPort(protocol, name)) for name in dict.fromkeys(names)
    )
    # The set of a named port is already limited to the peer's pods.
    covered = to_peer and port_sets and not ranges
    place = Side(
        sets=(sets.add(peer.definition),) if peer.definition and not covered else (),
        nets=peer.nets,
        not_nets=peer.not_nets,
        ports=merged(ranges) if to_peer else (),
        port_sets=port_sets if to_peer else (),
        domains=peer.domains,
    )
    if to_peer:
        return Match(protocol=protocol, destination=place)
    own = Side(ports=merged(ranges), port_sets=port_sets)
    return Match(protocol=protocol, source=place, destination=own)
