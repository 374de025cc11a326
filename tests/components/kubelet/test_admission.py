"""Which pods a node cannot take, and why, in upstream's words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewire.components.kubelet.pod.admission import Rejection, rejections
from kubewire.components.kubelet.pod.gate import Gate
from kubewire.components.kubelet.pod.preemption import SYSTEM_CRITICAL, can_preempt, is_critical, victims

ALLOCATABLE = {"cpu": "2", "memory": "1Gi", "pods": "3"}
NODE: Any = {
    "metadata": {"name": "n", "labels": {"zone": "a"}},
    "spec": {"taints": [{"key": "k", "effect": "NoExecute"}, {"key": "s", "effect": "NoSchedule"}]},
}
TOLERANT = [{"key": "k", "operator": "Exists"}]
PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
TAINTS = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"


def pod(requests: Any = None, port: int = 0, static: bool = False, **spec: Any) -> Any:
    container: Any = {"name": "c", "resources": {"requests": requests or {}}}
    if port:
        container["ports"] = [{"containerPort": 1, "hostPort": port}]
    annotations = {"kubernetes.io/config.source": "file"} if static else {}
    return {
        "metadata": {"name": "p", "annotations": annotations},
        "spec": {"containers": [container], "tolerations": TOLERANT, **spec},
    }


@pytest.mark.parametrize(
    ("asked", "others", "rejection"),
    [
        (pod(), [], None),
        (pod({"cpu": "1500m"}), [pod({"cpu": "500m"})], None),
        (
            pod({"cpu": "1500m"}), [pod({"cpu": "501m"})],
            ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000"),
        ),
        (
            pod({"memory": "2Gi"}), [],
            ("OutOfmemory", "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"),
        ),
        (
            pod(), [pod(), pod(), pod()],
            ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"),
        ),
        (pod({"example.com/gpu": "1"}), [], None),
        (pod(port=80), [pod(port=81)], None),
        (pod(port=80), [pod(port=80)], ("NodePorts", PORTS)),
        (pod(nodeSelector={"zone": "a"}), [], None),
        (pod(nodeSelector={"zone": "b"}), [], ("NodeAffinity", AFFINITY)),
        (pod({"cpu": "3"}, nodeSelector={"zone": "b"}), [], ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000")),
        (pod(tolerations=[]), [], ("TaintToleration", TAINTS)),
        (pod(tolerations=[], static=True), [], None),
    ],
    ids=[
        "nothing against it", "resources just fit", "cpu", "memory", "pods", "a resource that the node does not know",
        "another port", "the same port", "selector", "another selector", "resources come first", "taint", "a static pod",
    ],
)  # fmt: skip
def test_a_pod_that_the_node_cannot_take(asked: Any, others: Any, rejection: tuple[str, str] | None) -> None:
    found = rejections(asked, others, NODE, ALLOCATABLE)
    assert (found[0].reason, found[0].message) == rejection if rejection else found == []


def test_what_depends_on_the_node_is_told_and_what_is_missing() -> None:
    assert rejections(pod(tolerations=[]), [], NODE, ALLOCATABLE) == [
        Rejection("TaintToleration", TAINTS, of_node=True)
    ]
    found = rejections(pod({"cpu": "1500m"}, port=80), [pod({"cpu": "1"}, port=80)], NODE, ALLOCATABLE)
    assert [(one.reason, one.of_node, one.missing) for one in found] == [
        ("OutOfcpu", False, ("cpu", 500)),
        ("NodePorts", False, None),
    ]


def placed(name: str, cpu: str = "", memory: str = "", priority: int = 0, qos: str = "Burstable", **more: Any) -> Any:
    asked = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    made = pod(asked, priority=priority, **more)
    made["metadata"] |= {"name": name, "uid": name}
    if qos == "Guaranteed":
        made["spec"]["containers"][0]["resources"]["limits"] = asked
    return made


CRITICAL = placed("critical", cpu="1", priority=SYSTEM_CRITICAL)


@pytest.mark.parametrize(
    ("tried", "other", "is_so"),
    [
        (CRITICAL, placed("a"), True),
        (placed("a", static=True), placed("b", priority=5), True),
        (CRITICAL, placed("a", priority=SYSTEM_CRITICAL), False),
        (placed("a", priority=SYSTEM_CRITICAL + 1000), CRITICAL, True),
        (placed("a", priority=SYSTEM_CRITICAL - 1), placed("b"), True),
        (placed("a"), placed("b"), False),
        (placed("a"), placed("b", static=True), False),
    ],
    ids=[
        "critical before ordinary", "static before ordinary", "equals", "node before cluster critical",
        "a higher priority", "ordinary pods", "no ordinary pod before a static one",
    ],
)  # fmt: skip
def test_whose_place_a_pod_may_take(tried: Any, other: Any, is_so: bool) -> None:
    assert can_preempt(tried, other) == is_so


@pytest.mark.parametrize(
    ("asked", "critical"),
    [(CRITICAL, True), (placed("a", static=True), True), (placed("a", priority=SYSTEM_CRITICAL - 1), False)],
    ids=["system-cluster-critical", "static", "the highest priority of users"],
)
def test_which_pods_are_critical(asked: Any, critical: bool) -> None:
    assert is_critical(asked) == critical


@pytest.mark.parametrize(
    ("others", "missing", "ended"),
    [
        ([placed("none"), placed("small", "100m"), placed("large", "1")], {"cpu": 500}, ["large"]),
        ([placed("near", "600m"), placed("far", "1")], {"cpu": 500}, ["near"]),
        ([placed("a", "300m"), placed("b", "400m"), placed("c", "100m")], {"cpu": 500}, ["b", "c"]),
        (
            [placed("g", "1", "1Mi", qos="Guaranteed"), placed("b", "1", "1Mi")],
            {"cpu": 500, "memory": 1024},
            ["b"],
        ),
        (
            [placed("g", "1", "1Mi", qos="Guaranteed"), placed("b", "400m", "1Mi")],
            {"cpu": 1100},
            ["b", "g"],
        ),
        ([placed("none"), placed("b", "1")], {"pods": 1}, ["none"]),
        ([placed("other", "1", priority=SYSTEM_CRITICAL), placed("b", "1")], {"cpu": 1}, ["b"]),
    ],
    ids=[
        "as few pods as possible", "of two that do the smaller", "until nothing is missing", "a Guaranteed pod last",
        "a Guaranteed pod too if needed", "the place of a pod", "no other critical pod",
    ],
)  # fmt: skip
def test_which_pods_make_room(others: Any, missing: dict[str, int], ended: list[str]) -> None:
    assert [one["metadata"]["name"] for one in victims(CRITICAL, others, missing)] == ended


class Registered:
    node = NODE

    async def read(self) -> None:
        pass


class Running:
    """A pod that ends when it is told to."""

    def __init__(self, held: Any, running: list[Any]) -> None:
        self.pod = held
        self._running = running

    async def preempt(self, why: Any) -> None:
        assert (why.reason, why.message) == ("Preempting", "Preempted in order to admit critical pod")
        await asyncio.sleep(0)
        self._running.remove(self)


def admit(asked: list[Any], others: list[Any]) -> tuple[list[Any], list[str], list[str]]:
    """The answers, the pods that still run, and the resources for which pods were ended."""
    running: list[Any] = []
    counted: list[str] = []

    async def one(gate: Gate, new: Any) -> Any:
        found = await gate.admit(new)
        if found is None:
            running.append(Running(new, running))
        return found and (found.reason, found.message)

    async def all_at_once() -> list[Any]:
        running.extend(Running(other, running) for other in others)
        gate = Gate(Registered(), ALLOCATABLE, lambda: running, counted.append)
        return await asyncio.gather(*(one(gate, new) for new in asked))

    return asyncio.run(all_at_once()), [one.pod["metadata"]["name"] for one in running], counted


def test_a_critical_pod_takes_the_place_of_an_ordinary_one() -> None:
    others = [placed("a", "500m"), placed("b", "1500m")]
    assert admit([CRITICAL], others) == ([None], ["a", "critical"], ["cpu"])
    assert admit([placed("new", "1")], others)[1] == ["a", "b"]


def test_critical_pods_that_come_together_do_not_count_on_the_same_room() -> None:
    second = placed("second", cpu="1", priority=SYSTEM_CRITICAL)
    others = [placed("a", "1"), placed("b", "1")]
    assert admit([CRITICAL, second], others) == ([None, None], ["critical", "second"], ["cpu", "cpu"])


@pytest.mark.parametrize(
    ("asked", "others", "rejection"),
    [
        (
            placed("critical", "1", priority=SYSTEM_CRITICAL, nodeSelector={"zone": "b"}), [placed("a", "2")],
            ("NodeAffinity", AFFINITY),
        ),
        (
            CRITICAL, [placed("a", "1500m", priority=SYSTEM_CRITICAL)],
            (
                "UnexpectedAdmissionError",
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set "
                "of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]",
            ),
        ),
    ],
    ids=["another reason than resources", "nobody who could make room"],
)  # fmt: skip
def test_a_critical_pod_for_which_nobody_has_to_end(asked: Any, others: list[Any], rejection: tuple[str, str]) -> None:
    names = [other["metadata"]["name"] for other in others]
    assert admit([asked], others) == ([rejection], names, [])
