"""IPVS mode as text: golden files, upstream's names, what is written when, and what the tools' listings say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubewire.components.kube_proxy import sysctls
from kubewire.components.kube_proxy.configuration.config import IpvsSettings, KubeProxyConfiguration
from kubewire.components.kube_proxy.ipvs import rules, servers, sets
from kubewire.components.kube_proxy.ipvs.chains import Rules
from kubewire.components.kube_proxy.ipvs.rules import Cache, Context
from kubewire.components.kube_proxy.ipvs.servers import Key, VirtualServer
from kubewire.components.kube_proxy.state.local_traffic import LocalSource
from kubewire.components.kube_proxy.state.model import IPV4, IPV6, Endpoint, Node, ServicePort, ServicePortName

NODE = Node("worker-1", ("172.18.0.3", "fd00:172:18::3"))
CONTEXT = Context(NODE, IPV4, "rr", frozenset({"172.18.0.3", "10.244.1.1"}), ("10.244.1.1", "172.18.0.3"))
RULES = Rules(local_source=LocalSource("10.244.0.0/16"))
CONTEXT6 = Context(NODE, IPV6, "rr", frozenset({"fd00:172:18::3"}), ("fd00:172:18::3",))
RULES6 = Rules(IPV6, LocalSource("fd00:10:244::/56"))


def name(text: str, port: str = "p80", protocol: str = "TCP") -> ServicePortName:
    namespace, service = text.split("/")
    return ServicePortName(namespace, service, port, protocol)


CLUSTER_IP = ServicePort("172.30.0.41", 80, "tcp")
NODE_PORT = ServicePort("172.30.0.43", 80, "tcp", node_port=3002)
BALANCER = ServicePort(
    "172.30.0.45",
    80,
    "tcp",
    node_port=3001,
    external_ips=("192.168.99.11", "172.18.0.3"),
    load_balancer_ips=("1.2.3.4", "5.6.7.8"),
    load_balancer_source_ranges=("172.18.0.0/16", "203.0.113.7/32"),
    external_local=True,
    health_check_node_port=30000,
)
THREE = tuple(Endpoint(f"10.244.{i}.2", 80, f"worker-{i}") for i in (1, 2, 3))
SVC = name("ns1/svc1")

CASES: dict[str, tuple[dict[ServicePortName, ServicePort], dict[ServicePortName, tuple[Endpoint, ...]], Context, Rules]] = {
    "cluster-ip": ({SVC: CLUSTER_IP}, {SVC: THREE}, CONTEXT, RULES),
    "session-affinity": ({SVC: replace(CLUSTER_IP, sticky_seconds=10800)}, {SVC: THREE[:2]}, CONTEXT, RULES),
    "no-endpoints": ({SVC: CLUSTER_IP, name("ns3/svc3"): NODE_PORT}, {}, CONTEXT, RULES),
    "node-ports-of-each-protocol": (
        {
            name("ns3/tcp"): NODE_PORT,
            name("ns3/udp", protocol="UDP"): replace(NODE_PORT, cluster_ip="172.30.0.44", protocol="udp"),
            name("ns3/sctp", protocol="SCTP"): replace(
                NODE_PORT, cluster_ip="172.30.0.45", protocol="sctp", external_local=True
            ),
        },
        {name("ns3/tcp"): THREE, name("ns3/udp", protocol="UDP"): THREE, name("ns3/sctp", protocol="SCTP"): THREE},
        CONTEXT,
        RULES,
    ),
    "load-balancer-policy-local": ({SVC: BALANCER}, {SVC: THREE}, CONTEXT, RULES),
    "load-balancer-closed-to-the-node": (
        {SVC: replace(BALANCER, external_local=False, load_balancer_source_ranges=("203.0.113.0/25",))},
        {SVC: THREE},
        CONTEXT,
        RULES,
    ),
    "internal-policy-local": (
        {SVC: replace(CLUSTER_IP, internal_local=True), name("ns1/elsewhere"): replace(
            CLUSTER_IP, cluster_ip="172.30.0.42", internal_local=True)},
        {SVC: THREE, name("ns1/elsewhere"): THREE[1:]},
        CONTEXT,
        RULES,
    ),
    "ipv6-mh": (
        {SVC: ServicePort("fd00:96::29", 80, "tcp", node_port=3001, load_balancer_ips=("fd00:99::1",),
                          load_balancer_source_ranges=("::/0",))},
        {SVC: (Endpoint("fd00:10:244:1:0::2", 80, "worker-1"),)},
        replace(CONTEXT6, scheduler="mh"),
        RULES6,
    ),
    "masquerade-all": ({SVC: CLUSTER_IP}, {SVC: THREE[:1]}, CONTEXT, replace(RULES, masquerade_all=True)),
    "local-pods-cannot-be-told": ({SVC: CLUSTER_IP}, {SVC: THREE[:1]}, CONTEXT, Rules()),
}  # fmt: skip


def whole(plan: rules.Plan, fixed: Rules) -> str:
    """What a first sync gives each tool."""
    fixed = replace(fixed, nonempty=sets.nonempty(plan.sets), closed_to_node=plan.closed_to_node)
    parts = {
        "ipset restore -exist": [*sets.creations(fixed.family), *sets.additions(plan.sets, {}, fixed.family)],
        "ipvsadm -R": servers.change(plan.servers, {}).lines,
        "addresses of kube-ipvs0": sorted(plan.bound),
        "iptables-restore --noflush": fixed.text().splitlines(),
    }
    return "".join(f"# {tool}\n{servers.text(lines)}" for tool, lines in parts.items())


@pytest.mark.parametrize("case", CASES)
def test_golden(case, golden):
    services, endpoints, context, fixed = CASES[case]
    golden(f"kube_proxy/ipvs/{case}.txt", whole(rules.plan(services, endpoints, context), fixed))


def test_ipv6_sets_have_names_of_their_own_cut_to_what_the_kernel_takes():
    assert sets.named("KUBE-CLUSTER-IP", IPV6) == "KUBE-6-CLUSTER-IP"
    assert sets.named("KUBE-LOAD-BALANCER-SOURCE-CIDR", IPV6) == "KUBE-6-LOAD-BALANCER-SOURCE-CID"
    assert {len(sets.named(item, IPV6)) <= 31 for item in sets.SETS} == {True}
    assert len({sets.named(item, family) for item in sets.SETS for family in (IPV4, IPV6)}) == 2 * len(sets.SETS)


def test_an_endpoint_that_comes_and_one_that_goes_are_all_that_is_written():
    cache = Cache()
    before = rules.plan({SVC: CLUSTER_IP}, {SVC: THREE[:2]}, CONTEXT, cache)
    after = rules.plan({SVC: CLUSTER_IP}, {SVC: THREE[1:]}, CONTEXT, cache, {SVC})
    change = servers.change(after.servers, before.servers)
    service = "-t 172.30.0.41:80"
    assert change.lines == [
        f"-a {service} -r 10.244.3.2:80 -m -w 1",
        f"-e {service} -r 10.244.1.2:80 -m -w 0",
    ]
    assert change.removals == []
    assert servers.drained(change.result) == {(Key("tcp", "172.30.0.41", 80), "10.244.1.2:80")}


def test_nothing_changed_is_nothing_written():
    cache = Cache()
    before = rules.plan({SVC: BALANCER}, {SVC: THREE}, CONTEXT, cache)
    after = rules.plan({SVC: BALANCER}, {SVC: THREE}, CONTEXT, cache, {SVC})
    change = servers.change(after.servers, before.servers)
    assert (change.lines, change.removals, change.result) == ([], [], before.servers)
    assert sets.additions(after.sets, before.sets, IPV4) == sets.deletions(after.sets, before.sets, IPV4) == []


def test_a_plan_brought_up_to_date_is_the_plan_made_anew():
    """An address or a hairpin that two Services share stays until the last of them is gone."""
    other = name("ns1/other")
    alike = replace(CLUSTER_IP, port=81)
    claim = replace(BALANCER, external_ips=("192.168.99.11",))
    steps: list[tuple[dict[ServicePortName, ServicePort], dict[ServicePortName, tuple[Endpoint, ...]]]] = [
        ({SVC: CLUSTER_IP}, {SVC: THREE}),
        ({SVC: CLUSTER_IP, other: alike}, {SVC: THREE, other: THREE}),
        ({SVC: CLUSTER_IP, other: alike}, {SVC: THREE[1:], other: THREE}),
        ({other: alike}, {other: THREE}),
        ({other: claim, SVC: replace(claim, cluster_ip="172.30.0.46")}, {SVC: THREE[:1], other: THREE[:2]}),
        ({other: claim, SVC: replace(claim, cluster_ip="172.30.0.46")}, {SVC: THREE[:1], other: THREE[:1]}),
        ({SVC: replace(claim, cluster_ip="172.30.0.46")}, {SVC: THREE[:1], other: THREE[:1]}),
        ({}, {}),
    ]
    cache = Cache()
    for services, endpoints in steps:
        assert rules.plan(services, endpoints, CONTEXT, cache, {SVC, other}) == rules.plan(services, endpoints, CONTEXT)
    assert not cache.counts


KEY = Key("tcp", "10.96.0.1", 80)
DNS = Key("udp", "10.96.0.10", 53)


def server(reals: dict[str, int], timeout: int = 0) -> VirtualServer:
    return VirtualServer("rr", timeout, reals)


def test_a_drained_real_server_that_comes_back_gets_weight_one():
    change = servers.change({KEY: server({"10.0.0.1:80": 1})}, {KEY: server({"10.0.0.1:80": 0})})
    assert change.lines == ["-e -t 10.96.0.1:80 -r 10.0.0.1:80 -m -w 1"]
    assert servers.drained(change.result) == frozenset()


def test_a_real_server_that_is_drained_already_is_left_alone():
    change = servers.change({KEY: server({})}, {KEY: server({"10.0.0.1:80": 0})})
    assert change.lines == []
    assert servers.drained(change.result) == {(KEY, "10.0.0.1:80")}


@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_without_tcp_nothing_is_drained(protocol):
    key = DNS._replace(protocol=protocol)
    change = servers.change({key: server({})}, {key: server({"10.0.0.1:53": 1})})
    assert change.lines == [f"-d {key.service} -r 10.0.0.1:53"]
    assert servers.drained(change.result) == frozenset()


def test_affinity_that_comes_is_an_edit_of_the_virtual_server():
    change = servers.change({KEY: server({}, timeout=60)}, {KEY: server({})})
    assert change.lines == ["-E -t 10.96.0.1:80 -s rr -p 60"]


def test_virtual_servers_that_nobody_needs_go_but_for_excluded_ones():
    present = {KEY: server({}), DNS: server({})}
    change = servers.change({}, present, keep=lambda ip: ip == "10.96.0.10")
    assert change.removals == ["-D -t 10.96.0.1:80"]
    assert change.result == {DNS: present[DNS]}


def test_what_ipvsadm_saves_is_read_back_by_family():
    saved = (
        "-A -t 10.96.0.1:80 -s rr -p 100\n"
        "-a -t 10.96.0.1:80 -r 10.1.1.1:8080 -m -w 1\n"
        "-A --sctp-service 10.96.0.1:80 -s wlc\n"
        "-A -f 7 -s rr\n"
        "-a -f 7 -r 10.1.1.1:8080 -m -w 1\n"
        "-A -t [fd00::1]:80 -s mh -b mh-port\n"
        "-a -t [fd00::1]:80 -r [fd01::2]:8080 -m -w 0\n"
    )
    assert servers.parse(saved, IPV4) == {
        KEY: VirtualServer("rr", 100, {"10.1.1.1:8080": 1}),
        KEY._replace(protocol="sctp"): VirtualServer("wlc", 0, {}),
    }
    assert servers.parse(saved, IPV6) == {Key("tcp", "fd00::1", 80): VirtualServer("mh", 0, {"[fd01::2]:8080": 0})}


def test_connections_are_read_from_ipvsadms_listing():
    listed = (
        "IP Virtual Server version 1.2.1 (size=4096)\n"
        "Prot LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        "TCP  10.96.0.1:80 rr persistent 100\n"
        "  -> 10.1.1.1:8080                Masq    0      2          3         \n"
        "FWM  7 rr\n"
        "  -> 10.1.1.9:8080                Masq    1      9          9         \n"
        "UDP  10.96.0.10:53 rr\n"
        "  -> 10.1.1.1:53                  Masq    1      0          0         \n"
    )
    assert servers.parse_connections(listed) == {(KEY, "10.1.1.1:8080"): 5, (DNS, "10.1.1.1:53"): 0}


def test_sets_of_others_are_not_read():
    saved = (
        "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n"
        "add KUBE-CLUSTER-IP 10.96.0.1,tcp:80\n"
        "create KUBE-6-CLUSTER-IP hash:ip,port family inet6 hashsize 1024 maxelem 65536\n"
        "create somebodys hash:ip family inet\n"
        "add somebodys 10.0.0.1\n"
    )
    assert sets.parse(saved, IPV4) == {"KUBE-CLUSTER-IP": frozenset({"10.96.0.1,tcp:80"})}
    assert sets.parse(saved, IPV6) == {"KUBE-CLUSTER-IP": frozenset()}


@pytest.mark.parametrize(("release", "reuse"), [("4.0.1", False), ("4.19.0-9-amd64", True), ("5.9.0", False)])
def test_conn_reuse_mode_is_left_to_kernels_that_do_right(release, reuse):
    values = sysctls.of_ipvs(KubeProxyConfiguration(mode="ipvs"), release)
    assert values["net.ipv4.vs.conntrack"] == 1
    assert ("net.ipv4.vs.conn_reuse_mode" in values) is reuse


def test_strict_arp_is_asked_for():
    strict = KubeProxyConfiguration(mode="ipvs", ipvs=IpvsSettings(strict_arp=True))
    arp = {"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.arp_announce": 2}
    assert arp.items() <= sysctls.of_ipvs(strict, "6.1.0").items()
    assert not arp.keys() & sysctls.of_ipvs(KubeProxyConfiguration(mode="ipvs"), "6.1.0").keys()
