"""Calico's policies of projectcalico.org/v3: NetworkPolicy, GlobalNetworkPolicy and Tier.

Source: Calico's reference of these resources. What they mean beyond the words of their fields:

- A rule of a namespaced policy that selects anything selects within the policy's namespace, unless
  it has a namespaceSelector. A rule without any selector matches everybody, outside of the cluster,
  too.
- `global()` as a namespaceSelector selects what has no namespace: host endpoints and global network
  sets.
- A policy without an order comes after all that have one; NetworkPolicies of Kubernetes have 1000.
- Without types a policy acts on ingress, and on egress if it has egress rules; with egress rules
  alone only on egress.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubewire.components.policy.compiler import tiers
from kubewire.components.policy.compiler.calico.selectorparser import Global, SelectorError, parse
from kubewire.components.policy.compiler.translation import InvalidPolicy, Sets, Translation
from kubewire.components.policy.model import (
    ICMP,
    Action,
    Definition,
    Direction,
    EndpointKind,
    Match,
    NamedPort,
    ObjectKey,
    Origin,
    Policy,
    PortRange,
    Rule,
    Side,
    Tier,
)
from kubewire.components.policy.selectors import EVERYTHING, And, In, Selector

KubeObject = Mapping[str, Any]

#: The label that Calico gives every endpoint for the name of its service account.
SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount"
NAMESPACE_LABEL = "projectcalico.org/namespace"

_EVERY_KIND = frozenset({EndpointKind.POD, EndpointKind.NETWORK_SET, EndpointKind.HOST})
_HOSTS = frozenset({EndpointKind.HOST})
_SUBJECTS_OF_GLOBAL = frozenset({EndpointKind.POD, EndpointKind.HOST})
_PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
_PORTS = ("TCP", "UDP", "SCTP", "6", "17", "132")
_ACTIONS = {action.value: action for action in Action}


def tier(obj: KubeObject) -> Translation:
    """A Tier object. Raises InvalidPolicy."""
    spec = obj.get("spec") or {}
    name = str(obj["metadata"]["name"])
    default = spec.get("defaultAction", "Deny")
    if default not in {"Deny", "Pass"}:
        raise InvalidPolicy(f"spec.defaultAction: {default} is not known; take Deny or Pass")
    return Translation(tiers=(Tier(name, _order(spec), Action(default)),))


def network_policy(obj: KubeObject) -> Translation:
    """A namespaced policy of Calico. Raises InvalidPolicy."""
    namespace = str(obj["metadata"]["namespace"])
    spec = obj.get("spec") or {}
    subjects = Definition(
        selector=_parsed(spec, "selector", "spec"),
        namespace=namespace,
        service_accounts=_optional(spec, "serviceAccountSelector", "spec"),
    )
    key = ObjectKey("CalicoNetworkPolicy", namespace, str(obj["metadata"]["name"]))
    return _translation(key, spec, subjects)


def global_network_policy(obj: KubeObject) -> Translation:
    """A policy of the whole cluster. One that acts before DNAT or without connection tracking acts
    on host endpoints alone, whatever else it selects. Raises InvalidPolicy."""
    spec = obj.get("spec") or {}
    of_hosts = spec.get("doNotTrack") or spec.get("preDNAT")
    namespaces, only_global = _namespaces(spec, "spec")
    subjects = Definition(
        selector=_parsed(spec, "selector", "spec"),
        namespaces=namespaces,
        service_accounts=_optional(spec, "serviceAccountSelector", "spec"),
        only_global=only_global,
        kinds=_HOSTS if of_hosts else _SUBJECTS_OF_GLOBAL,
    )
    key = ObjectKey("GlobalNetworkPolicy", "", str(obj["metadata"]["name"]))
    return _translation(key, spec, subjects)


def _translation(key: ObjectKey, spec: Mapping[str, Any], subjects: Definition) -> Translation:
    sets = Sets()
    ingress, egress = (
        tuple(
            _rule(rule, key, direction, number, sets)
            for number, rule in enumerate(spec.get(direction.value) or ())
        )
        for direction in (Direction.INGRESS, Direction.EGRESS)
    )
    policy = Policy(
        key=key,
        tier=str(spec.get("tier") or tiers.DEFAULT.name),
        order=_order(spec),
        subjects=subjects,
        directions=_directions(spec),
        ingress=ingress,
        egress=egress,
        do_not_track=bool(spec.get("doNotTrack")),
        pre_dnat=bool(spec.get("preDNAT")),
        apply_on_forward=bool(spec.get("applyOnForward")),
    )
    return Translation((policy,), sets.all())


def _order(spec: Mapping[str, Any]) -> float:
    order = spec.get("order")
    return math.inf if order is None else float(order)


def _directions(spec: Mapping[str, Any]) -> frozenset[Direction]:
    types = spec.get("types") or ()
    if not types:
        ingress, egress = (bool(spec.get(name)) for name in ("ingress", "egress"))
        types = [*(["Ingress"] if ingress or not egress else []), *(["Egress"] if egress else [])]
    return frozenset(Direction(str(name).lower()) for name in types)


def _rule(
    rule: Mapping[str, Any],
    key: ObjectKey,
    direction: Direction,
    number: int,
    sets: Sets,
) -> Rule:
    where = f"spec.{direction.value}[{number}]"
    action = rule.get("action")
    if action not in _ACTIONS:
        known = ", ".join(_ACTIONS)
        raise InvalidPolicy(f"{where}.action: {action} is not known; take one of {known}")
    if rule.get("http"):
        raise InvalidPolicy(f"{where}.http: matches of HTTP need Calico's application layer")
    protocol = _protocol(rule, "protocol", where)
    sides = {
        name: _side(rule.get(name) or {}, f"{where}.{name}", key.namespace, protocol, sets)
        for name in ("source", "destination")
    }
    match = Match(
        protocol=protocol,
        not_protocol=_protocol(rule, "notProtocol", where),
        version=int(rule.get("ipVersion") or 0),
        icmp=_icmp(rule, "icmp"),
        not_icmp=_icmp(rule, "notICMP"),
        source=sides["source"],
        destination=sides["destination"],
    )
    origin = Origin(key, direction, number, name=_name(rule))
    return Rule(_ACTIONS[action], match, origin)


def _name(rule: Mapping[str, Any]) -> str:
    annotations = (rule.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get("name", ""))


def _protocol(rule: Mapping[str, Any], field: str, where: str) -> str:
    value = rule.get(field)
    if value is None:
        return ""
    if isinstance(value, int) or str(value).isdigit():
        if not 1 <= int(value) <= 255:
            raise InvalidPolicy(f"{where}.{field}: {value} is not between 1 and 255")
        return str(value)
    by_name = {name.lower(): name for name in _PROTOCOLS}
    if str(value).lower() not in by_name:
        known = ", ".join(_PROTOCOLS)
        raise InvalidPolicy(f"{where}.{field}: {value} is not known; take one of {known}")
    return by_name[str(value).lower()]


def _icmp(rule: Mapping[str, Any], field: str) -> ICMP | None:
    value = rule.get(field)
    if not value or value.get("type") is None:
        return None
    code = value.get("code")
    return ICMP(int(value["type"]), None if code is None else int(code))


def _side(
    entity: Mapping[str, Any],
    where: str,
    namespace: str,
    protocol: str,
    sets: Sets,
) -> Side:
    """The conditions of an EntityRule. namespace: the policy's, "" for a global one."""
    if entity.get("services"):
        raise InvalidPolicy(f"{where}.services: selecting by Service is not supported here")
    peers = _peers(entity, where, namespace)
    ranges, names = _ports(entity, "ports", where, protocol)
    not_ranges, not_names = _ports(entity, "notPorts", where, protocol)
    # A named port is the port of an endpoint, so only endpoints that the rule selects matter.
    owners = peers or Definition(kinds=frozenset({EndpointKind.POD, EndpointKind.HOST}))
    excluded = _optional(entity, "notSelector", where)
    return Side(
        sets=(sets.add(peers),) if peers else (),
        not_sets=(sets.add(Definition(excluded, kinds=_EVERY_KIND)),) if excluded else (),
        nets=_nets(entity, "nets", where) or None,
        not_nets=_nets(entity, "notNets", where),
        ports=ranges,
        port_sets=tuple(sets.add(owners, name) for name in names),
        not_ports=not_ranges,
        not_port_sets=tuple(sets.add(owners, name) for name in not_names),
    )


