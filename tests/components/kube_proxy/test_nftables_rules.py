"""kube-proxy's nftables table as text: golden files, upstream's published names, and what is written when."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kubewire.components.kube_proxy.nftables import chains, plan, rules
from kubewire.components.kube_proxy.nftables.expressions import Goto
from kubewire.components.kube_proxy.nftables.plan import Plan, Present
from kubewire.components.kube_proxy.nftables.statements import AddAffinitySet, DeleteChain, text
from kubewire.components.kube_proxy.state.local_traffic import UNTOLD, LocalSource
from kubewire.components.kube_proxy.state.model import IPV6, Endpoint, Node, ServicePort, ServicePortName
from tests.components.kube_proxy.test_rules import CASES as SHARED_CASES
from tests.components.kube_proxy.test_rules import CLUSTER_IP, NODE, NODE_PORT, THREE, endpoint, name

CONFIG = rules.Config(local_source=LocalSource("10.244.0.0/16"), service_cidrs=("172.30.0.0/16",))
IPV6_CONFIG = replace(
    CONFIG, family=IPV6, local_source=LocalSource("fd00:10:244::/56"), service_cidrs=("fd00:96::/112",)
)
NODE6 = Node("worker-1", ("fd00:172:18::3",), "zone-a", ("fd00:10:244:1::/64",))
STICKY = replace(CLUSTER_IP, sticky_seconds=10800)
ALL_ADDRESSES = replace(NODE_PORT, external_ips=("192.168.99.11",), load_balancer_ips=("1.2.3.4",))

#: What iptables mode is tested with, and what is special here: (services, endpoints, config).
CASES: dict[
    str, tuple[dict[ServicePortName, ServicePort], dict[ServicePortName, tuple[Endpoint, ...]], rules.Config]
] = {
    case: (
        services,
        endpoints,
        replace(
            IPV6_CONFIG if config.family == IPV6 else CONFIG,
            masquerade_all=config.masquerade_all,
            node_port_ips=config.node_port_ips,
        ),
    )
    for case, (services, endpoints, config) in SHARED_CASES.items()
} | {
    "every-address-refused": ({name("ns1/svc1"): ALL_ADDRESSES}, {}, CONFIG),
    "external-policy-local-elsewhere": (
        {name("ns1/svc1"): replace(ALL_ADDRESSES, external_local=True)},
        {name("ns1/svc1"): THREE[1:]},
        CONFIG,
    ),
    "three-protocols-on-one-address": (
        {
            name("ns2/svc2", "dns", protocol): replace(CLUSTER_IP, port=53, protocol=protocol.lower())
            for protocol in ("TCP", "UDP", "SCTP")
        },
        {name("ns2/svc2", "dns", protocol): (endpoint("10.180.0.1", 53),) for protocol in ("TCP", "UDP", "SCTP")},
        CONFIG,
    ),
    "session-affinity-with-policies": (
        {name("ns1/svc1"): replace(STICKY, node_port=3001, external_local=True)},
        {name("ns1/svc1"): THREE[:2]},
        CONFIG,
    ),
    "ipv6-session-affinity-and-source-ranges": (
        {
            name("ns1/svc1"): ServicePort(
                "fd00:96::29",
                80,
                "udp",
                load_balancer_ips=("2001:db8::5",),
                load_balancer_source_ranges=("2001:db8:1::/48",),
                sticky_seconds=60,
            )
        },
        {name("ns1/svc1"): (endpoint("fd00:10:244:1::2"),)},
        IPV6_CONFIG,
    ),
    "detect-local-by-bridge": (
        {name("ns1/svc1"): replace(NODE_PORT, external_local=True)},
        {name("ns1/svc1"): THREE[:1]},
        replace(CONFIG, local_source=LocalSource(interface="cni0")),
    ),
    "detect-local-by-interface-prefix": (
        {name("ns1/svc1"): replace(NODE_PORT, external_local=True)},
        {name("ns1/svc1"): THREE[:1]},
        replace(CONFIG, local_source=LocalSource(interface_prefix="veth")),
    ),
    "local-pods-cannot-be-told": (
        {name("ns1/svc1"): replace(NODE_PORT, external_local=True)},
        {name("ns1/svc1"): THREE[:1]},
        replace(CONFIG, local_source=UNTOLD, service_cidrs=()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_table_is_that_of_the_golden_file(case, golden):
    services, endpoints, config = CASES[case]
    node = NODE6 if config.family == IPV6 else NODE
    golden(f"kube_proxy/nftables/{case}.nft", plan.render(services, endpoints, node, config))


@pytest.mark.parametrize(
    ("service", "protocol", "published"),
    [
        ("ns1/svc1:p80", "tcp", "ULMVA6XW-ns1/svc1/tcp/p80"),
        ("ns5/svc5:p80", "tcp", "HVFWP5L3-ns5/svc5/tcp/p80"),
        ("default/kubernetes:https", "tcp", "2QRHZV4L-default/kubernetes/tcp/https"),
        ("kube-system/kube-dns:metrics", "tcp", "AS2KJYAD-kube-system/kube-dns/tcp/metrics"),
    ],
)
def test_chain_names_are_the_ones_seen_on_real_clusters(service, protocol, published):
    namespaced, port = service.split(":")
    namespace, name = namespaced.split("/")
    assert chains.service_base(namespace, name, protocol, port) == published


@pytest.mark.parametrize(
    ("service", "ip", "published"),
    [
        ("ns1/svc1/tcp/p80", "10.180.0.1", "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"),
        ("ns5/svc5/tcp/p80", "10.180.0.3", "GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80"),
        ("ns1/svc1/tcp/p80", "fd00:10:180::1", "ZVRFLKHO-ns1/svc1/tcp/p80__fd00.10.180..1/80"),
    ],
)
def test_endpoint_chain_names_are_upstreams(service, ip, published):
    assert chains.endpoint_base(service, ip, 80) == published


def test_the_longest_names_fit_the_kernel():
    base = chains.endpoint_base(
        f"{'n' * 63}/{'s' * 63}/sctp/{'p' * 63}", "fd00:1111:2222:3333:4444:5555:6666:7777", 65535
    )
    assert len(base) == 240
    assert base.endswith("...")
    assert base[:9] != chains.endpoint_base(f"{'n' * 63}/{'s' * 63}/sctp/{'p' * 63}", "fd00::1", 65535)[:9]


def test_the_order_of_the_input_does_not_matter():
    services = {
        name(f"ns/svc{i}"): replace(NODE_PORT, cluster_ip=f"172.30.1.{i}", node_port=3000 + i) for i in range(5)
    }
    backwards = dict(reversed(services.items()))
    endpoints = dict.fromkeys(services, THREE)
    assert plan.render(services, endpoints, NODE, CONFIG) == plan.render(backwards, endpoints, NODE, CONFIG)


SVC1, SVC2 = name("ns1/svc1"), name("ns2/svc2")
TWO_SERVICES = {SVC1: CLUSTER_IP, SVC2: replace(NODE_PORT, cluster_ip="172.30.0.42")}
BEFORE = (TWO_SERVICES, {SVC1: THREE, SVC2: THREE})

#: What changes -> the state after; the golden file has the statements that lead there.
CHANGES = {
    "an-endpoint-comes": (TWO_SERVICES, {SVC1: (*THREE, endpoint("10.244.1.7")), SVC2: THREE}),
    "the-last-endpoint-goes": (TWO_SERVICES, {SVC2: THREE}),
    "a-service-goes": ({SVC1: CLUSTER_IP}, {SVC1: THREE, SVC2: THREE}),
    "a-service-comes": (TWO_SERVICES | {name("ns3/svc3"): replace(CLUSTER_IP, cluster_ip="172.30.0.9")}, BEFORE[1]),
    "a-node-port-is-another": (TWO_SERVICES | {SVC2: replace(TWO_SERVICES[SVC2], node_port=3009)}, BEFORE[1]),
    "affinity-is-switched-on": (TWO_SERVICES | {SVC1: STICKY}, BEFORE[1]),
    "a-cluster-ip-is-another": (TWO_SERVICES | {SVC1: replace(CLUSTER_IP, cluster_ip="172.30.0.99")}, BEFORE[1]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_the_statements_of_the_golden_file(case, golden):
    made = Plan(CONFIG)
    made.whole(*BEFORE, NODE, None)
    golden(f"kube_proxy/nftables/change-{case}.nft", text(made.partial(*CHANGES[case], NODE).statements(), "ip"))


def test_an_affinity_timeout_is_changed_by_making_the_sets_anew(golden):
    made = Plan(CONFIG)
    made.whole({SVC1: STICKY}, {SVC1: THREE[:1]}, NODE, None)
    change = made.partial({SVC1: replace(STICKY, sticky_seconds=60)}, {SVC1: THREE[:1]}, NODE)
    golden("kube_proxy/nftables/change-affinity-timeout.nft", text(change.statements(), "ip"))


def test_what_changes_no_rule_is_no_statement():
    made = Plan(CONFIG)
    made.whole(*BEFORE, NODE, None)
    not_ready = endpoint("10.244.9.9", ready=False, serving=False)
    hinted = tuple(replace(ep, zone_hints=frozenset({"zone-a"})) for ep in THREE)
    after = {SVC1: (*THREE, not_ready), SVC2: hinted}
    assert list(made.partial(TWO_SERVICES, after, NODE).statements()) == []


def test_only_services_that_are_said_to_have_changed_are_looked_at():
    made = Plan(CONFIG)
    made.whole(*BEFORE, NODE, None)
    after = {SVC1: THREE[:2], SVC2: THREE[:2]}
    assert list(made.partial(TWO_SERVICES, after, NODE, changed={SVC1}).rewritten) == [
        "service-ULMVA6XW-ns1/svc1/tcp/p80"
    ]
    (late,) = made.partial(TWO_SERVICES, after, NODE, changed=None).rewritten
    assert "ns2/svc2" in late


def test_a_node_that_changes_its_zone_has_all_services_looked_at():
    made = Plan(CONFIG)
    hinted = tuple(replace(ep, zone_hints=frozenset({f"zone-{'abc'[i]}"})) for i, ep in enumerate(THREE))
    made.whole({SVC1: CLUSTER_IP}, {SVC1: hinted}, NODE, None)
    change = made.partial({SVC1: CLUSTER_IP}, {SVC1: hinted}, replace(NODE, zone="zone-b"), changed=frozenset())
    assert list(change.rewritten) == ["service-ULMVA6XW-ns1/svc1/tcp/p80"]


def test_ports_of_one_service_share_its_cluster_ip_until_the_last_goes():
    first, second = name("ns1/svc1", "a"), name("ns1/svc1", "b")
    services = {first: CLUSTER_IP, second: replace(CLUSTER_IP, port=81)}
    endpoints = dict.fromkeys(services, THREE[:1])
    made = Plan(CONFIG)
    made.whole(services, endpoints, NODE, None)
    one = made.partial({second: services[second]}, endpoints, NODE)
    assert {element.container for element in one.deleted_elements} == {chains.SERVICE_IPS}
    none = made.partial({}, endpoints, NODE)
    assert {element.container for element in none.deleted_elements} == {
        chains.SERVICE_IPS,
        chains.CLUSTER_IPS,
        chains.HAIRPIN_CONNECTIONS,
    }


def test_of_two_services_with_one_external_address_the_other_answers_when_the_first_goes():
    services = {
        SVC1: replace(CLUSTER_IP, external_ips=("192.168.99.1",)),
        SVC2: replace(CLUSTER_IP, cluster_ip="172.30.0.42", external_ips=("192.168.99.1",)),
    }
    endpoints = dict.fromkeys(services, THREE)
    made = Plan(CONFIG)
    both = made.whole(services, endpoints, NODE, None)
    assert [element.verdict for element in both.added_elements if element.key[0] == "192.168.99.1"] == [
        Goto("external-ULMVA6XW-ns1/svc1/tcp/p80")
    ]
    change = made.partial({SVC2: services[SVC2]}, endpoints, NODE)
    (deleted,) = [element for element in change.deleted_elements if element.key[0] == "192.168.99.1"]
    (added,) = [element for element in change.added_elements if element.key[0] == "192.168.99.1"]
    assert deleted.key == added.key
    assert isinstance(added.verdict, Goto) and "ns2/svc2" in added.verdict.chain


def test_a_table_of_an_earlier_process_is_taken_over_with_its_affinity():
    service = "service-ULMVA6XW-ns1/svc1/tcp/p80"
    kept = AddAffinitySet("affinity-P2GVATDV-ns1/svc1/tcp/p80__10.244.1.2/80", 10800)
    other_timeout = AddAffinitySet("affinity-6HWZCSN5-ns1/svc1/tcp/p80__10.244.2.2/80", 60)
    gone = AddAffinitySet("affinity-AAAAAAAA-ns9/gone/tcp/p__10.244.1.2/80", 60)
    present = Present(frozenset({service, "service-BBBBBBBB-ns9/gone/tcp/p"}), (kept, other_timeout, gone))
    change = Plan(CONFIG).whole({SVC1: STICKY}, {SVC1: THREE[:2]}, NODE, present)
    assert service in change.rewritten
    assert service not in change.added
    assert change.stale == ["service-BBBBBBBB-ns9/gone/tcp/p"]
    assert change.deleted_sets == [other_timeout.name, gone.name]


def test_names_are_known_when_used_and_unused_when_deleted():
    """Every chain, set and map that a line names was added by an earlier line, in any full text."""
    for services, endpoints, config in CASES.values():
        known: set[str] = set()
        for line in plan.render(services, endpoints, NODE, config).splitlines():
            words = line.replace(",", "").split()
            if words[:2] in (["add", "chain"], ["add", "set"], ["add", "map"]):
                known.add(words[4])
            used = [words[i + 1] for i, word in enumerate(words) if word in ("goto", "jump")]
            used += [
                word[1:] for word in words if word.startswith("@") and not line.startswith(("add chain", "add map"))
            ]
            assert set(used) <= known, line


def test_no_statement_deletes_a_chain_that_has_just_become_unused():
    made, rng = Plan(CONFIG), random.Random(4)
    services, endpoints = some_services(rng)
    made.whole(services, endpoints, NODE, None)
    for _ in range(20):
        services, endpoints = some_services(rng)
        assert not [s for s in made.partial(services, endpoints, NODE).statements() if isinstance(s, DeleteChain)]


def some_services(
    rng: random.Random,
) -> tuple[dict[ServicePortName, ServicePort], dict[ServicePortName, tuple[Endpoint, ...]]]:
    """A few Services of any kind with any endpoints."""
    services = {
        name(f"ns/svc{i}"): ServicePort(
            f"172.30.0.{i + 1}",
            80,
            rng.choice(["tcp", "udp", "sctp"]),
            node_port=rng.choice([0, 3000 + i]),
            external_ips=rng.choice([(), ("192.168.99.1",)]),
            load_balancer_ips=rng.choice([(), (f"1.2.3.{i}",)]),
            load_balancer_source_ranges=rng.choice([(), ("203.0.113.0/25", "172.18.0.0/16")]),
            sticky_seconds=rng.choice([0, 60, 120]),
            internal_local=rng.random() < 0.3,
            external_local=rng.random() < 0.3,
        )
        for i in range(8)
        if rng.random() < 0.8
    }
    pods = [endpoint(f"10.244.{i}.2", node=f"worker-{i}") for i in range(1, 5)]
    return services, {key: tuple(sorted(rng.sample(pods, rng.randrange(5)), key=str)) for key in services}
