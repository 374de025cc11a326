"""What really happens to packets: the flow table (flows.py) in each proxy mode and IP family, and what takes time."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kubewire.components.kube_proxy import sysctls
from kubewire.components.kube_proxy.backends import BACKENDS, Backend
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.model import IPV4, IPV6, Node, State
from kubewire.components.kube_proxy.state.tracker import Tracker
from tests.components.kube_proxy import flows, scratch
from tests.components.kube_proxy.flows import DROPPED, FLOWS, REFUSED, VARIATIONS, Answered, Flow
from tests.components.kube_proxy.scratch import ADDRESSES, Answer, Fabric

MODES = [(mode, family) for mode in BACKENDS for family in (IPV4, IPV6)]
_SENDERS = 16
_NO_ANSWER_SECONDS = 0.4
#: So long may a busy machine take.
_BUSY_SECONDS = 10.0


def state_of(node: str, family: str) -> State:
    """What the table's objects come to on a node."""
    tracker, a = Tracker(family, Metrics()), ADDRESSES[family]
    for service, endpoint_slice in flows.objects(family):
        tracker.service_changed(None, service)
        tracker.slice_changed(None, endpoint_slice)
    pods = f"{a.bridges[node][:-1]}0/{a.pod_bits}"
    this = Node(node, (a.hosts[node],), f"z{node[-1]}", (pods,))
    return State(tracker.services, tracker.endpoints, this, service_cidrs=a.services[:1])


class Programmed:
    """The real backend of a mode, on both nodes of a fabric."""

    def __init__(self, fabric: Fabric, mode: str, family: str) -> None:
        self.fabric, self.mode, self.family = fabric, mode, family

    def backend(self, changes: Mapping[str, Any]) -> Backend:
        config = flows.config(self.mode, self.family, changes)
        local = config.iptables.localhost_node_ports
        return BACKENDS[self.mode](self.family, config, Metrics(), localhost_node_ports=local)

    def write(self, changes: Mapping[str, Any]) -> None:
        for node in scratch.BRIDGES:
            backend = self.backend(changes)
            self.sync(backend, node, state_of(node, self.family))

    def sync(self, backend: Backend, node: str, state: State, *, full: bool = True) -> None:
        self.fabric.inside(node, lambda: asyncio.run(backend.sync(state, full=full)))

    def ask_all(self, rows: Iterable[Flow]) -> dict[str, list[Answer]]:
        with ThreadPoolExecutor(24) as workers:
            rows = list(rows)
            return dict(zip([row.title for row in rows], workers.map(self.ask, rows), strict=True))

    def ask(self, row: Flow) -> list[Answer]:
        """One try; where several pods may answer, as many as it takes to hear them all, a dozen at least."""
        expected = row.expects(self.mode, self.family)
        wanted = set(expected.by) if isinstance(expected, Answered) and expected.by != "client" else set()
        address, port = flows.destination(row, ADDRESSES[self.family])
        timeout = _NO_ANSWER_SECONDS if expected == DROPPED else _BUSY_SECONDS
        answers: list[Answer] = []
        while len(answers) < (12 if len(wanted) > 1 else 1) or (
            wanted - {answer.endpoint for answer in answers} and len(answers) < 60 and not answers[-1].error
        ):
            answers.append(self.fabric.ask(row.source, address, port, protocol=row.protocol, timeout=timeout))
        return answers

    def senders(self) -> list[str]:
        a = ADDRESSES[self.family]
        return [f"{a.bridges['node1'][:-1]}{100 + number}" for number in range(_SENDERS)]

    def who_answers(self, name: str, times: int = 1, *, again: bool = False) -> dict[str, list[str]]:
        """Which pod answers each of many clients. again: in another order, as ip_vs takes the pods in turn."""
        address, port = flows.destination(Flow("", "a", f"cluster {name}", REFUSED), ADDRESSES[self.family])
        return {
            sender: [self.fabric.ask("a", address, port, sender=sender).endpoint for _ in range(times)]
            for sender in (reversed(self.senders()) if again else self.senders())
        }


def _prepare(fabric: Fabric, family: str) -> None:
    a = ADDRESSES[family]
    for name in (*scratch.PODS, "client"):
        fabric.serve(name)
    for node in scratch.BRIDGES:
        fabric.shell(node, "sysctl -qw net.ipv4.conf.all.route_localnet=1")
    # The client host stands for a balancer, and for somebody who has an address out of the Services' range.
    stray, balancer = a.in_range(0, flows.UNALLOCATED), a.in_range(2, flows.SERVICES["proxied"].number)
    bits = 128 if ":" in stray else 32
    nodad = " nodad" if ":" in stray else ""
    fabric.ip("client", [f"addr add {stray}/{bits} dev lo{nodad}", f"addr add {balancer}/{bits} dev lo{nodad}"])
    fabric.serve("client", 80)
    for node in scratch.BRIDGES:
        fabric.ip(node, [f"route add {ip}/{bits} via {a.hosts['client']}" for ip in (stray, balancer)])
        fabric.ip("client", [f"route add {a.bridges[node][:-1]}0/{a.pod_bits} via {a.hosts[node]}"])
    fabric.answer_forever()


