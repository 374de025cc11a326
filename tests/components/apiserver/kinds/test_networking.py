"""Endpoints, EndpointSlice, NetworkPolicy, Ingress, ServiceCIDR: messages and rows."""

from __future__ import annotations

from typing import Any

import pytest


def policy(**spec: Any) -> dict[str, Any]:
    return {"spec": {"podSelector": {}, **spec}}


def path(**fields: Any) -> dict[str, Any]:
    whole = {
        "path": "/",
        "pathType": "Prefix",
        "backend": {"service": {"name": "web", "port": {"number": 80}}},
        **fields,
    }
    return {"spec": {"rules": [{"host": "a.example", "http": {"paths": [whole]}}]}}


def endpoint(address: str, kind: str = "IPv4", **fields: Any) -> dict[str, Any]:
    return {"addressType": kind, "endpoints": [{"addresses": [address], **fields}]}


CASES = [
    pytest.param("EndpointSlice", endpoint("10.0.0.1"), [], id="a slice"),
    pytest.param("EndpointSlice", {}, ["addressType: Required value"], id="a slice has an address type"),
    pytest.param(
        "EndpointSlice",
        endpoint("fd00::1"),
        ['endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address'],
        id="a slice is of one family",
    ),
    pytest.param(
        "EndpointSlice",
        endpoint("127.0.0.1"),
        [
            'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": '
            "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        ],
        id="endpoints are not the node itself",
    ),
    pytest.param(
        "EndpointSlice",
        {"addressType": "IPv4", "endpoints": [{}]},
        ["endpoints[0].addresses: Required value: must contain at least 1 address"],
        id="an endpoint has an address",
    ),
    pytest.param(
        "EndpointSlice",
        {"addressType": "IPv4", "ports": [{"name": "a"}, {"name": "a"}]},
        ['ports[1].name: Duplicate value: "a"'],
        id="port names of a slice are unique",
    ),
    pytest.param(
        "EndpointSlice",
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}] * 1001},
        ["endpoints: Too many: 1001: must have at most 1000 items"],
        id="a slice has a thousand endpoints at most",
    ),
    pytest.param(
        "Endpoints",
        {"subsets": [{"ports": [{"port": 80}]}]},
        ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        id="a subset has addresses",
    ),
    pytest.param(
        "Endpoints",
        {"subsets": [{"addresses": [{"ip": "169.254.1.1"}]}]},
        [
            'subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": '
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        ],
        id="link-local endpoints",
    ),
    pytest.param("NetworkPolicy", policy(ingress=[{}]), [], id="an empty rule allows all"),
    pytest.param(
        "NetworkPolicy",
        policy(ingress=[{"from": [{}]}]),
        ["spec.ingress[0].from[0]: Required value: must specify a peer"],
        id="a peer says who",
    ),
    pytest.param(
        "NetworkPolicy",
        policy(ingress=[{"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
        ["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
        id="a block stands alone",
    ),
    pytest.param(
        "NetworkPolicy",
        policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/24"]}}]}]),
        ['spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/24": must be a strict subset of `cidr`'],
        id="exceptions lie inside",
    ),
    pytest.param(
        "NetworkPolicy",
        policy(ingress=[{"ports": [{"port": 90, "endPort": 80}]}]),
        ["spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"],
        id="port ranges go up",
    ),
    pytest.param(
        "NetworkPolicy",
        policy(policyTypes=["Both"]),
        ['spec.policyTypes[0]: Unsupported value: "Both": supported values: "Egress", "Ingress"'],
        id="policy types have names",
    ),
    pytest.param("Ingress", path(), [], id="an Ingress"),
    pytest.param(
        "Ingress",
        {"spec": {}},
        ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
        id="an Ingress leads somewhere",
    ),
    pytest.param(
        "Ingress",
        path(pathType=None),
        ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
        id="a path has a type",
    ),
    pytest.param(
        "Ingress",
        path(path="a"),
        ['spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path'],
        id="paths are absolute",
    ),
    pytest.param(
        "Ingress",
        path(backend={"service": {"name": "web"}}),
        ["spec.rules[0].http.paths[0].backend: Required value: port name or number is required"],
        id="a backend has a port",
    ),
    pytest.param(
        "Ingress",
        {"spec": {"rules": [{"host": "10.0.0.1"}]}},
        ['spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address'],
        id="hosts are names",
    ),
    pytest.param(
        "IngressClass",
        {"spec": {"controller": "nginx"}},
        ['spec.controller: Invalid value: "nginx": must be a domain-prefixed path (such as "acme.io/foo")'],
        id="controllers have a domain",
    ),
    pytest.param(
        "ServiceCIDR",
        {"spec": {"cidrs": ["10.96.0.0/16", "10.97.0.0/16"]}},
        [
            'spec.cidrs: Invalid value: ["10.96.0.0/16","10.97.0.0/16"]: may specify no more than one IP for each IP '
            "family, i.e 192.168.0.0/24 and 2001:db8::/64"
        ],
        id="a range of each family",
    ),
]


@pytest.mark.parametrize(("kind", "obj", "messages"), CASES)
def test_create(complaints: Any, kind: str, obj: dict[str, Any], messages: list[str]) -> None:
    assert complaints(kind, obj) == messages


def test_the_address_type_stays(update_complaints: Any) -> None:
    assert update_complaints("EndpointSlice", endpoint("10.0.0.1"), endpoint("fd00::1", "IPv6")) == [
        'addressType: Invalid value: "IPv6": field is immutable'
    ]


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        pytest.param({}, ["Ingress"], id="ingress always"),
        pytest.param({"egress": [{}]}, ["Ingress", "Egress"], id="egress with egress rules"),
        pytest.param({"policyTypes": ["Egress"]}, ["Egress"], id="as it is said"),
    ],
)
def test_policy_types_follow_the_rules(created: Any, spec: dict[str, Any], types: list[str]) -> None:
    assert created("NetworkPolicy", policy(**spec))["spec"]["policyTypes"] == types


SLICE = {
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8080}],
    "endpoints": [{"addresses": [f"10.244.0.{index}"]} for index in range(2, 7)],
}
ROWS = [
    pytest.param(
        "EndpointSlice",
        SLICE,
        {"AddressType": "IPv4", "Ports": "8080", "Endpoints": "10.244.0.2,10.244.0.3,10.244.0.4 + 2 more..."},
        id="a slice shows three",
    ),
    pytest.param("EndpointSlice", {"addressType": "IPv4"}, {"Ports": "<unset>", "Endpoints": "<unset>"}, id="none"),
    pytest.param(
        "Endpoints",
        {"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 443}]}]},
        {"Endpoints": "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more..."},
        id="endpoints with ports",
    ),
    pytest.param("Endpoints", {}, {"Endpoints": "<none>"}, id="no endpoints"),
    pytest.param(
        "Ingress",
        {**path(), "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}},
        {"Class": "<none>", "Hosts": "a.example", "Address": "203.0.113.7", "Ports": "80"},
        id="an Ingress",
    ),
    pytest.param(
        "Ingress",
        {"spec": {"ingressClassName": "nginx", "tls": [{}], "rules": [{"host": name} for name in "abcde"]}},
        {"Class": "nginx", "Hosts": "a,b,c + 2 more...", "Ports": "80, 443"},
        id="an Ingress of many hosts",
    ),
    pytest.param(
        "NetworkPolicy", policy(podSelector={"matchLabels": {"a": "b"}}), {"Pod-Selector": "a=b"}, id="a policy"
    ),
    pytest.param("NetworkPolicy", policy(), {"Pod-Selector": "<none>"}, id="a policy for all"),
]


@pytest.mark.parametrize(("kind", "obj", "cells"), ROWS)
def test_row(row_of: Any, kind: str, obj: dict[str, Any], cells: dict[str, str]) -> None:
    row = row_of(kind, obj)
    assert {name: row[name] for name in cells} == cells
