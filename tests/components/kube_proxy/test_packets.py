"""What really happens to packets: source, destination, which endpoint answered, and whom it saw."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from components.kube_proxy.config import KubeProxyConfiguration
from components.kube_proxy.iptables.backend import IptablesBackend
from components.kube_proxy.metrics import Metrics
from components.kube_proxy.model import IPV4, Endpoint, Node, ServicePort, ServicePortName, State
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.scratch import Answer, Fabric

CONFIG = KubeProxyConfiguration(cluster_cidr="10.244.0.0/16")


def _endpoints(pods: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(scratch.PODS[pod][1], 8080, scratch.PODS[pod][0]) for pod in pods)


#: name -> cluster IP's last number, protocol, node port, pods, other fields
SERVICES: dict[str, tuple[int, str, int, str, dict[str, Any]]] = {
    "web": (10, "tcp", 30010, "bc", {}),
    "remote": (11, "tcp", 30011, "c", {}),
    "local-pod": (12, "tcp", 30012, "b", {}),
    "self": (13, "tcp", 0, "a", {}),
    "none": (14, "tcp", 30014, "", {}),
    "udp": (15, "udp", 30015, "b", {}),
    "ext-local": (16, "tcp", 30016, "bc", {"external_local": True}),
    "ext-elsewhere": (17, "tcp", 30017, "c", {"external_local": True}),
    "int-local": (18, "tcp", 0, "bc", {"internal_local": True}),
    "int-elsewhere": (19, "tcp", 0, "c", {"internal_local": True}),
    "sticky": (20, "tcp", 0, "abc", {"sticky_seconds": 60}),
    "guarded": (
        21,
        "tcp",
        30021,
        "b",
        {"load_balancer_ips": ("10.99.0.1",), "load_balancer_source_ranges": ("203.0.113.0/24",)},
    ),
}
VIP = {service: f"10.96.0.{number}" for service, (number, *_) in SERVICES.items()}
NODE_PORT = {service: port for service, (_, _, port, *_) in SERVICES.items()}


def _state(node: str) -> State:
    names = {service: ServicePortName("ns", service, "p") for service in SERVICES}
    return State(
        {
            names[service]: ServicePort(f"10.96.0.{number}", 80, protocol, node_port=port, **rest)
            for service, (number, protocol, port, _, rest) in SERVICES.items()
        },
        {names[service]: _endpoints(pods) for service, (_, _, _, pods, _) in SERVICES.items() if pods},
        Node(node, (scratch.HOSTS[node],)),
    )


def program(fabric: Fabric, node: str, state: State) -> None:
    """The real backend, in the node's network namespace."""
    backend = IptablesBackend(IPV4, CONFIG, Metrics(), localhost_node_ports=True)
    fabric.shell(node, "sysctl -qw net.ipv4.conf.all.route_localnet=1")
    fabric.inside(node, lambda: asyncio.run(backend.sync(state, full=True)))


B_OR_C, ANY_NODE_SIDE = {"b", "c"}, {"b": "10.244.1.1", "c": "172.18.0.3"}

#: what, source, address, port, expected endpoints, whom they see (an address, or one per endpoint)
TABLE = [
    ("pod to ClusterIP keeps its address", "a", VIP["web"], 80, B_OR_C, "10.244.1.2"),
    ("pod to ClusterIP, endpoint on its own bridge", "a", VIP["local-pod"], 80, {"b"}, "10.244.1.2"),
    ("pod of the other node to ClusterIP", "c", VIP["local-pod"], 80, {"b"}, "10.244.2.2"),
    ("node to ClusterIP is masqueraded, local endpoint", "node1", VIP["local-pod"], 80, {"b"}, "10.244.1.1"),
    ("node to ClusterIP is masqueraded, remote endpoint", "node1", VIP["remote"], 80, {"c"}, "172.18.0.3"),
    ("outside to ClusterIP is masqueraded", "client", VIP["web"], 80, B_OR_C, ANY_NODE_SIDE),
    ("outside to NodePort is masqueraded", "client", "172.18.0.3", NODE_PORT["web"], B_OR_C, ANY_NODE_SIDE),
    ("outside to NodePort of a node without endpoint", "client", "172.18.0.4", NODE_PORT["local-pod"], {"b"},
     "172.18.0.4"),
    ("pod to NodePort of its node is masqueraded", "a", "172.18.0.3", NODE_PORT["remote"], {"c"}, "172.18.0.3"),
    ("node to NodePort on localhost", "node1", "127.0.0.1", NODE_PORT["local-pod"], {"b"}, "10.244.1.1"),
    ("hairpin: a pod reaches itself and sees the bridge", "a", VIP["self"], 80, {"a"}, "10.244.1.1"),
    ("externalTrafficPolicy Local keeps the client's address", "client", "172.18.0.3", NODE_PORT["ext-local"], {"b"},
     "172.18.0.100"),
    ("externalTrafficPolicy Local, from the node: any endpoint", "node1", "172.18.0.3", NODE_PORT["ext-local"],
     B_OR_C, ANY_NODE_SIDE),
    ("externalTrafficPolicy Local, from a pod: any endpoint, not masqueraded", "a", "172.18.0.3",
     NODE_PORT["ext-elsewhere"], {"c"}, "10.244.1.2"),
    ("internalTrafficPolicy Local takes the local endpoint", "a", VIP["int-local"], 80, {"b"}, "10.244.1.2"),
]  # fmt: skip
UDP_TABLE = [
    ("UDP pod to ClusterIP", "a", VIP["udp"], 80, {"b"}, "10.244.1.2"),
    ("UDP outside to NodePort", "client", "172.18.0.4", NODE_PORT["udp"], {"b"}, "172.18.0.4"),
]
REFUSED = [
    ("pod, ClusterIP", "a", VIP["none"], 80),
    ("node, ClusterIP", "node1", VIP["none"], 80),
    ("outside, ClusterIP", "client", VIP["none"], 80),
    ("outside, NodePort", "client", "172.18.0.3", NODE_PORT["none"]),
]
DROPPED = [
    ("externalTrafficPolicy Local without local endpoint", "client", "172.18.0.3", NODE_PORT["ext-elsewhere"]),
    ("internalTrafficPolicy Local without local endpoint", "a", VIP["int-elsewhere"], 80),
    ("loadBalancerSourceRanges without the client", "client", "10.99.0.1", 80),
]
Results = dict[str, list[Answer]]


