"""The cluster zone: question -> rcode, records, by the Kubernetes DNS specification."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest
from dnslib import QTYPE, DNSRecord

from kubewire.components.coredns import corefile
from kubewire.components.coredns.instance import Instance
from kubewire.components.coredns.message import RCODES
from kubewire.components.coredns.plugins.kubernetes import Kubernetes
from kubewire.components.coredns.server import answer

COREFILE = """\
. {
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    template IN A example.test {
        match "^www[.]example[.]test[.]$"
        answer "{{ .Name }} 60 IN A 192.0.2.80"
    }
}
"""
NAMESPACES = ("default", "kube-system", "ns")


def service(name: str, namespace: str = "ns", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"ports": ports} | spec}


def cluster_ip(name: str, *ips: str, **spec: Any) -> dict[str, Any]:
    return service(name, clusterIP=ips[0], clusterIPs=list(ips), **spec)


def endpoint_slice(name: str, service_name: str, endpoints: list[dict[str, Any]], *, ports: Any = None, **rest: Any):
    return {
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": service_name}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}] if ports is None else ports,
    } | rest


def endpoint(ip: str, hostname: str = "", *, ready: bool | None = True, pod: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {"addresses": [ip], "conditions": {} if ready is None else {"ready": ready}}
    out |= {"hostname": hostname} if hostname else {}
    return out | ({"targetRef": {"kind": "Pod", "name": pod}} if pod else {})


SERVICES = [
    service(
        "kubernetes",
        "default",
        clusterIP="10.96.0.1",
        clusterIPs=["10.96.0.1"],
        ports=[{"name": "https", "port": 443, "protocol": "TCP"}],
    ),
    cluster_ip("web", "10.96.0.100"),
    cluster_ip("dual", "10.96.0.101", "fd00:96::101"),
    cluster_ip("six", "fd00:96::6"),
    cluster_ip("two-ports", "10.96.0.102", ports=[
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]),
    service("headless", clusterIP="None", clusterIPs=["None"]),
    service("empty", clusterIP="None", clusterIPs=["None"]),
    service("portless", clusterIP="None", clusterIPs=["None"], ports=[]),
    service("outside", type="ExternalName", externalName="www.example.test"),
    service("digits", type="ExternalName", externalName="192.0.2.80"),
    service("alias", type="ExternalName", externalName="web.ns.svc.cluster.local"),
    service("circle", type="ExternalName", externalName="circle.ns.svc.cluster.local"),
]  # fmt: skip
SLICES = [
    endpoint_slice("headless-1", "headless", [
        endpoint("10.244.1.2", "db-0"),
        endpoint("10.244.1.3", ready=None, pod="db-x"),
        endpoint("10.244.1.9", ready=False)]),
    endpoint_slice("headless-2", "headless", [endpoint("fd00:244::2", pod="db-6")], addressType="IPv6"),
    endpoint_slice("web-1", "web", [endpoint("10.244.2.2", pod="web-abc")]),
    endpoint_slice("portless-1", "portless", [endpoint("10.244.3.3")], ports=[]),
]  # fmt: skip


def build(text: str = COREFILE, *, synced: bool = True) -> Instance:
    instance = Instance.build(corefile.parse(text))
    for plugin in instance.plugins:
        if isinstance(plugin, Kubernetes):
            for name in NAMESPACES:
                plugin.index.namespace_changed(None, {"metadata": {"name": name}})
            for obj in SERVICES:
                plugin.index.service_changed(None, obj)
            for obj in SLICES:
                plugin.index.slice_changed(None, obj)
            plugin.index.pod_changed(None, {"metadata": {"namespace": "ns"}, "status": {"podIP": "10.244.5.5"}})
            plugin.index.changed = 1499347823
            plugin.synced = synced
    return instance


def ask(instance: Instance, name: str, qtype: str, transport: str = "udp") -> DNSRecord:
    query = DNSRecord.question(name, qtype)
    data = asyncio.run(answer(query.pack(), lambda request: instance.resolve(53, request), transport, "10.0.0.1:1"))
    assert data is not None
    reply = DNSRecord.parse(data)
    assert reply.header.id == query.header.id
    return reply


def records(section: Any) -> list[str]:
    return sorted(f"{rr.rname} {rr.ttl} {QTYPE.get(rr.rtype)} {rr.rdata!s}" for rr in section if rr.rtype != QTYPE.OPT)


SOA = "cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5"
NX, OK = "NXDOMAIN", "NOERROR"

#: name, type, rcode, answers (without owner and TTL 5)
TABLE = [
    ("kubernetes.default.svc.cluster.local", "A", OK, ["A 10.96.0.1"]),
    ("web.ns.svc.cluster.local", "A", OK, ["A 10.96.0.100"]),
    ("web.ns.svc.cluster.local", "AAAA", OK, []),
    ("web.ns.svc.cluster.local", "TXT", OK, []),
    ("web.ns.svc.cluster.local", "MX", OK, []),
    ("dual.ns.svc.cluster.local", "AAAA", OK, ["AAAA fd00:96::101"]),
    ("dual.ns.svc.cluster.local", "A", OK, ["A 10.96.0.101"]),
    ("six.ns.svc.cluster.local", "A", OK, []),
    ("two-ports.ns.svc.cluster.local", "A", OK, ["A 10.96.0.102"]),
    ("_http._tcp.web.ns.svc.cluster.local", "SRV", OK, ["SRV 0 100 80 web.ns.svc.cluster.local."]),
    ("_http._udp.web.ns.svc.cluster.local", "SRV", NX, []),
    ("_nope._tcp.web.ns.svc.cluster.local", "SRV", NX, []),
    ("_dns._udp.two-ports.ns.svc.cluster.local", "SRV", OK, ["SRV 0 100 53 two-ports.ns.svc.cluster.local."]),
    ("headless.ns.svc.cluster.local", "A", OK, ["A 10.244.1.2", "A 10.244.1.3"]),
    ("headless.ns.svc.cluster.local", "AAAA", OK, ["AAAA fd00:244::2"]),
    ("db-0.headless.ns.svc.cluster.local", "A", OK, ["A 10.244.1.2"]),
    ("db-0.headless.ns.svc.cluster.local", "AAAA", OK, []),
    ("10-244-1-3.headless.ns.svc.cluster.local", "A", OK, ["A 10.244.1.3"]),
    ("fd00-244--2.headless.ns.svc.cluster.local", "AAAA", OK, ["AAAA fd00:244::2"]),
    ("10-244-1-9.headless.ns.svc.cluster.local", "A", NX, []),
    ("db-9.headless.ns.svc.cluster.local", "A", NX, []),
    ("_http._tcp.headless.ns.svc.cluster.local", "SRV", OK, [
        "SRV 0 33 8080 10-244-1-3.headless.ns.svc.cluster.local.",
        "SRV 0 33 8080 db-0.headless.ns.svc.cluster.local.",
        "SRV 0 33 8080 fd00-244--2.headless.ns.svc.cluster.local."]),
    ("10-244-2-2.web.ns.svc.cluster.local", "A", OK, ["A 10.244.2.2"]),
    ("empty.ns.svc.cluster.local", "A", NX, []),
    ("portless.ns.svc.cluster.local", "A", OK, ["A 10.244.3.3"]),
    ("portless.ns.svc.cluster.local", "SRV", OK, []),
    ("nope.ns.svc.cluster.local", "A", NX, []),
    ("web.nope.svc.cluster.local", "A", NX, []),
    ("a.b.c.web.ns.svc.cluster.local", "A", NX, []),
    ("cluster.local", "A", OK, []),
    ("svc.cluster.local", "A", OK, []),
    ("pod.cluster.local", "A", OK, []),
    ("ns.svc.cluster.local", "A", OK, []),
    ("nope.svc.cluster.local", "A", NX, []),
    ("nope.cluster.local", "A", NX, []),
    ("web.ns.cluster.local", "A", NX, []),
    ("10-244-1-2.ns.pod.cluster.local", "A", OK, ["A 10.244.1.2"]),
    ("10-244-1-2.ns.pod.cluster.local", "AAAA", OK, []),
    ("fd00--7.ns.pod.cluster.local", "AAAA", OK, ["AAAA fd00::7"]),
    ("10-244-1-2.nope.pod.cluster.local", "A", NX, []),
    ("10-244-1-256.ns.pod.cluster.local", "A", NX, []),
    ("ns.pod.cluster.local", "A", OK, []),
    ("outside.ns.svc.cluster.local", "CNAME", OK, ["CNAME www.example.test."]),
    ("_http._tcp.outside.ns.svc.cluster.local", "SRV", OK, ["SRV 0 100 0 www.example.test."]),
    ("_http._tcp.outside.ns.svc.cluster.local", "CNAME", OK, ["CNAME www.example.test."]),
    ("db-0.outside.ns.svc.cluster.local", "CNAME", NX, []),
    ("digits.ns.svc.cluster.local", "A", NX, []),
    ("digits.ns.svc.cluster.local", "CNAME", NX, []),
    ("100.0.96.10.in-addr.arpa", "PTR", OK, ["PTR web.ns.svc.cluster.local."]),
    ("2.1.244.10.in-addr.arpa", "PTR", OK, ["PTR db-0.headless.ns.svc.cluster.local."]),
    (ip_address("fd00:96::101").reverse_pointer, "PTR", OK, ["PTR dual.ns.svc.cluster.local."]),
    ("cluster.local", "SOA", OK, [SOA.split(" ", 2)[2]]),
]  # fmt: skip


@pytest.fixture(scope="module")
def instance() -> Instance:
    return build()


@pytest.mark.parametrize(("name", "qtype", "rcode", "answers"), TABLE, ids=[f"{r[0]} {r[1]}" for r in TABLE])
def test_names_have_the_specified_records(instance, name, qtype, rcode, answers):
    reply = ask(instance, name, qtype)
    assert RCODES[reply.header.rcode] == rcode
    assert records(reply.rr) == [f"{name}. 5 {text}" for text in answers]
    assert reply.header.aa == 1
    # RFC 2308: who denies says by its SOA for how long.
    assert records(reply.auth) == ([] if answers else [SOA])


def test_the_addresses_of_srv_targets_come_along(instance):
    reply = ask(instance, "_http._tcp.headless.ns.svc.cluster.local", "SRV", "tcp")
    assert records(reply.ar) == [
        "10-244-1-3.headless.ns.svc.cluster.local. 5 A 10.244.1.3",
        "db-0.headless.ns.svc.cluster.local. 5 A 10.244.1.2",
        "fd00-244--2.headless.ns.svc.cluster.local. 5 AAAA fd00:244::2",
    ]


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("outside", ["outside.ns.svc.cluster.local. 5 CNAME www.example.test.", "www.example.test. 60 A 192.0.2.80"]),
        (
            "alias",
            [
                "alias.ns.svc.cluster.local. 5 CNAME web.ns.svc.cluster.local.",
                "web.ns.svc.cluster.local. 5 A 10.96.0.100",
            ],
        ),
    ],
)
def test_an_external_name_is_followed_by_the_whole_server(instance, name, answers):
    assert records(ask(instance, f"{name}.ns.svc.cluster.local", "A").rr) == answers


def test_an_external_name_that_leads_to_itself_ends(instance):
    assert ask(instance, "circle.ns.svc.cluster.local", "A").header.rcode == 0


def test_the_version_record(instance):
    reply = ask(instance, "dns-version.cluster.local", "TXT")
    assert records(reply.rr) == ['dns-version.cluster.local. 28800 TXT "1.1.0"']


def test_the_case_of_the_question_comes_back(instance):
    reply = ask(instance, "wEb.Ns.SVC.cluster.LOCAL", "A")
    assert str(reply.q.qname) == "wEb.Ns.SVC.cluster.LOCAL."
    assert str(reply.rr[0].rname) == "wEb.Ns.SVC.cluster.LOCAL."


def test_an_unknown_reverse_name_falls_through_and_others_do_not(instance):
    assert RCODES[ask(instance, "1.2.0.192.in-addr.arpa", "PTR").header.rcode] == "SERVFAIL"
    assert RCODES[ask(instance, "nope.cluster.local", "A").header.rcode] == NX


def test_before_the_first_sync_nothing_is_denied():
    reply = ask(build(synced=False), "nope.ns.svc.cluster.local", "A")
    assert RCODES[reply.header.rcode] == "SERVFAIL"


@pytest.mark.parametrize(
    ("options", "name", "rcode", "count"),
    [
        pytest.param("pods disabled", "10-244-5-5.ns.pod.cluster.local", NX, 0, id="pods disabled"),
        pytest.param("pods verified", "10-244-5-5.ns.pod.cluster.local", OK, 1, id="pods verified, a pod's"),
        pytest.param("pods verified", "10-244-5-6.ns.pod.cluster.local", NX, 0, id="pods verified, nobody's"),
        pytest.param("pods verified", "10-244-5-5.default.pod.cluster.local", NX, 0, id="pods verified, elsewhere"),
        pytest.param("endpoint_pod_names", "db-x.headless.ns.svc.cluster.local", OK, 1, id="endpoint_pod_names"),
        pytest.param("namespaces default", "web.ns.svc.cluster.local", NX, 0, id="another namespace"),
        pytest.param("namespaces ns", "web.ns.svc.cluster.local", OK, 1, id="namespaces"),
        pytest.param("ignore empty_service", "dual.ns.svc.cluster.local", NX, 0, id="ignore empty_service"),
        pytest.param("ignore empty_service", "web.ns.svc.cluster.local", OK, 1, id="a Service with endpoints"),
    ],
)
def test_options_of_the_plugin(options, name, rcode, count):
    reply = ask(build(f". {{\n kubernetes cluster.local {{\n  {options}\n }}\n}}"), name, "A")
    assert (RCODES[reply.header.rcode], len(reply.rr)) == (rcode, count)


def test_what_goes_away_is_no_longer_found():
    instance = build()
    (plugin,) = [plugin for plugin in instance.plugins if isinstance(plugin, Kubernetes)]
    plugin.index.service_changed(SERVICES[1], None)
    plugin.index.slice_changed(SLICES[0], None)
    for name, qtype in (
        ("web.ns.svc.cluster.local", "A"),
        ("db-0.headless.ns.svc.cluster.local", "A"),
    ):
        assert RCODES[ask(instance, name, qtype).header.rcode] == NX
    assert "10.244.1.2" not in plugin.index.services_of_endpoint
    assert "10.96.0.100" not in plugin.index.services_by_ip
