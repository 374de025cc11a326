"""Objects -> model, the choice of endpoints, the runner, local traffic."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewire.components.kube_proxy.configuration.config import DetectLocal, KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables.service import local_match
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.runner import BoundedFrequencyRunner, TokenBucket
from kubewire.components.kube_proxy.state import local_traffic, objects
from kubewire.components.kube_proxy.state.model import IPV4, Endpoint, Node, ServicePort, ServicePortName
from kubewire.components.kube_proxy.state.snapshot import Snapshot
from kubewire.components.kube_proxy.state.topology import choose
from kubewire.components.kube_proxy.state.tracker import Tracker
from kubewire.components.kubeapi import types

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


def service(name: str = "web", ip: str = "10.96.0.1", **spec: Any) -> Any:
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "p", "port": 80}]} | spec
    return {"metadata": {"namespace": "ns", "name": name}, "spec": spec}


def endpoint_slice(name: str, service_name: str = "web", *ips: str) -> Any:
    return {
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": service_name}},
        "addressType": "IPv4",
        "ports": [{"name": "p", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
    }


def test_what_is_kept_of_objects_says_the_same():
    full = service(
        type="LoadBalancer",
        externalIPs=["192.0.2.1"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 5}},
        internalTrafficPolicy="Local",
        externalTrafficPolicy="Local",
        healthCheckNodePort=31000,
        loadBalancerSourceRanges=["192.0.2.0/24"],
        selector={"app": "web"},
    ) | {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}}}
    trimmed = objects.trim_service(full)
    assert objects.service_ports(trimmed, IPV4) == objects.service_ports(full, IPV4)
    assert "selector" not in trimmed["spec"]
    hints = {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}
    whole = endpoint_slice("s1", "web", "10.244.1.1")
    whole["endpoints"][0] |= {"nodeName": "n1", "hints": hints, "targetRef": {"kind": "Pod", "name": "a"}}
    slim = objects.trim_slice(whole)
    assert objects.slice_endpoints(slim) == objects.slice_endpoints(whole)
    assert "targetRef" not in slim["endpoints"][0]


@pytest.mark.parametrize(
    ("names", "struct"),
    [
        (objects._SERVICE_SPEC, types.ServiceSpec),
        (objects._ENDPOINT, types.Endpoint),
        (objects._METADATA, types.ObjectMeta),
    ],
)
def test_the_names_of_what_is_kept_are_those_of_fields(names, struct):
    # mypy does not see them, because they are values.
    assert names <= struct.__annotations__.keys()


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
    spec: Any = {
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


@pytest.mark.parametrize("turns", range(6))
def test_a_request_at_the_moment_of_the_end_does_not_keep_it_from_ending(turns):
    async def job() -> None: ...

    async def scenario() -> set[asyncio.Task[None]]:
        runner = BoundedFrequencyRunner(job, min_interval=60.0, retry_interval=60.0, max_interval=60.0)
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        runner.request()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, pending = await asyncio.wait([task], timeout=1.0)
        task.cancel()
        return pending

    assert asyncio.run(scenario()) == set()


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
    match = local_match(source)
    assert (match.text() if match else "") == expected
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