def _walk(fabric: Fabric) -> Results:
    for pod in scratch.PODS:
        fabric.serve(pod)
    fabric.answer_forever()
    for node in scratch.BRIDGES:
        program(fabric, node, _state(node))
    results = {
        row[0]: [fabric.ask(row[1], row[2], row[3], udp=row in UDP_TABLE) for _ in range(12 if len(row[4]) > 1 else 1)]
        for row in TABLE + UDP_TABLE
    }
    results |= {row[0]: [fabric.ask(row[1], row[2], row[3])] for row in REFUSED}
    results |= {row[0]: [fabric.ask(row[1], row[2], row[3], timeout=0.5)] for row in DROPPED}
    results["sticky"] = [fabric.ask("a", VIP["sticky"], 80) for _ in range(12)]
    return results


@pytest.fixture(scope="module")
def results() -> Results:
    found: Results = scratch.run(_walk)
    return found


@pytest.mark.packet
@pytest.mark.parametrize("row", TABLE + UDP_TABLE, ids=lambda row: row[0])
def test_packets_reach_the_expected_endpoint_with_the_expected_source(results, row):
    title, *_, endpoints, seen = row
    answers = results[title]
    assert {answer.error for answer in answers} == {""}
    assert {answer.endpoint for answer in answers} == endpoints
    for answer in answers:
        assert answer.seen == (seen if isinstance(seen, str) else seen[answer.endpoint])


@pytest.mark.packet
@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_a_service_without_endpoints_refuses_at_once(results, row):
    (answer,) = results[row[0]]
    assert answer.error == "ConnectionRefusedError"
    assert answer.took < 0.5


@pytest.mark.packet
@pytest.mark.parametrize("row", DROPPED, ids=lambda row: row[0])
def test_traffic_that_no_local_endpoint_may_answer_is_dropped(results, row):
    (answer,) = results[row[0]]
    assert answer.error == "TimeoutError"


@pytest.mark.packet
def test_session_affinity_keeps_a_client_at_one_endpoint(results):
    assert len({answer.endpoint for answer in results["sticky"]}) == 1


def _live_as_written(fabric: Fabric) -> tuple[str, str, str]:
    """Full sync, the same again, cleanup: what iptables-save says after each (counters aside)."""

    def save() -> str:
        text = fabric.shell("node1", "iptables-save")
        return "\n".join(line for line in text.splitlines() if not line.startswith("#"))

    foreign = "iptables -t nat -N KUBE-KUBELET-CANARY; iptables -A INPUT -s 192.0.2.1 -j DROP"
    fabric.shell("node1", foreign)
    program(fabric, "node1", _state("node1"))
    first = save()
    program(fabric, "node1", _state("node1"))
    again = save()
    backend = IptablesBackend(IPV4, CONFIG, Metrics(), localhost_node_ports=True)
    fabric.inside("node1", lambda: asyncio.run(backend.cleanup()))
    return first, again, save()


@pytest.mark.packet
def test_a_second_process_changes_nothing_and_cleanup_leaves_only_what_others_made():
    first, again, after = scratch.run(_live_as_written)
    strip = [line.split(" [")[0] for line in first.splitlines()]
    assert strip == [line.split(" [")[0] for line in again.splitlines()]
    assert "--probability 0.50000000000" in first
    assert "KUBE-SVC-" not in after
    assert "KUBE-SERVICES" not in after
    assert ":KUBE-KUBELET-CANARY" in after
    assert "-s 192.0.2.1/32" in after
