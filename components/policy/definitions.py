"""The CustomResourceDefinitions of policy.networking.k8s.io, for engines that know these kinds. Pure.

ClusterNetworkPolicy is that of bundle v0.2.0, experimental channel, which has the peers `nodes` and
`domainNames`; AdminNetworkPolicy and BaselineAdminNetworkPolicy are those of v0.1.7, the last bundle
that had them. Limits, patterns and rules are upstream's; the descriptions are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

GROUP = "policy.networking.k8s.io"
_APPROVED = "https://github.com/kubernetes-sigs/network-policy-api/pull/{}"

_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_CONDITION = rf"^({_DNS_LABEL}(\.{_DNS_LABEL})*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"

_STRING: Schema = {"type": "string"}
_NAME_CHARACTERS = "([-a-zA-Z0-9_]*[a-zA-Z0-9])?"
_LABEL = "[a-zA-z0-9]" + _NAME_CHARACTERS


def _object(required: str = "", /, **properties: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": properties}
    return found | ({"required": required.split()} if required else {})


def _one_of(**properties: Schema) -> Schema:
    """An object of which exactly one field is set."""
    return {**_object(**properties), "minProperties": 1, "maxProperties": 1}


def _list(items: Schema, most: int, least: int = 0, **more: Any) -> Schema:
    found: Schema = {"type": "array", "items": items, "maxItems": most, **more}
    return found | ({"minItems": least} if least else {})


def _choice(*values: str, **more: Any) -> Schema:
    return {"type": "string", "enum": list(values), **more}


def _rule(schema: Schema, rule: str, message: str) -> Schema:
    return {**schema, "x-kubernetes-validations": [{"rule": rule, "message": message}]}


_SELECTOR: Schema = {
    **_object(
        matchLabels={"type": "object", "additionalProperties": _STRING},
        matchExpressions={
            "type": "array",
            "x-kubernetes-list-type": "atomic",
            "items": _object(
                "key operator",
                key=_STRING,
                operator=_STRING,
                values={"type": "array", "items": _STRING, "x-kubernetes-list-type": "atomic"},
            ),
        },
    ),
    "x-kubernetes-map-type": "atomic",
}
_PODS = _object("namespaceSelector podSelector", namespaceSelector=_SELECTOR, podSelector=_SELECTOR)
_PODS_OF_CLUSTER = _object("podSelector", namespaceSelector=_SELECTOR, podSelector=_SELECTOR)
_CIDR = _rule({"type": "string", "maxLength": 43}, "isCIDR(self)", "Invalid CIDR format provided")
_DOMAIN: Schema = {"type": "string", "pattern": rf"^(\*\.)?({_LABEL}\.)+{_LABEL}\.?$"}
_NUMBER: Schema = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
_PRIORITY: Schema = {"type": "integer", "format": "int32", "minimum": 0, "maximum": 1000}
_PROTOCOL: Schema = {"type": "string", "default": "TCP"}
_RULE_NAME: Schema = {"type": "string", "maxLength": 100}
_STATUS = _object(
    "conditions",
    conditions={
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": _object(
            "lastTransitionTime message reason status type",
            type={"type": "string", "maxLength": 316, "pattern": _CONDITION},
            status=_choice("True", "False", "Unknown"),
            reason={
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            message={"type": "string", "maxLength": 32768},
            lastTransitionTime={"type": "string", "format": "date-time"},
            observedGeneration={"type": "integer", "format": "int64", "minimum": 0},
        ),
    },
)

_PORT = _one_of(
    number=_NUMBER,
    range=_rule(
        _object("end start", start=_NUMBER, end=_NUMBER),
        "self.start < self.end",
        "Start port must be less than End port",
    ),
)
_TRANSPORT: Schema = {**_object(destinationPort=_PORT), "minProperties": 1}
_PROTOCOLS = _list(
    _one_of(tcp=_TRANSPORT, udp=_TRANSPORT, sctp=_TRANSPORT, destinationNamedPort=_STRING), 25, 1
)
_PORTS = _list(
    _one_of(
        portNumber=_object("port protocol", port=_NUMBER, protocol=_PROTOCOL),
        namedPort=_STRING,
        portRange=_object("end start", start=_NUMBER, end=_NUMBER, protocol=_PROTOCOL),
    ),
    100,
    1,
)


def _peers(pods: Schema) -> tuple[Schema, Schema]:
    """A peer of ingress, and one of egress."""
    within = {"namespaces": _SELECTOR, "pods": pods}
    networks = _list(_CIDR, 25, 1, **{"x-kubernetes-list-type": "set"})
    domains = _list(_DOMAIN, 25, 1, **{"x-kubernetes-list-type": "set"})
    beyond = {"nodes": _SELECTOR, "networks": networks, "domainNames": domains}
    return _one_of(**within), _one_of(**within, **beyond)


def _named_ports_refused(rule: Schema, peers: str, ports: str, named: str) -> Schema:
    """Only pods have names for ports. peers: of those that have none."""
    kinds = peers.split("/")
    without = " || ".join(f"has(peer.{kind})" for kind in kinds)
    one = ports.removesuffix("s")
    return _rule(
        rule,
        f"!(self.to.exists(peer, {without}) && has(self.{ports}) && "
        f"self.{ports}.exists({one}, has({one}.{named})))",
        f"{peers} peer cannot be set with namedPorts since there are no namedPorts for {peers}",
    )


def _cluster_spec() -> Schema:
    source, destination = _peers(_PODS_OF_CLUSTER)
    action = _choice("Accept", "Deny", "Pass")
    shared = {"name": _RULE_NAME, "action": action, "protocols": _PROTOCOLS}
    inwards = _object("action from", **shared, **{"from": _list(source, 25, 1)})
    outwards = _named_ports_refused(
        _object("action to", **shared, to=_list(destination, 25, 1)),
        "networks/nodes/domainNames",
        "protocols",
        "destinationNamedPort",
    )
    return _object(
        "priority subject tier",
        tier=_choice("Admin", "Baseline"),
        priority=_PRIORITY,
        subject=_one_of(namespaces=_SELECTOR, pods=_PODS_OF_CLUSTER),
        ingress=_list(inwards, 25),
        egress=_list(outwards, 25),
    )


def _admin_spec(*, baseline: bool) -> Schema:
    source, destination = _peers(_PODS)
    if baseline:
        del destination["properties"]["domainNames"]
    action = _choice("Allow", "Deny") if baseline else _choice("Allow", "Deny", "Pass")
    shared = {"name": _RULE_NAME, "action": action, "ports": _PORTS}
    inwards = _object("action from", **shared, **{"from": _list(source, 100, 1)})
    outwards = _named_ports_refused(
        _object("action to", **shared, to=_list(destination, 100, 1)),
        "networks/nodes" if baseline else "networks/nodes/domainNames",
        "ports",
        "namedPort",
    )
    rules = {"ingress": _list(inwards, 100), "egress": _list(outwards, 100)}
    subject = _one_of(namespaces=_SELECTOR, pods=_PODS)
    if baseline:
        return _object("subject", subject=subject, **rules)
    return _object("priority subject", priority=_PRIORITY, subject=subject, **rules)


def definitions() -> list[dict[str, Any]]:
    """The three definitions."""
    only_default = {
        "rule": "self.metadata.name == 'default'",
        "message": 'Only one baseline admin network policy with metadata.name="default" can be '
        "created in the cluster",
    }
    tier = {"name": "Tier", "type": "string", "jsonPath": ".spec.tier"}
    priority = {"name": "Priority", "type": "string", "jsonPath": ".spec.priority"}
    return [
        _definition(
            "ClusterNetworkPolicy",
            "cnp",
            "v1alpha2",
            "v0.2.0",
            347,
            _cluster_spec(),
            [tier, priority],
        ),
        _definition(
            "AdminNetworkPolicy",
            "anp",
            "v1alpha1",
            "v0.1.7",
            300,
            _admin_spec(baseline=False),
            [priority],
        ),
        _definition(
            "BaselineAdminNetworkPolicy",
            "banp",
            "v1alpha1",
            "v0.1.7",
            300,
            _admin_spec(baseline=True),
            [],
            {"x-kubernetes-validations": [only_default]},
        ),
    ]


def _definition(
    kind: str,
    short: str,
    version: str,
    bundle: str,
    approval: int,
    spec: Schema,
    columns: list[dict[str, str]],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    plural = kind.lower().removesuffix("y") + "ies"
    schema = _object(
        "metadata spec",
        apiVersion=_STRING,
        kind=_STRING,
        metadata={"type": "object"},
        spec=spec,
        status=_STATUS,
    )
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {
                "api-approved.kubernetes.io": _APPROVED.format(approval),
                f"{GROUP}/bundle-version": bundle,
                f"{GROUP}/channel": "experimental",
            },
        },
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {**names, "shortNames": [short]},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {**schema, **(more or {})}},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [*columns, age],
                }
            ],
        },
    }