def _peers(entity: Mapping[str, Any], where: str, namespace: str) -> Definition | None:
    """What the selectors of an EntityRule select, None if it has none."""
    fields = ("selector", "notSelector", "namespaceSelector", "serviceAccounts")
    given = {field for field in fields if entity.get(field)}
    # In a global policy notSelector alone also matches what is no endpoint.
    if not given or (given == {"notSelector"} and not namespace):
        return None
    namespaces, only_global = _namespaces(entity, where)
    accounts = entity.get("serviceAccounts") or {}
    selector = _parsed(entity, "selector", where)
    if names := accounts.get("names"):
        named = In(SERVICE_ACCOUNT_LABEL, tuple(sorted(map(str, names))))
        selector = named if selector is EVERYTHING else And((named, selector))
    return Definition(
        selector=selector,
        namespace=namespace if not entity.get("namespaceSelector") else "",
        namespaces=namespaces,
        service_accounts=_optional(accounts, "selector", f"{where}.serviceAccounts"),
        only_global=only_global,
        kinds=_EVERY_KIND,
    )


def _namespaces(holder: Mapping[str, Any], where: str) -> tuple[Selector | None, bool]:
    """The selector of namespaces, and whether it is global()."""
    selector = _optional(holder, "namespaceSelector", where)
    if isinstance(selector, Global):
        return None, True
    return selector, False


