"""kube-proxy's rules as text: golden files, upstream's published names, and what is written when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubewire.components.kernel.iptables import parse
from kubewire.components.kernel.nfnetlink.iptables import restore_input
from kubewire.components.kube_proxy.iptables import chains, rules, saved
from kubewire.components.kube_proxy.state.local_traffic import LocalSource
from kubewire.components.kube_proxy.state.model import IPV6, Endpoint, Node, ServicePort, ServicePortName

NODE = Node("worker-1", ("172.18.0.3",), "zone-a", ("10.244.1.0/24",))
CONFIG = rules.Config(local_source=LocalSource("10.244.0.0/16"))


def endpoint(ip: str, port: int = 80, node: str = "worker-1", **conditions: Any) -> Endpoint:
    return Endpoint(ip, port, node, **conditions)


def name(text: str, port: str = "p80", protocol: str = "TCP") -> ServicePortName:
    namespace, service = text.split("/")
    return ServicePortName(namespace, service, port, protocol)


CLUSTER_IP = ServicePort("172.30.0.41", 80, "tcp")
NODE_PORT = ServicePort("172.30.0.43", 80, "tcp", node_port=3002)
THREE = tuple(endpoint(f"10.244.{i}.2", node=f"worker-{i}") for i in (1, 2, 3))

CASES: dict[
    str, tuple[dict[ServicePortName, ServicePort], dict[ServicePortName, tuple[Endpoint, ...]], rules.Config]
] = {
    "cluster-ip": ({name("ns1/svc1"): CLUSTER_IP}, {name("ns1/svc1"): (endpoint("10.180.0.1"),)}, CONFIG),
    "three-endpoints": ({name("ns1/svc1"): CLUSTER_IP}, {name("ns1/svc1"): THREE}, CONFIG),
    "node-port": ({name("ns3/svc3"): NODE_PORT}, {name("ns3/svc3"): THREE[:2]}, CONFIG),
    "no-endpoints": ({name("ns1/svc1"): CLUSTER_IP, name("ns3/svc3"): NODE_PORT}, {}, CONFIG),
    "external-policy-local": (
        {
            name("ns2/here"): replace(NODE_PORT, external_local=True),
            name("ns2/elsewhere"): replace(NODE_PORT, cluster_ip="172.30.0.44", node_port=3003, external_local=True),
        },
        {name("ns2/here"): THREE, name("ns2/elsewhere"): THREE[1:]},
        CONFIG,
    ),
    "internal-policy-local": (
        {
            name("ns2/here"): replace(CLUSTER_IP, internal_local=True),
            name("ns2/elsewhere"): replace(CLUSTER_IP, cluster_ip="172.30.0.44", internal_local=True),
        },
        {name("ns2/here"): THREE, name("ns2/elsewhere"): THREE[1:]},
        CONFIG,
    ),
    "session-affinity": (
        {name("ns1/svc1"): replace(CLUSTER_IP, sticky_seconds=10800)},
        {name("ns1/svc1"): THREE[:2]},
        CONFIG,
    ),
    "load-balancer": (
        {
            name("ns5/svc5"): ServicePort(
                "172.30.0.45",
                80,
                "tcp",
                node_port=3001,
                external_ips=("192.168.99.11",),
                load_balancer_ips=("1.2.3.4", "5.6.7.8"),
                load_balancer_source_ranges=("172.18.0.0/16", "203.0.113.0/25"),
                external_local=True,
                health_check_node_port=30000,
            )
        },
        {name("ns5/svc5"): THREE},
        CONFIG,
    ),
    "ipv6": (
        {name("ns1/svc1"): ServicePort("fd00:96::29", 80, "tcp", node_port=3001)},
        {name("ns1/svc1"): (endpoint("fd00:10:244:1::2"),)},
        replace(CONFIG, family=IPV6, local_source=LocalSource("fd00:10:244::/56")),
    ),
    "masquerade-all-node-port-addresses": (
        {name("ns3/svc3"): NODE_PORT},
        {name("ns3/svc3"): THREE[:1]},
        replace(CONFIG, masquerade_all=True, node_port_ips=("172.18.0.3",), localhost_node_ports=False),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rules_are_those_of_the_golden_file(case, golden):
    services, endpoints, config = CASES[case]
    golden(f"kube_proxy/{case}.txt", rules.render(services, endpoints, NODE, config))


@pytest.mark.parametrize(
    ("service", "protocol", "published"),
    [
        ("default/kubernetes:https", "tcp", "NPX46M4PTMTKRN6Y"),
        ("kube-system/kube-dns:dns", "udp", "TCOU7JCQXEZGVUNU"),
        ("kube-system/kube-dns:dns-tcp", "tcp", "ERIFXISQEP7F7OF4"),
        ("kube-system/kube-dns:metrics", "tcp", "JD5MR3NA4I4DYORP"),
        ("ns1/svc1:p80", "tcp", "XPGD46QRK7WJZT7O"),
        ("ns2/svc2:p80", "tcp", "GNZBNJ2PO5MGZ6GT"),
    ],
)
def test_chain_names_are_the_ones_seen_on_real_clusters(service, protocol, published):
    assert chains.service_digest(service, protocol) == published


@pytest.mark.parametrize(
    ("service", "address", "published"),
    [
        ("ns1/svc1:p80", "10.180.0.1:80", "KUBE-SEP-SXIVWICOYRO3J4NJ"),
        ("ns2/svc2:p80", "10.180.0.2:80", "KUBE-SEP-RS4RBKLTHTF2IUXJ"),
        ("ns3/svc3:p80", "10.180.0.3:80", "KUBE-SEP-OYPFS5VJICHGATKP"),
        ("ns4/svc4:p80", "10.180.0.5:80", "KUBE-SEP-C6EBXVWJJZMIWKLZ"),
    ],
)
def test_endpoint_chain_names_are_upstreams(service, address, published):
    assert chains.endpoint_chain(service, "tcp", address) == published


def test_the_order_of_the_input_does_not_matter():
    services = {name(f"ns{i}/svc{i}"): replace(CLUSTER_IP, cluster_ip=f"172.30.0.{i}") for i in range(20)}
    endpoints = dict.fromkeys(services, THREE)
    backwards = dict(reversed(services.items()))
    assert rules.render(services, endpoints, NODE, CONFIG) == rules.render(backwards, endpoints, NODE, CONFIG)


def test_every_jump_leads_to_a_chain_that_is_declared_and_filled():
    for services, endpoints, config in CASES.values():
        text = rules.render(services, endpoints, NODE, config)
        tables = parse(text)
        for table in tables.values():
            filled = {rule.split()[1] for rule in table.rules}
            targets = {rule.split(" -j ")[1].split()[0] for rule in table.rules if " -j KUBE-" in rule}
            assert targets <= table.chains
            assert {target for target in targets if chains.is_service_chain(target)} <= filled
            assert filled <= table.chains


def test_probabilities_share_the_traffic_evenly():
    services, endpoints, config = CASES["three-endpoints"]
    text = rules.render(services, endpoints, NODE, config)
    found = [float(line.split("--probability ")[1].split()[0]) for line in text.splitlines() if "statistic" in line]
    left, shares = 1.0, []
    for probability in [*found, 1.0]:
        shares.append(left * probability)
        left -= shares[-1]
    assert shares == pytest.approx([1 / 3] * 3)


def written(change: rules.Change) -> set[ServicePortName]:
    """Service ports that have rules which they did not have before."""
    return {step.name for step in change.steps if step.after}


def test_a_change_of_one_service_writes_only_its_chains():
    plan = rules.Plan()
    services = {name(f"ns/svc{i}"): replace(CLUSTER_IP, cluster_ip=f"172.30.0.{i}") for i in range(3)}
    plan.update(services, dict.fromkeys(services, THREE), NODE, CONFIG)
    services[name("ns/svc1")] = replace(CLUSTER_IP, cluster_ip="172.30.0.9")
    changed = dict.fromkeys(services, THREE) | {name("ns/svc1"): THREE[:2]}
    difference = plan.update(services, changed, NODE, CONFIG)
    assert written(difference) == {name("ns/svc1")}
    assert difference.stale == {chains.endpoint_chain("ns/svc1:p80", "tcp", "10.244.3.2:80")}
    text = restore_input(plan.difference(difference))
    assert text.count("\n:KUBE-SVC-") == 1
    assert text.count('-A KUBE-SERVICES -m comment --comment "ns/svc') == 3
    assert text.count("\n-X ") == 1


def test_what_changes_no_rule_is_no_difference():
    plan = rules.Plan()
    services = {name("ns1/svc1"): CLUSTER_IP}
    not_ready = endpoint("10.244.9.9", ready=False, serving=False)
    plan.update(services, {name("ns1/svc1"): THREE}, NODE, CONFIG)
    change = plan.update(services, {name("ns1/svc1"): (*THREE, not_ready)}, NODE, CONFIG)
    assert not (change.own.names or change.shared)


def test_a_large_cluster_goes_without_comments_in_service_chains():
    services = {name("ns1/svc1"): CLUSTER_IP}
    many = tuple(endpoint(f"10.244.{i // 250}.{i % 250 + 1}") for i in range(1001))
    text = rules.render(services, {name("ns1/svc1"): many}, NODE, CONFIG)
    assert "->" not in text
    assert "ns1/svc1:p80 cluster IP" in text


def test_of_a_thousand_services_only_the_changed_one_is_looked_at_and_written():
    services = {name(f"ns/svc{i}"): replace(CLUSTER_IP, cluster_ip=f"172.30.{i // 250}.{i % 250}") for i in range(1000)}
    endpoints = {
        key: tuple(endpoint(f"10.{i // 250}.{i % 250}.{j}") for j in (1, 2, 3)) for i, key in enumerate(services)
    }
    plan = rules.Plan()
    plan.update(services, endpoints, NODE, CONFIG)
    endpoints[name("ns/svc7")] = THREE
    endpoints[name("ns/svc8")] = THREE  # Not said to have changed: seen by the next full sync.
    difference = plan.update(services, endpoints, NODE, CONFIG, changed={name("ns/svc7")})
    assert written(difference) == {name("ns/svc7")}
    assert not difference.shared
    text = restore_input(plan.difference(difference))
    assert text.count("\n:KUBE-SVC-") == 1
    assert text.count("\n:KUBE-") == 7  # SVC, three new SEP, three stale SEP
    assert written(plan.update(services, endpoints, NODE, CONFIG)) == {name("ns/svc8")}


def test_a_change_of_endpoints_leaves_the_shared_chains_alone_until_the_last_one_goes():
    plan, services = rules.Plan(), {name("ns1/svc1"): CLUSTER_IP, name("ns1/svc2"): NODE_PORT}
    plan.update(services, dict.fromkeys(services, THREE), NODE, CONFIG)
    two = plan.update(services, {name("ns1/svc1"): THREE[:2], name("ns1/svc2"): THREE}, NODE, CONFIG)
    none = plan.update(services, {name("ns1/svc2"): THREE}, NODE, CONFIG)
    assert not two.shared
    assert none.shared == {"filter": {chains.SERVICES}, "nat": {chains.SERVICES}}


def test_blocks_stay_in_the_order_of_their_names_as_services_come_and_go():
    plan = rules.Plan()
    services = {name(f"ns/svc{i}"): CLUSTER_IP for i in (1, 3)}
    plan.update(services, {}, NODE, CONFIG)
    services = {name(f"ns/svc{i}"): CLUSTER_IP for i in (1, 2)}
    plan.update(services, {}, NODE, CONFIG, changed={name("ns/svc2"), name("ns/svc3")})
    assert list(plan.blocks) == [name("ns/svc1"), name("ns/svc2")]


def test_counts_that_are_kept_up_to_date_are_those_of_the_whole_text():
    """Of rules, and of endpoints: above a thousand of them per-Service chains lose their comments."""
    plan, many = rules.Plan(), tuple(endpoint(f"10.180.{i // 250}.{i % 250}") for i in range(999))
    one, two = name("ns1/svc1"), name("ns1/svc2")
    steps: tuple[tuple[Any, Any, set[ServicePortName] | None], ...] = (
        ({one: CLUSTER_IP, two: NODE_PORT}, {one: THREE, two: THREE}, None),
        ({one: CLUSTER_IP, two: NODE_PORT}, {one: THREE, two: many}, {two}),
        ({one: CLUSTER_IP, two: NODE_PORT}, {two: many}, {one}),
        ({two: NODE_PORT}, {two: many}, {one}),
        ({two: NODE_PORT}, {}, {two}),
    )
    for services, endpoints, changed in steps:
        plan.update(services, endpoints, NODE, CONFIG, changed)
        text = restore_input(plan.everything())
        assert text == rules.render(services, endpoints, NODE, CONFIG)
        assert plan.totals() == {table: len(found.rules) for table, found in parse(text).items()}


SAVED = """\
*filter
:INPUT ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -s 1.2.3.4/32 -j DROP
COMMIT
*nat
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:CNI-DN-0123456789abcdef - [0:0]
:KUBE-MARK-DROP - [0:0]
COMMIT
"""


def test_stale_chains_are_only_ours():
    tables = parse(SAVED)
    assert saved.stale_chains(tables, frozenset({"KUBE-SVC-AAAAAAAAAAAAAAAA"})) == ["KUBE-SEP-BBBBBBBBBBBBBBBB"]


def test_only_jumps_that_are_not_there_are_inserted():
    missing = saved.missing_jumps(parse(SAVED), chains.JUMPS)
    assert len(missing) == len(chains.JUMPS) - 1
    assert ("filter", "INPUT", chains.EXTERNAL_SERVICES) not in {jump[:3] for jump in missing}


def test_cleanup_leaves_what_others_made():
    text = saved.cleanup_text(parse(SAVED))
    assert "-X KUBE-SEP-BBBBBBBBBBBBBBBB" in text
    assert "-X KUBE-EXTERNAL-SERVICES" in text
    assert "-D INPUT -m conntrack --ctstate NEW" in text
    assert "CANARY" not in text
    assert "CNI-DN" not in text
    assert "1.2.3.4" not in text
