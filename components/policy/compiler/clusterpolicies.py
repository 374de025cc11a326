"""ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2), and the kinds that it replaced:
AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1).

They differ in words: Accept and Allow, protocols and ports, a tier and two kinds. Here they are
read into the same entries, from which rules are made in one way.

A field that is not known here can only come from a newer CRD. Then the rule fails closed, as the
API asks: an allowing rule does not match by this peer, any other one denies everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubewire.components.policy.compiler import tiers
from kubewire.components.policy.compiler.matches import Peer, Ports, match
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
    EndpointKind,
    Match,
    ObjectKey,
    Origin,
    Policy,
    Rule,
    Tier,
)

Object = Mapping[str, Any]

_TIERS = {"Admin": tiers.ADMIN, "Baseline": tiers.BASELINE}
_ACTIONS = {
    "Accept": Action.ALLOW,
    "Allow": Action.ALLOW,
    "Deny": Action.DENY,
    "Pass": Action.PASS,
}
_PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_PRIORITIES = range(1001)
#: A BaselineAdminNetworkPolicy has no priority, so it comes after every ClusterNetworkPolicy.
_LAST = 1001.0

#: Reads the ports of a rule: by protocol, {"": everything} for any; None for what is not known.
_ReadPorts = Callable[[Object, str], dict[str, Ports] | None]


def cluster_network_policy(obj: Object) -> Translation:
    """Raises InvalidPolicy."""
    spec = obj.get("spec") or {}
    tier = _TIERS.get(spec.get("tier", ""))
    if tier is None:
        raise InvalidPolicy(f"spec.tier: {spec.get('tier')!r} is neither Admin nor Baseline")
    actions = {"Accept", "Deny", "Pass"}
    return _translate("ClusterNetworkPolicy", obj, tier, _priority(spec), actions, _protocols)


def admin_network_policy(obj: Object) -> Translation:
    """Raises InvalidPolicy."""
    order = _priority(obj.get("spec") or {})
    actions = {"Allow", "Deny", "Pass"}
    return _translate("AdminNetworkPolicy", obj, tiers.ADMIN, order, actions, _ports)


def baseline_admin_network_policy(obj: Object) -> Translation:
    """Raises InvalidPolicy."""
    if obj["metadata"]["name"] != "default":
        raise InvalidPolicy("metadata.name: the only BaselineAdminNetworkPolicy is called default")
    actions = {"Allow", "Deny"}
    return _translate("BaselineAdminNetworkPolicy", obj, tiers.BASELINE, _LAST, actions, _ports)


def _priority(spec: Object) -> float:
    priority = spec.get("priority")
    if not isinstance(priority, int) or priority not in _PRIORITIES:
        raise InvalidPolicy(f"spec.priority: {priority!r} is no number from 0 to 1000")
    return float(priority)


def _translate(
    kind: str, obj: Object, tier: Tier, order: float, actions: set[str], ports: _ReadPorts
) -> Translation:
    """A policy without rules for a direction does not act on it."""
    key, spec, sets = ObjectKey(kind, "", obj["metadata"]["name"]), obj.get("spec") or {}, Sets()
    rules = {
        direction: tuple(_rules(key, spec, direction, actions, ports, sets))
        for direction in Direction
        if spec.get(direction.value)
    }
    policy = Policy(
        key=key,
        tier=tier.name,
        order=order,
        subjects=_subject(spec.get("subject")),
        directions=frozenset(rules),
        ingress=rules.get(Direction.INGRESS, ()),
        egress=rules.get(Direction.EGRESS, ()),
    )
    return Translation((policy,), sets.all(), problem=_problem(spec))


def _problem(spec: Object) -> str:
    """Names of hosts need an engine that reads DNS answers."""
    for index, rule in enumerate(spec.get("egress") or ()):
        for number, peer in enumerate(rule.get("to") or ()):
            if peer.get("domainNames"):
                return (
                    f"spec.egress[{index}].to[{number}].domainNames: matches nothing, unless the "
                    "engine sees the answers of the cluster's DNS"
                )
    return ""


def _subject(subject: Object | None) -> Definition:
    if not subject:
        raise InvalidPolicy("spec.subject: must have namespaces or pods")
    definition = _pods(subject, "spec.subject")
    if definition is None:
        raise InvalidPolicy("spec.subject: must have namespaces or pods")
    return definition


def _pods(selected: Object, where: str) -> Definition | None:
    """`namespaces` or `pods` as a definition, None if neither is given."""
    if len(selected) > 1:
        raise InvalidPolicy(f"{where}: must have one field, not {', '.join(sorted(selected))}")
    if selected.get("namespaces") is not None:
        return Definition(namespaces=label_selector(selected["namespaces"], f"{where}.namespaces"))
    pods = selected.get("pods")
    if pods is None:
        return None
    return Definition(
        selector=label_selector(pods.get("podSelector"), f"{where}.pods.podSelector"),
        namespaces=label_selector(pods.get("namespaceSelector"), f"{where}.pods.namespaceSelector"),
    )


def _rules(
    key: ObjectKey,
    spec: Object,
    direction: Direction,
    actions: set[str],
    read_ports: _ReadPorts,
    sets: Sets,
) -> Iterator[Rule]:
    for index, rule in enumerate(spec[direction.value]):
        where = f"spec.{direction.value}[{index}]"
        if rule.get("action") not in actions:
            known = ", ".join(sorted(actions))
            raise InvalidPolicy(f"{where}.action: {rule.get('action')!r} is none of {known}")
        action, name = _ACTIONS[rule["action"]], rule.get("name") or ""
        field = _PEERS[direction]
        if not rule.get(field):
            raise InvalidPolicy(f"{where}.{field}: must have at least one peer")
        ports = read_ports(rule, where)
        for number, entry in enumerate(rule[field]):
            origin = Origin(key, direction, index, number, name)
            peer = _peer(entry, direction, action, f"{where}.{field}[{number}]")
            if peer is None or ports is None:
                if action is not Action.ALLOW:
                    yield Rule(Action.DENY, Match(), origin)
                continue
            for protocol, of_protocol in ports.items():
                yield Rule(action, match(direction, peer, protocol, of_protocol, sets), origin)


def _peer(entry: Object, direction: Direction, action: Action, where: str) -> Peer | None:
    """None for one that is not known."""
    definition = _pods(entry, where)
    if definition is not None:
        return Peer(definition)
    if direction is Direction.INGRESS:
        return None
    if entry.get("nodes") is not None:
        selector = label_selector(entry["nodes"], f"{where}.nodes")
        return Peer(Definition(selector=selector, kinds=frozenset({EndpointKind.NODE})))
    if entry.get("networks"):
        networks = enumerate(entry["networks"])
        return Peer(nets=tuple(network(text, f"{where}.networks[{n}]") for n, text in networks))
    if entry.get("domainNames"):
        if action is not Action.ALLOW:
            raise InvalidPolicy(f"{where}.domainNames: is only for rules that accept")
        return Peer(nets=(), domains=tuple(entry["domainNames"]))
    return None


def _protocols(rule: Object, where: str) -> dict[str, Ports] | None:
    """The `protocols` of a ClusterNetworkPolicy."""
    if not rule.get("protocols"):
        return {"": Ports(everything=True)}
    ports: dict[str, Ports] = {}
    for index, entry in enumerate(rule["protocols"]):
        at = f"{where}.protocols[{index}]"
        if entry.get("destinationNamedPort"):
            _add_name(ports, entry["destinationNamedPort"])
            continue
        protocol = next((name for name in _PROTOCOLS if name.lower() in entry), None)
        if protocol is None:
            return None
        _add_protocol(ports, protocol, entry[protocol.lower()], f"{at}.{protocol.lower()}")
    return ports


def _add_protocol(ports: dict[str, Ports], protocol: str, entry: Object, where: str) -> None:
    found = ports.setdefault(protocol, Ports())
    port = (entry or {}).get("destinationPort")
    if port is None:
        found.everything = True
    elif port.get("range"):
        both = port["range"]
        at = f"{where}.destinationPort.range"
        found.ranges.append(port_range(both.get("start"), both.get("end"), at))
    else:
        at = f"{where}.destinationPort.number"
        found.ranges.append(port_range(port.get("number"), None, at))


def _ports(rule: Object, where: str) -> dict[str, Ports] | None:
    """The `ports` of an AdminNetworkPolicy and a BaselineAdminNetworkPolicy."""
    if not rule.get("ports"):
        return {"": Ports(everything=True)}
    ports: dict[str, Ports] = {}
    for index, entry in enumerate(rule["ports"]):
        at = f"{where}.ports[{index}]"
        if entry.get("namedPort"):
            _add_name(ports, entry["namedPort"])
        elif entry.get("portNumber"):
            number = entry["portNumber"]
            found = ports.setdefault(number.get("protocol") or "TCP", Ports())
            found.ranges.append(port_range(number.get("port"), None, f"{at}.portNumber.port"))
        elif entry.get("portRange"):
            both = entry["portRange"]
            found = ports.setdefault(both.get("protocol") or "TCP", Ports())
            found.ranges.append(port_range(both.get("start"), both.get("end"), f"{at}.portRange"))
        else:
            return None
    return ports


def _add_name(ports: dict[str, Ports], name: str) -> None:
    """A name says nothing of the protocol, which is the one that the container's port has."""
    for protocol in _PROTOCOLS:
        ports.setdefault(protocol, Ports()).names.append(name)
