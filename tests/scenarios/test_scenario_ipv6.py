"""What the engine does in IPv6: addresses by family, pings, neighbour discovery, connections, lab files."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether

from kubewire.scenarios.engine.file.spec import LabSpec, SpecError
from kubewire.scenarios.engine.packets.decode import Packet, decode, summary
from kubewire.scenarios.engine.scene import probe
from kubewire.scenarios.engine.scene.scene import SHORTCUTS, End, NotYet
from kubewire.scenarios.engine.verbs.conntrack import parse
from kubewire.scenarios.engine.verbs.kernel import Routes
from kubewire.scenarios.engine.verbs.packets import fits
from kubewire.scenarios.engine.verbs.probes import Dns, Http, Ping, Tcp
from tests.scratch import isolated

NODE = {
    "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "172.18.0.3"},
            {"type": "InternalIP", "address": "fd00:18::3"},
            {"type": "Hostname", "address": "worker-1"},
        ]
    },
}
POD = {"status": {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00:10:244:1::2"}]}}
SERVICE = {"spec": {"clusterIP": "fd00:10:96::5", "clusterIPs": ["fd00:10:96::5"]}}


@pytest.mark.parametrize(
    ("plural", "attribute", "obj", "value"),
    [
        ("nodes", "ip", NODE, "172.18.0.3"),
        ("nodes", "ipv6", NODE, "fd00:18::3"),
        ("nodes", "podCIDR", NODE, "10.244.1.0/24"),
        ("nodes", "podCIDRIPv6", NODE, "fd00:10:244:1::/64"),
        ("nodes", "networkIPv6", NODE, "fd00:10:244:1::"),
        ("nodes", "gatewayIPv6", NODE, "fd00:10:244:1::1"),
        ("nodes", "gatewayIPv4", NODE, "10.244.1.1"),
        ("pods", "ipv4", POD, "10.244.1.2"),
        ("pods", "ipv6", POD, "fd00:10:244:1::2"),
        ("pods", "ipv6", {"status": {}}, ""),
        ("services", "ipv6", SERVICE, "fd00:10:96::5"),
        ("services", "ipv4", SERVICE, ""),
    ],
)
def test_references_by_family(plural: str, attribute: str, obj: dict[str, Any], value: str) -> None:
    assert SHORTCUTS[plural, attribute](obj) == value


def test_an_end_is_meant_by_its_address_of_the_asked_family() -> None:
    end = End("pod:a", "pod:ns/a", "10.244.1.2", "worker-1", ("10.244.1.2", "fd00:10:244:1::2"))
    assert end.within("IPv6").ip == "fd00:10:244:1::2"
    assert end.within("").ip == end.within("IPv4").ip == "10.244.1.2"
    assert end.within("IPv6").values()["ipv4"] == "10.244.1.2"
    with pytest.raises(NotYet, match=r"pod:b has no IPv6 address: 10\.244\.1\.3"):
        End("pod:b", "pod:ns/b", "10.244.1.3", "worker-1", ("10.244.1.3",)).within("IPv6")


def test_a_name_has_whatever_family_it_is_looked_up_for() -> None:
    assert End("web", ip="web").within("IPv6").ip == "web"


def test_addresses_in_urls_and_with_ports_are_in_brackets() -> None:
    assert Http.read({"to": "fd00::2", "port": 8080, "path": "/x"}).address == "http://[fd00::2]:8080/x"
    assert Http.read({"to": "fd00::2", "port": 8080}).request()["host"] == "fd00::2"
    assert Tcp.read({"to": "[fd00::2]:80"}).request()["host"] == "fd00::2"


def test_a_ping_counts_the_headers_of_its_family() -> None:
    reply = {"source": "fd00::2", "ttl": 62, "ms": 1.0}
    seen = Ping.read({"to": "fd00::2", "size": 1382, "df": True}).judge(reply, End("pod:a", "pod:ns/a"))
    assert "1430 bytes unfragmented" in seen.seen


def pings() -> dict[str, Any]:
    for command in (
        "link set lo up",
        "link add left type veth peer name right",
        "link set right up",
        "link set left mtu 1400 up",
        "address add fd00:18::2/64 dev left nodad",
        "route add unreachable fd00:99::/64",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    requests: dict[str, dict[str, Any]] = {
        "answered": {"host": "::1", "size": 56, "ttl": 9},
        "of the other family": {"host": "::1", "family": "IPv4"},
        "too big": {"host": "fd00:18::3", "size": 1400, "df": True},
        "no way": {"host": "fd00:99::1"},
        "nobody": {"host": "fd00:18::9", "timeout": 5.0},
    }
    return {name: probe.once({"probe": "ping", "timeout": 1.0, **request}) for name, request in requests.items()}


@pytest.mark.packet
def test_pings_in_ipv6_and_how_they_fail() -> None:
    results = isolated(pings)
    answered = results["answered"]
    assert (answered["source"], answered["ttl"], answered["size"]) == ("::1", 64, 56)
    assert results["of the other family"]["error"] == "dns"
    assert results["too big"]["error"] == "too-big" and "mtu 1400" in results["too big"]["message"]
    assert results["no way"]["error"] == "unreachable"
    assert results["nobody"]["error"] == "unreachable"  # nobody advertises the address


def frame(layers: Any) -> Packet:
    return decode(bytes(Ether(src="5e:00:00:00:00:01", dst="33:33:ff:00:00:03") / layers))


SOLICITATION = frame(IPv6(src="fe80::1", dst="ff02::1:ff00:3") / ICMPv6ND_NS(tgt="fd00:18::3"))
ADVERTISEMENT = frame(IPv6(src="fd00:18::3", dst="fe80::1") / ICMPv6ND_NA(tgt="fd00:18::3"))


def test_neighbour_discovery_is_said_and_matched() -> None:
    assert summary(SOLICITATION) == "fe80::1 -> ff02::1:ff00:3 ICMP neighbour solicitation, who has fd00:18::3?"
    assert summary(ADVERTISEMENT) == "fd00:18::3 -> fe80::1 ICMP neighbour advertisement of fd00:18::3"
    assert fits(SOLICITATION, {"icmp": "neighbour-solicitation", "target": "fd00:18::3", "protocol": "icmp"})
    assert not fits(SOLICITATION, {"icmp": "neighbour-advertisement"})
    assert not fits(SOLICITATION, {"target": "fd00:18::4"})
    assert fits(ADVERTISEMENT, {"icmp": "neighbour-advertisement", "target": "fd00:18::3"})


@pytest.mark.parametrize(
    ("layer", "kind", "said"),
    [
        (ICMPv6EchoRequest(seq=3), "echo-request", "echo request 3"),
        (ICMPv6PacketTooBig(mtu=1430), "packet-too-big", "packet too big, mtu 1430"),
        (ICMPv6TimeExceeded(), "time-exceeded", "time exceeded"),
    ],
)
def test_types_of_icmp_are_those_of_their_version(layer: Any, kind: str, said: str) -> None:
    packet = frame(IPv6(src="fd00::1", dst="fd00::2") / layer)
    assert fits(packet, {"icmp": kind})
    assert not fits(packet, {"icmp": "unreachable"}), "type 3 is unreachable in IPv4 alone"
    assert said in summary(packet)


def test_connections_in_ipv6() -> None:
    lines = (
        "tcp      6 117 TIME_WAIT src=fd00:1::2 dst=fd00:96::5 sport=40000 dport=80 "
        "src=fd00:2::3 dst=fd00:1::2 sport=8080 dport=40000 [ASSURED] mark=0 use=1\n"
        "icmpv6   58 29 src=fd00:1::2 dst=2001:db8::1 type=128 code=0 id=7 "
        "src=2001:db8::1 dst=fd00:18::3 type=129 code=0 id=7 mark=0 use=1\n"
    )
    assert [(entry.protocol, entry.nat) for entry in parse(lines)] == [("tcp", "destination"), ("icmpv6", "source")]


def test_routes_are_those_of_the_family_that_is_asked_for() -> None:
    assert Routes.read({"to": "fd00:10:244:2::/64"}).argv() == ["-6", "route", "show", "table", "main"]
    assert Routes.read({"to": "default", "via": "fd00:18::1"}).argv()[0] == "-6"
    assert Routes.read({"to": "default"}).argv() == ["route", "show", "table", "main"]


def test_a_resolver_that_does_not_answer_is_a_failed_look() -> None:
    result = {"server": "fd00::a", "asked": [], "error": "timeout", "message": "no answer", "answers": [], "ms": 1.0}
    seen = Dns.read({"name": "web", "type": "AAAA", "server": "fd00::a"}).judge(result, End("pod:a", "pod:ns/a"))
    assert not seen.holds and seen.why == "timeout: no answer"


@pytest.mark.parametrize(
    ("family", "cluster"),
    [
        ("ipv4", "10.244.0.0/16"),
        ("ipv6", "fd00:10:244::/56"),
        ("dual", "10.244.0.0/16,fd00:10:244::/56"),
        ("dual-ipv6-first", "fd00:10:244::/56,10.244.0.0/16"),
    ],
)
def test_an_ip_family_gives_ranges(family: str, cluster: str) -> None:
    spec = LabSpec.parse({"network": {"ipFamily": family}})
    assert spec.network.clusterCIDR == cluster
    assert LabSpec.parse({"network": {"clusterCIDR": cluster, "nodeCIDR": spec.network.nodeCIDR,
                                      "serviceCIDR": spec.network.serviceCIDR}}) == spec  # fmt: skip
    assert LabSpec.parse(json.loads(json.dumps(spec.as_dict()))) == spec


def test_an_ip_family_that_is_not_the_pods_is_refused() -> None:
    with pytest.raises(SpecError, match=r"network\.ipFamily: dual is not that of clusterCIDR 10\.99\.0\.0/16"):
        LabSpec.parse({"network": {"ipFamily": "dual", "clusterCIDR": "10.99.0.0/16"}})


def test_ranges_that_are_given_are_taken_instead_of_the_familys() -> None:
    spec = LabSpec.parse({"network": {"ipFamily": "dual", "serviceCIDR": "10.96.0.0/12"}})
    assert (spec.network.serviceCIDR, spec.network.ip_families) == ("10.96.0.0/12", "IPv4/IPv6")
