"""Services: what is refused, with whole messages (allocation is in test_service_allocation.py), and the row."""

from __future__ import annotations

from typing import Any

import pytest


def service(**spec: Any) -> dict[str, Any]:
    whole = {"ports": [{"port": 80}], "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], **spec}
    return {"spec": {key: value for key, value in whole.items() if value is not None}}


HEADLESS = {"clusterIP": "None", "clusterIPs": ["None"]}
NAMELESS = {"clusterIP": None, "clusterIPs": None}

CASES = [
    pytest.param(service(), [], id="a plain Service is fine"),
    pytest.param(service(ports=[]), ["spec.ports: Required value"], id="a Service has ports"),
    pytest.param(service(ports=[], **HEADLESS), [], id="a headless one needs none"),
    pytest.param(
        service(type="Node"),
        [
            'spec.type: Unsupported value: "Node": supported values: '
            '"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'
        ],
        id="types have names",
    ),
    pytest.param(
        service(ports=[{"port": 80}, {"port": 81, "name": "b"}]),
        ["spec.ports[0].name: Required value"],
        id="of several ports each has a name",
    ),
    pytest.param(
        service(ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]),
        ['spec.ports[1].name: Duplicate value: "a"'],
        id="port names are unique",
    ),
    pytest.param(
        service(ports=[{"port": 0}]),
        [
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
        id="ports are 16 bits",
    ),
    pytest.param(
        service(ports=[{"port": 80, "targetPort": "not_a_name"}]),
        [
            'spec.ports[0].targetPort: Invalid value: "not_a_name": '
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
        ],
        id="target ports may be names",
    ),
    pytest.param(
        service(ports=[{"port": 80, "nodePort": 30080}]),
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        id="a ClusterIP Service has no node port",
    ),
    pytest.param(
        service(type="NodePort", **HEADLESS),
        ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        id="a NodePort Service is not headless",
    ),
    pytest.param(
        service(type="ExternalName", **NAMELESS),
        ["spec.externalName: Required value"],
        id="an ExternalName has a name",
    ),
    pytest.param(service(type="ExternalName", externalName="example.org.", **NAMELESS), [], id="it may end in a dot"),
    pytest.param(
        service(type="ExternalName", externalName="example.org"),
        ["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        id="an ExternalName has no address",
    ),
    pytest.param(
        service(sessionAffinity="Cookie"),
        ['spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'],
        id="affinity is by client address or none",
    ),
    pytest.param(
        service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 86401}}),
        [
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: "
            "must be greater than 0 and less than 86400"
        ],
        id="affinity lasts a day at most",
    ),
    pytest.param(
        service(externalTrafficPolicy="Local"),
        ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        id="traffic from outside needs a way in",
    ),
    pytest.param(
        service(internalTrafficPolicy="Near"),
        ['spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"'],
        id="internal traffic policies have names",
    ),
    pytest.param(
        service(trafficDistribution="Far"),
        [
            'spec.trafficDistribution: Unsupported value: "Far": supported values: '
            '"PreferClose", "PreferSameNode", "PreferSameZone"'
        ],
        id="traffic distributions have names",
    ),
    pytest.param(
        service(externalIPs=["127.0.0.1"]),
        ['spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'],
        id="external addresses lead somewhere",
    ),
    pytest.param(
        service(loadBalancerSourceRanges=["10.0.0.0/8"]),
        ["spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        id="source ranges need a load balancer",
    ),
    pytest.param(
        service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0"]),
        [
            'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0": '
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        ],
        id="source ranges are CIDRs",
    ),
    pytest.param(
        service(allocateLoadBalancerNodePorts=False),
        ["spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        id="only a load balancer may do without node ports",
    ),
    pytest.param(
        service(ipFamilies=["IPv6"]),
        ['spec.clusterIPs[0]: Invalid value: "10.96.0.9": expected an IPv6 value as indicated by `ipFamilies[0]`'],
        id="address and family agree",
    ),
    pytest.param(
        service(ipFamilyPolicy="Dual"),
        [
            'spec.ipFamilyPolicy: Unsupported value: "Dual": supported values: '
            '"PreferDualStack", "RequireDualStack", "SingleStack"'
        ],
        id="family policies have names",
    ),
    pytest.param(
        service(selector={"a b": "c"}),
        [
            "spec.selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or "
            "'.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
            "regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ],
        id="selectors are labels",
    ),
]


@pytest.mark.parametrize(("obj", "messages"), CASES)
def test_create(complaints: Any, obj: dict[str, Any], messages: list[str]) -> None:
    assert complaints("Service", obj) == messages


CHANGES = [
    pytest.param({}, {"selector": {"a": "b"}}, [], id="another selector"),
    pytest.param(
        {},
        {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]},
        ['spec.clusterIPs[0]: Invalid value: ["10.96.0.10"]: may not change once set'],
        id="another address",
    ),
    pytest.param(
        {},
        HEADLESS,
        ['spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set'],
        id="headless later",
    ),
    pytest.param(
        {"ipFamilies": ["IPv4"]},
        {"ipFamilies": ["IPv6"], "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]},
        [
            'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: may not change once set',
            'spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set',
        ],
        id="another family",
    ),
    pytest.param(
        {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": True, "loadBalancerClass": "example.net/a"},
        {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": True, "loadBalancerClass": "example.net/b"},
        ['spec.loadBalancerClass: Invalid value: "example.net/b": may not change once set'],
        id="another load balancer class",
    ),
    pytest.param(
        {},
        {"loadBalancerClass": "example.net/a"},
        ["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        id="a class without a load balancer",
    ),
    pytest.param(
        {"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.96.0.9", "fd00::9"], "ipFamilies": ["IPv4", "IPv6"]},
        {"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"]},
        [
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the "
            "secondary clusterIP",
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the "
            "secondary ipFamily",
        ],
        id="a second address that goes without saying so",
    ),
]


@pytest.mark.parametrize(("before", "after", "messages"), CHANGES)
def test_update(update_complaints: Any, before: Any, after: Any, messages: list[str]) -> None:
    assert update_complaints("Service", service(**before), service(**after)) == messages


def test_defaults(created: Any) -> None:
    spec = created(
        "Service", {"spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}}
    )
    assert spec["spec"] == {
        "type": "LoadBalancer",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
        "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": True,
    }


ROWS = [
    pytest.param(
        {"type": "ClusterIP", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 443, "protocol": "TCP"}]},
        {},
        ("ClusterIP", "10.96.0.1", "<none>", "443/TCP", "<none>"),
        id="ClusterIP",
    ),
    pytest.param(
        {
            "type": "NodePort",
            "clusterIPs": ["10.96.0.1"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}],
        },
        {},
        ("NodePort", "10.96.0.1", "<none>", "80:30080/UDP", "<none>"),
        id="NodePort",
    ),
    pytest.param(
        {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "selector": {"b": "2", "a": "1"}},
        {},
        ("LoadBalancer", "10.96.0.1", "<pending>", "<none>", "a=1,b=2"),
        id="a load balancer that is not there yet",
    ),
    pytest.param(
        {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "externalIPs": ["203.0.113.9"]},
        {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}, {"hostname": "lb.example"}]}},
        ("LoadBalancer", "10.96.0.1", "203.0.113.8,lb.example,203.0.113.9", "<none>", "<none>"),
        id="a load balancer with addresses",
    ),
    pytest.param(
        {"type": "ExternalName", "externalName": "example.org"},
        {},
        ("ExternalName", "<none>", "example.org", "<none>", "<none>"),
        id="ExternalName",
    ),
]


@pytest.mark.parametrize(("spec", "status", "cells"), ROWS)
def test_row(row_of: Any, spec: dict[str, Any], status: dict[str, Any], cells: tuple[str, ...]) -> None:
    row = row_of("Service", {"spec": spec, "status": status})
    assert tuple(row[name] for name in ("Type", "Cluster-IP", "External-IP", "Port(s)", "Selector")) == cells
