"""Objects -> model, the choice of endpoints, conntrack's deletions, configuration and flags."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from components.kube_proxy import conntrack, flags, local_traffic, main, objects
from components.kube_proxy.config import ConfigError, DetectLocal, KubeProxyConfiguration, load, seconds, validate
from components.kube_proxy.iptables.service import local_match
from components.kube_proxy.metrics import Metrics
from components.kube_proxy.model import IPV4, IPV6, Endpoint, Node, ServicePort, ServicePortName
from components.kube_proxy.proxy import families
from components.kube_proxy.runner import BoundedFrequencyRunner, TokenBucket
from components.kube_proxy.snapshot import Snapshot
from components.kube_proxy.topology import choose
from components.kube_proxy.tracker import Tracker

NODE = Node("n1", ("172.18.0.3",), "z1")
CLUSTER = ServicePort("10.96.0.1", 80, "tcp")
EXT_LOCAL = ServicePort("10.96.0.1", 80, "tcp", node_port=30000, external_local=True)
READY_HERE, READY_THERE = Endpoint("10.244.1.1", 80, "n1"), Endpoint("10.244.2.1", 80, "n2")
DRAINING_HERE = Endpoint("10.244.1.9", 80, "n1", ready=False, serving=True, terminating=True)
DRAINING_THERE = Endpoint("10.244.2.9", 80, "n2", ready=False, serving=True, terminating=True)
GONE = Endpoint("10.244.1.8", 80, "n1", ready=False, serving=False, terminating=True)
ZONED = [Endpoint(f"10.244.{i}.7", 80, f"n{i}", zone_hints=frozenset({f"z{i}"})) for i in (1, 2)]
FOR_NODES = [Endpoint(f"10.244.{i}.6", 80, f"n{i}", node_hints=frozenset({f"n{i}"})) for i in (1, 2)]


@pytest.mark.parametrize(
    ("service", "endpoints", "cluster", "local", "anywhere"),
    [
        pytest.param(CLUSTER, [READY_HERE, READY_THERE, GONE], [READY_HERE, READY_THERE], [], True, id="ready ones"),
        pytest.param(CLUSTER, [READY_HERE, DRAINING_HERE], [READY_HERE], [], True, id="draining only as a last resort"),
        pytest.param(CLUSTER, [DRAINING_HERE, GONE], [DRAINING_HERE], [], True, id="draining when none is ready"),
        pytest.param(CLUSTER, [GONE], [], [], False, id="nothing"),
        pytest.param(EXT_LOCAL, [READY_HERE, READY_THERE], [READY_HERE, READY_THERE], [READY_HERE], True, id="local"),
        pytest.param(
            EXT_LOCAL, [DRAINING_HERE, READY_THERE], [READY_THERE], [DRAINING_HERE], True, id="local drains by itself"
        ),
        pytest.param(EXT_LOCAL, [READY_THERE], [READY_THERE], [], True, id="only elsewhere"),
        pytest.param(CLUSTER, ZONED, ZONED[:1], [], True, id="zone hints"),
        pytest.param(
            CLUSTER, [*ZONED, READY_THERE], [*ZONED, READY_THERE], [], True, id="one without a hint: no hints"
        ),
        pytest.param(CLUSTER, ZONED[1:], ZONED[1:], [], True, id="no hint for our zone: no hints"),
        pytest.param(CLUSTER, FOR_NODES, FOR_NODES[:1], [], True, id="node hints"),
    ],
)
def test_endpoints_are_chosen_by_policy_condition_and_hint(service, endpoints, cluster, local, anywhere):
    chosen = choose(endpoints, service, NODE)
    assert (list(chosen.cluster), list(chosen.local), chosen.anywhere) == (cluster, local, anywhere)
    assert set(chosen.reachable) == {*cluster, *local}


def service(name: str = "web", ip: str = "10.96.0.1", **spec: object) -> dict:
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "p", "port": 80}]} | spec
    return {"metadata": {"namespace": "ns", "name": name}, "spec": spec}


def endpoint_slice(name: str, service_name: str = "web", *ips: str) -> dict:
    return {
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": service_name}},
        "addressType": "IPv4",
        "ports": [{"name": "p", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
    }


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        pytest.param({"clusterIP": "None", "clusterIPs": ["None"]}, 0, id="headless"),
        pytest.param({"type": "ExternalName", "clusterIP": "", "clusterIPs": []}, 0, id="ExternalName"),
        pytest.param({"clusterIPs": ["fd00::1"], "clusterIP": "fd00::1"}, 0, id="other family"),
        pytest.param({"clusterIPs": ["fd00::1", "10.96.0.1"]}, 1, id="dual stack"),
        pytest.param({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "name": "t"}]}, 2, id="two ports"),
    ],
)
def test_services_without_a_cluster_ip_of_the_family_have_no_rules(spec, count):
    assert len(objects.service_ports(service(**spec), IPV4)) == count


def test_traffic_policies_and_affinity_are_read():
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
        "healthCheckNodePort": 31000,
        "loadBalancerSourceRanges": ["2001:db8::/32", "192.0.2.0/24"],
    }
    balancer = service(**spec) | {
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]}}
    }
    (port,) = objects.service_ports(balancer, IPV4).values()
    assert port.external_local
    assert port.internal_local
    assert port.sticky_seconds == 7
    assert port.health_check_node_port == 31000
    assert port.load_balancer_ips == ("192.0.2.1",)
    assert port.load_balancer_source_ranges == ("192.0.2.0/24",)


WEB = ServicePortName("ns", "web", "p")


def test_the_slices_of_a_service_are_merged_and_sorted():
    tracker = Tracker(IPV4, Metrics())
    one, two = (
        endpoint_slice("one", "web", "10.0.0.3", "10.0.0.1"),
        endpoint_slice("two", "web", "10.0.0.2", "10.0.0.1"),
    )
    assert tracker.slice_changed(None, one)
    assert tracker.slice_changed(None, two)
    assert [ep.ip for ep in tracker.endpoints[WEB]] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert tracker.slice_changed(one, None)
    assert [ep.ip for ep in tracker.endpoints[WEB]] == ["10.0.0.1", "10.0.0.2"]
    assert tracker.slice_changed(two, None)
    assert tracker.endpoints == {}


def test_a_slice_that_moves_to_another_service_leaves_the_first():
    tracker = Tracker(IPV4, Metrics())
    before, after = endpoint_slice("one", "web", "10.0.0.1"), endpoint_slice("one", "other", "10.0.0.1")
    tracker.slice_changed(None, before)
    assert tracker.slice_changed(before, after)
    assert [name.name for name in tracker.endpoints] == ["other"]


def test_changes_that_no_rule_depends_on_are_no_changes():
    tracker = Tracker(IPV4, Metrics())
    assert tracker.service_changed(None, service())
    annotated = service()
    annotated["metadata"]["annotations"] = {"a": "b"}
    assert not tracker.service_changed(service(), annotated)
    assert tracker.service_changed(annotated, service(ports=[{"name": "p", "port": 81}]))
    assert tracker.service_changed(annotated, None)
    assert tracker.services == {}


def test_a_sync_is_told_whose_rules_may_differ_and_sees_nothing_of_what_comes_meanwhile():
    tracker = Tracker(IPV4, Metrics())
    snapshot = Snapshot(tracker)
    for name in ("web", "other"):
        tracker.service_changed(None, service(name))
        tracker.slice_changed(None, endpoint_slice(name, name, "10.0.0.1"))
    assert {name.name for name in snapshot.advance()} == {"web", "other"}
    tracker.slice_changed(endpoint_slice("web", "web"), endpoint_slice("web", "web", "10.0.0.2"))
    tracker.service_changed(service("other"), None)
    assert [ep.ip for ep in snapshot.endpoints[WEB]] == ["10.0.0.1"]
    assert len(snapshot.services) == 2
    assert {name.name for name in snapshot.advance()} == {"web", "other"}
    assert [ep.ip for ep in snapshot.endpoints[WEB]] == ["10.0.0.2"]
    assert snapshot.services.keys() == {WEB}
    assert snapshot.advance() == frozenset()


def test_what_a_failed_sync_was_about_is_settled_by_the_next():
    tracker = Tracker(IPV4, Metrics())
    snapshot = Snapshot(tracker)
    tracker.service_changed(None, service())
    tracker.slice_changed(None, endpoint_slice("web", "web", "10.0.0.1"))
    snapshot.advance()
    snapshot.settle()
    tracker.slice_changed(endpoint_slice("web", "web"), endpoint_slice("web", "web", "10.0.0.2"))
    snapshot.advance()  # and this sync fails
    tracker.slice_changed(endpoint_slice("web", "web"), endpoint_slice("web", "web", "10.0.0.3"))
    snapshot.advance()
    (_, before), (_, after) = snapshot.settle()
    assert [ep.ip for ep in before[WEB]] == ["10.0.0.1"]
    assert [ep.ip for ep in after[WEB]] == ["10.0.0.3"]
    assert snapshot.settle() == (({}, {}), ({}, {}))


DNS = ServicePortName("ns", "dns", "p", "UDP")
UDP = ServicePort("10.96.0.53", 53, "udp", node_port=30053)
BOTH = (READY_HERE, READY_THERE)


@pytest.mark.parametrize(
    ("old", "new", "deleted"),
    [
        pytest.param(({DNS: UDP}, {DNS: BOTH}), ({DNS: UDP}, {DNS: BOTH}), [], id="nothing changed"),
        pytest.param(
            ({DNS: UDP}, {DNS: BOTH}),
            ({DNS: UDP}, {DNS: BOTH[:1]}),
            [
                "-D -p udp --orig-dst 10.96.0.53 --orig-port-dst 53 --dst-nat 10.244.2.1",
                "-D -p udp --orig-port-dst 30053 --dst-nat 10.244.2.1",
            ],
            id="an endpoint went",
        ),
        pytest.param(
            ({}, {}),
            ({DNS: UDP}, {DNS: BOTH}),
            ["-D -p udp --orig-dst 10.96.0.53 --orig-port-dst 53", "-D -p udp --orig-port-dst 30053"],
            id="the first endpoint came",
        ),
        pytest.param(
            ({WEB: CLUSTER}, {WEB: BOTH}), ({WEB: CLUSTER}, {WEB: ()}), [], id="TCP ends by itself"
        ),
        pytest.param(
            ({DNS: UDP}, {DNS: BOTH[:1]}),
            ({}, {DNS: BOTH[:1]}),
            [
                "-D -p udp --orig-dst 10.96.0.53 --orig-port-dst 53 --dst-nat 10.244.1.1",
                "-D -p udp --orig-port-dst 30053 --dst-nat 10.244.1.1",
            ],
            id="the Service went",
        ),
    ],
)  # fmt: skip
def test_stale_udp_flows_are_deleted(old, new, deleted):
    assert [" ".join(arguments) for arguments in conntrack.stale_flows(old, new)] == deleted


def test_the_first_two_requests_run_at_once_then_one_per_interval():
    bucket = TokenBucket(1.0, 2, now=0.0)
    assert [bucket.reserve(now) for now in (0.0, 0.0, 0.0, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert bucket.reserve(100.0) == 0.0


def test_a_failed_job_is_tried_again_after_the_retry_interval():
    calls = []

    async def scenario() -> None:
        done = asyncio.Event()

        async def job() -> None:
            calls.append(1)
            if len(calls) < 3:
                raise OSError("no")
            done.set()

        runner = BoundedFrequencyRunner(job, min_interval=0.0, retry_interval=0.01, max_interval=60)
        task = asyncio.ensure_future(runner.run())
        runner.request()
        await asyncio.wait_for(done.wait(), 5)
        task.cancel()

    asyncio.run(scenario())
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("30s", 30.0), ("1h0m1.5s", 3601.5), ("500ms", 0.5), ("24h0m0s", 86400.0)]
)
def test_durations_are_gos(text, value):
    assert seconds(text) == value


HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def test_a_configuration_file_is_decoded(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(
        HEAD + "mode: iptables\nclusterCIDR: 10.244.0.0/16\nnodePortAddresses: [primary]\n"
        "iptables: {syncPeriod: 10s, localhostNodePorts: false}\nconntrack: {maxPerCore: null, tcpBeLiberal: true}\n"
    )
    config = load(str(path))
    assert config.cluster_cidr == "10.244.0.0/16"
    assert config.iptables.sync_period == 10.0
    assert config.iptables.min_sync_period == 1.0
    assert not config.iptables.localhost_node_ports
    assert config.conntrack.tcp_be_liberal
    assert config.conntrack.max_per_core == 32768
    assert config.node_port_addresses == ("primary",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("clusterCidr: 10.0.0.0/8\n", 'strict decoding error: unknown field "clusterCidr"'),
        ("iptables: {syncperiod: 1s}\n", 'strict decoding error: unknown field "iptables.syncperiod"'),
        ("iptables: {syncPeriod: fast}\n", "iptables.syncPeriod: Invalid value: 'fast'"),
        ("iptables: {masqueradeAll: 1}\n", "iptables.masqueradeAll: Invalid value: 1"),
    ],
)
def test_a_wrong_configuration_names_file_and_field(tmp_path: Path, body: str, message: str):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + body)
    with pytest.raises(ConfigError) as raised:
        load(str(path))
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--proxy-mode", "ebpf"], 'mode: Invalid value: "ebpf": must be iptables or nftables or blank'),
        (["--cluster-cidr", "10.244.0.0"], 'clusterCIDR: Invalid value: "10.244.0.0": must be a valid CIDR value'),
        (["--detect-local-mode", "Guess"], 'detectLocalMode: Unsupported value: "Guess"'),
        (["--iptables-sync-period", "500ms"], "must be greater than or equal to minSyncPeriod"),
    ],
)
def test_wrong_flags_end_the_start_with_a_sentence(argv, message, capsys):
    assert main.main(argv) == 1
    assert message in capsys.readouterr().err


def test_the_nftables_section_is_read_and_checked(tmp_path):
    path = tmp_path / "config"
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n"
    path.write_text(f"{head}nftables: {{masqueradeBit: 3, masqueradeAll: true, syncPeriod: 10s, minSyncPeriod: 0s}}\n")
    config = load(str(path))
    validate(config, ("iptables", "nftables"))
    assert config.nftables.masquerade_bit == 3
    assert config.nftables.masquerade_all
    assert (config.sync_period, config.min_sync_period) == (10.0, 0.0)
    path.write_text(f"{head}nftables: {{masqueradeBit: 32}}\n")
    with pytest.raises(ConfigError, match=r"nftables.masqueradeBit: Invalid value: must be within the range"):
        validate(load(str(path)), ("iptables", "nftables"))


def test_flags_become_the_configuration():
    options = flags.parse(
        ["--hostname-override", "Worker-1", "--nodeport-addresses=10.0.0.0/8,primary", "--masquerade-all",
         "--iptables-min-sync-period", "5s", "--conntrack-max-per-core", "0"]
    )  # fmt: skip
    assert options.node_name == "worker-1"
    assert options.config.node_port_addresses == ("10.0.0.0/8", "primary")
    assert options.config.iptables.masquerade_all
    assert options.config.iptables.min_sync_period == 5.0
    assert options.config.conntrack.max_per_core == 0


def test_in_nftables_mode_the_shared_flags_and_its_own_section_count():
    config = flags.parse(
        ["--proxy-mode=nftables", "--masquerade-all", "--iptables-sync-period=7s", "--iptables-min-sync-period=0"]
    ).config
    assert config.nftables.masquerade_all
    assert not config.iptables.masquerade_all
    assert (config.effective_mode, config.sync_period, config.min_sync_period) == ("nftables", 7.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cluster_cidr": "fd00::/48,10.244.0.0/16"}, "-s 10.244.0.0/16"),
        ({"detect_local_mode": "NodeCIDR"}, "-s 10.244.1.0/24"),
        ({"detect_local_mode": "BridgeInterface", "detect_local": DetectLocal("cni0", "")}, "-i cni0"),
        ({"detect_local_mode": "InterfaceNamePrefix", "detect_local": DetectLocal("", "veth")}, "-i veth+"),
        ({}, ""),
    ],
)
def test_local_traffic_is_told_by_the_configured_mode(settings, expected):
    node = Node("n1", pod_cidrs=("fd00:1::/64", "10.244.1.0/24"))
    source = local_traffic.local_source(KubeProxyConfiguration(**settings), IPV4, node)
    assert local_match(source) == expected
    assert bool(source) == bool(expected)


def test_node_port_addresses_pick_the_nodes_own():
    def ips(configured: list[str], loopback: bool = True) -> tuple[str, ...] | None:
        addresses = ["10.1.0.5", "127.0.0.1", "172.18.0.3"]
        return local_traffic.node_port_ips(configured, IPV4, NODE, lambda _: addresses, loopback=loopback)

    assert ips([]) is None
    assert ips(["0.0.0.0/0"]) is None
    assert ips(["primary"]) == ("172.18.0.3",)
    assert ips(["10.0.0.0/8", "127.0.0.0/8"]) == ("10.1.0.5", "127.0.0.1")
    assert ips(["10.0.0.0/8", "127.0.0.0/8"], loopback=False) == ("10.1.0.5",)


def test_ipv6_is_served_only_when_the_cluster_has_it():
    validate(KubeProxyConfiguration(cluster_cidr="10.0.0.0/8"), ("iptables",))
    assert families(KubeProxyConfiguration(cluster_cidr="10.0.0.0/8"), NODE) == [IPV4]
    both = families(KubeProxyConfiguration(cluster_cidr="10.0.0.0/8,fd00::/48"), NODE)
    assert both == ([IPV4, IPV6] if Path("/proc/net/if_inet6").exists() else [IPV4])
