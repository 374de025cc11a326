"""NetworkPolicy (networking.k8s.io/v1) as policies of the tier `default`.

Each peer of a rule, for each protocol among the rule's ports, becomes one rule here. So an answer
can name the peer, and a rule has one protocol, as rules of a kernel do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubewire.components.policy.compiler.matches import ANYONE, Peer, Ports, match
from kubewire.components.policy.compiler.translation import (
    InvalidPolicy,
    Sets,
    Translation,
    label_selector,
    network,
    port_range,
)
from kubewire.components.policy.model import (
    Action,
    Definition,
    Direction,
    ObjectKey,
    Origin,
    Policy,
    Rule,
)

TIER = "default"
#: Calico gives policies of Kubernetes this order within its tier. Among each other their order does
#: not matter, because they only allow.
ORDER = 1000.0

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_FIELDS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def translate(obj: Mapping[str, Any]) -> Translation:
    """Raises InvalidPolicy."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    key = ObjectKey("NetworkPolicy", metadata.get("namespace") or "default", metadata["name"])
    sets = Sets()
    rules = {
        direction: tuple(_rules(key, spec, direction, sets)) for direction in _directions(spec)
    }
    policy = Policy(
        key=key,
        tier=TIER,
        order=ORDER,
        subjects=Definition(
            selector=label_selector(spec.get("podSelector"), "spec.podSelector"),
            namespace=key.namespace,
        ),
        directions=frozenset(rules),
        ingress=rules.get(Direction.INGRESS, ()),
        egress=rules.get(Direction.EGRESS, ()),
    )
    return Translation((policy,), sets.all())


def _directions(spec: Mapping[str, Any]) -> list[Direction]:
    """Without policyTypes a policy always acts on ingress, and on egress if it has egress rules."""
    types = spec.get("policyTypes")
    if not types:
        types = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for index, text in enumerate(types):
        if text not in {"Ingress", "Egress"}:
            raise InvalidPolicy(
                f"spec.policyTypes[{index}]: {text!r} is neither Ingress nor Egress"
            )
    return [direction for direction in Direction if direction.value.capitalize() in types]


def _rules(
    key: ObjectKey, spec: Mapping[str, Any], direction: Direction, sets: Sets
) -> Iterator[Rule]:
    for index, rule in enumerate(spec.get(direction.value) or ()):
        where = f"spec.{direction.value}[{index}]"
        rule = rule or {}
        ports = _ports(rule.get("ports") or (), where)
        for number, peer in _peers(rule.get(_FIELDS[direction])):
            at = where if number is None else f"{where}.{_FIELDS[direction]}[{number}]"
            origin = Origin(key, direction, index, number)
            place = _peer(key.namespace, peer, at)
            for protocol, of_protocol in ports.items():
                conditions = match(direction, place, protocol, of_protocol, sets)
                yield Rule(Action.ALLOW, conditions, origin)


def _peers(peers: Sequence[Any] | None) -> Iterator[tuple[int | None, Any]]:
    """An empty or absent list matches every peer."""
    if not peers:
        yield None, None
    yield from enumerate(peers or ())


def _ports(entries: Sequence[Mapping[str, Any]], where: str) -> dict[str, Ports]:
    """The ports by protocol; an empty list matches every port of every protocol, which is {"":
    everything}."""
    if not entries:
        return {"": Ports(everything=True)}
    ports: dict[str, Ports] = {}
    for index, entry in enumerate(entries):
        at = f"{where}.ports[{index}]"
        protocol = entry.get("protocol") or "TCP"
        if protocol not in _PROTOCOLS:
            raise InvalidPolicy(f"{at}.protocol: {protocol!r} is none of {', '.join(_PROTOCOLS)}")
        _add_port(ports.setdefault(protocol, Ports()), entry, at)
    return ports


def _add_port(ports: Ports, entry: Mapping[str, Any], where: str) -> None:
    port, end = entry.get("port"), entry.get("endPort")
    if end is not None and (port is None or isinstance(port, str)):
        raise InvalidPolicy(f"{where}.endPort: may only be given with a port that is a number")
    if port is None:
        ports.everything = True
    elif isinstance(port, str):
        ports.names.append(port)
    else:
        ports.ranges.append(port_range(port, end, f"{where}.port"))


def _peer(namespace: str, peer: Any, where: str) -> Peer:
    """A podSelector alone selects in the policy's own namespace; with a namespaceSelector both must
    match."""
    if peer is None:
        return ANYONE
    block, pods, namespaces = (
        peer.get(name) for name in ("ipBlock", "podSelector", "namespaceSelector")
    )
    if block is not None:
        if pods is not None or namespaces is not None:
            raise InvalidPolicy(f"{where}: may not have selectors beside ipBlock")
        return _block(block, f"{where}.ipBlock")
    if pods is None and namespaces is None:
        raise InvalidPolicy(f"{where}: must have podSelector, namespaceSelector or ipBlock")
    selector = label_selector(pods, f"{where}.podSelector")
    if namespaces is None:
        return Peer(Definition(selector=selector, namespace=namespace))
    of_namespace = label_selector(namespaces, f"{where}.namespaceSelector")
    return Peer(Definition(selector=selector, namespaces=of_namespace))


def _block(block: Mapping[str, Any], where: str) -> Peer:
    excepted = (
        network(text, f"{where}.except[{index}]")
        for index, text in enumerate(block.get("except") or ())
    )
    return Peer(nets=(network(block.get("cidr"), f"{where}.cidr"),), not_nets=tuple(excepted))