def _walk(fabric: Fabric, mode: str, family: str) -> Any:
    _prepare(fabric, family)
    nodes = Programmed(fabric, mode, family)
    if mode == "ipvs":
        for node in scratch.BRIDGES:
            fabric.inside(node, lambda: sysctls.require(sysctls.of_ipvs(flows.config(mode, family, {}))))
    nodes.write({})
    seen: Any = {"": nodes.ask_all(FLOWS)}
    seen["ping"] = _ping(fabric, flows.destination(Flow("", "a", "cluster web", REFUSED), ADDRESSES[family])[0])
    seen["affinity"] = _affinity(fabric, nodes)
    seen["while written"] = _while_written(fabric, nodes)
    for title, variation in VARIATIONS.items():
        nodes.write(variation.config)
        seen[title] = nodes.ask_all(variation.flows)
    return seen


def _ping(fabric: Fabric, address: str) -> int:
    argv = ["ping", "-c", "1", "-W", "0.3", address]
    return int(fabric.inside("a", lambda: subprocess.run(argv, stdout=subprocess.DEVNULL).returncode))


def _affinity(fabric: Fabric, nodes: Programmed) -> Any:
    bits = ADDRESSES[nodes.family].pod_bits
    nodad = " nodad" if nodes.family == IPV6 else ""
    fabric.ip("a", [f"addr add {sender}/{bits} dev eth0{nodad}" for sender in nodes.senders()])
    sticky = nodes.who_answers("sticky", times=4)
    before = nodes.who_answers("sticky-for-a-second")
    time.sleep(1.6)  # The timeout of a second is what is tested.
    after = nodes.who_answers("sticky-for-a-second", again=True)
    fabric.ip("a", [f"addr del {sender}/{bits} dev eth0" for sender in nodes.senders()])
    return {"sticky": sticky, "before": before, "after": after}


def _while_written(fabric: Fabric, nodes: Programmed) -> Any:
    """A client that connects all the time, while all is written anew by the process and by a new one."""
    address, port = flows.destination(Flow("", "a", "cluster web", REFUSED), ADDRESSES[nodes.family])
    failures: list[str] = []
    done, asked = threading.Event(), 0

    def ask_on() -> None:
        nonlocal asked
        while not done.is_set():
            asked += 1
            # Each from a port of its own: where one is used again while ip_vs still knows its last connection, ip_vs
            # drops the first SYN (conn_reuse_mode).
            answer = fabric.ask("a", address, port, sender_port=10000 + asked, timeout=_BUSY_SECONDS)
            if answer.error or answer.retransmitted:
                failures.append(answer.error or f"{answer.retransmitted} lost")

    client = threading.Thread(target=ask_on)
    client.start()
    state, backend = state_of("node1", nodes.family), nodes.backend({})
    for _ in range(3):
        nodes.sync(backend, "node1", state)
    nodes.sync(nodes.backend({}), "node1", state)
    done.set()
    client.join()
    return {"asked": asked, "failures": failures}


Seen = dict[str, Any]


@pytest.fixture(scope="module", params=MODES, ids=lambda mode: "-".join(mode))
def walked(request: pytest.FixtureRequest) -> tuple[str, str, Seen]:
    mode, family = request.param
    if mode == "ipvs":
        scratch.need_ip_vs()
    return mode, family, scratch.run(lambda fabric: _walk(fabric, mode, family), seconds=240)


def _check(row: Flow, answers: list[Answer], mode: str, family: str) -> None:
    expected, a = row.expects(mode, family), ADDRESSES[family]
    if expected == REFUSED:
        (answer,) = answers
        assert answer.error == "ConnectionRefusedError"
    elif expected == DROPPED:
        (answer,) = answers
        assert answer.error == "TimeoutError"
    else:
        assert isinstance(expected, Answered)
        assert {answer.error for answer in answers} == {""}
        assert {answer.endpoint for answer in answers} == ({"client"} if expected.by == "client" else set(expected.by))
        for answer in answers:
            seen = expected.seen if isinstance(expected.seen, str) else expected.seen[answer.endpoint]
            assert flows.named(answer.seen, a) == seen


@pytest.mark.packet
@pytest.mark.parametrize("row", FLOWS, ids=lambda row: row.title)
def test_flow(walked, row):
    mode, family, seen = walked
    _check(row, seen[""][row.title], mode, family)


@pytest.mark.packet
@pytest.mark.parametrize(
    ("title", "row"), [(title, row) for title, variation in VARIATIONS.items() for row in variation.flows],
    ids=lambda part: part if isinstance(part, str) else part.title,
)  # fmt: skip
def test_flow_with_another_configuration(walked, title, row):
    mode, family, seen = walked
    _check(row, seen[title][row.title], mode, family)


@pytest.mark.packet
def test_nobody_answers_the_ping_of_a_cluster_ip(walked):
    assert walked[2]["ping"] != 0


@pytest.mark.packet
def test_affinity_keeps_each_client_at_its_pod_and_spreads_clients(walked):
    sticky = walked[2]["affinity"]["sticky"]
    assert [len(set(pods)) for pods in sticky.values()] == [1] * _SENDERS
    assert {pod for pods in sticky.values() for pod in pods} == set("bc")


@pytest.mark.packet
def test_affinity_is_forgotten_after_its_timeout_and_its_last_connection(walked):
    mode, _, seen = walked
    before, after = seen["affinity"]["before"], seen["affinity"]["after"]
    if mode == "ipvs":
        # ip_vs keeps a client's template as long as connections of it, and a closed one for two minutes more.
        assert after == before
    else:
        # Chance would send all clients to the pods they had in one case of 65,536.
        assert after != before


@pytest.mark.packet
def test_no_connection_fails_while_all_rules_are_written_anew(walked):
    seen = walked[2]["while written"]
    assert seen["failures"] == []
    assert seen["asked"] > 20