def _optional(holder: Mapping[str, Any], field: str, where: str) -> Selector | None:
    return _parsed(holder, field, where) if holder.get(field) else None


def _parsed(holder: Mapping[str, Any], field: str, where: str) -> Selector:
    text = str(holder.get(field) or "")
    try:
        return parse(text)
    except SelectorError as error:
        raise InvalidPolicy(f"{where}.{field}: invalid selector {text!r}: {error}") from error


def _nets(entity: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    try:
        return tuple(
            str(ipaddress.ip_network(str(one), strict=False)) for one in entity.get(field) or ()
        )
    except ValueError as error:
        raise InvalidPolicy(f"{where}.{field}: {error}") from error


def _ports(
    entity: Mapping[str, Any], field: str, where: str, protocol: str
) -> tuple[tuple[PortRange, ...], tuple[NamedPort, ...]]:
    """The numeric ports, and the named ones."""
    values: Sequence[Any] = entity.get(field) or ()
    if values and protocol not in _PORTS:
        raise InvalidPolicy(f"{where}.{field}: ports need the protocol TCP, UDP or SCTP")
    ranges = tuple(_range(value, f"{where}.{field}") for value in values if _is_number(value))
    return ranges, tuple(_named(values, protocol))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) or all(part.isdigit() for part in str(value).split(":"))


def _named(values: Iterable[Any], protocol: str) -> Iterable[NamedPort]:
    for value in values:
        if not _is_number(value):
            yield NamedPort(protocol, str(value))


def _range(value: Any, where: str) -> PortRange:
    first, _, last = str(value).partition(":")
    found = PortRange(int(first), int(last or first))
    if not 0 <= found.first <= found.last <= 65535:
        raise InvalidPolicy(f"{where}: {value} is no port range between 0 and 65535")
    return found
