"""Pod ranges and health of nodes."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from kubewire.components.controllers.flags import Options
from kubewire.components.controllers.meta import condition
from kubewire.components.controllers.nodes.health import (
    eviction_time,
    has_execute_taint,
    not_ready_pod_conditions,
    unknown_conditions,
    wanted_taints,
)
from kubewire.components.controllers.nodes.ipam import CidrSet, RangeExhausted, occupy_all
from kubewire.components.controllers.nodes.ttl import next_step, seconds_of
from kubewire.components.controllers.nodes.zones import Pace, Zones
from tests.components.controllers.objects import NOW, at, node, pod, stamp
from tests.existing import existing


def cidrs(cluster="10.244.0.0/22", size=24):
    return CidrSet(ipaddress.ip_network(cluster), size)


def test_blocks_are_handed_out_in_order_until_none_is_left():
    blocks = cidrs()
    assert [str(blocks.allocate()) for _ in range(4)] == [f"10.244.{n}.0/24" for n in range(4)]
    with pytest.raises(RangeExhausted):
        blocks.allocate()


def test_a_freed_block_is_used_again_last():
    blocks = cidrs()
    first = blocks.allocate()
    blocks.release(first)
    assert [str(blocks.allocate()) for _ in range(4)][-1] == str(first)


def test_occupied_blocks_are_never_handed_out_after_a_restart():
    blocks = cidrs()
    held = node("a") | {"spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}}
    occupy_all([blocks], [held], [ipaddress.ip_network("10.244.2.0/23")])
    assert str(blocks.allocate()) == "10.244.1.0/24"
    with pytest.raises(RangeExhausted):
        blocks.allocate()


def test_both_families_of_a_dual_stack_node_are_occupied():
    four, six = cidrs(), cidrs("fd00:10:244::/56", 64)
    held = node("a") | {"spec": {"podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]}}
    occupy_all([four, six], [held], [])
    assert (str(four.allocate()), str(six.allocate())) == ("10.244.1.0/24", "fd00:10:244:1::/64")


def test_a_silent_node_is_unknown_in_every_condition_of_its_kubelet():
    conditions = existing(unknown_conditions(node("a"), at(60)))
    assert {item["type"]: item["status"] for item in conditions} == dict.fromkeys(
        ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"), "Unknown"
    )
    ready = existing(condition({"conditions": conditions}, "Ready"))
    assert (ready["reason"], ready["message"]) == ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    assert existing(condition({"conditions": conditions}, "DiskPressure"))["reason"] == "NodeStatusNeverUpdated"
    silent = node("a") | {"status": {"conditions": conditions}}
    assert unknown_conditions(silent, at(90)) is None


def keys(taints):
    return {(item["key"].removeprefix("node.kubernetes.io/"), item["effect"]) for item in taints}


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        ("False", {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}),
        ("Unknown", {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}),
    ],
)
def test_an_unready_node_is_tainted_and_a_ready_one_freed(ready, expected):
    sick = node("a", ready=ready)
    taints = wanted_taints(sick, NOW, evict=True)
    assert keys(taints) == expected
    sick["spec"]["taints"] = taints
    assert wanted_taints(sick, NOW, evict=True) is None
    well = node("a", taints=taints)
    assert wanted_taints(well, NOW, evict=True) == []


def test_other_taints_stay_and_cordon_shows():
    cordoned = node("a", taints=[{"key": "mine", "effect": "NoExecute"}])
    cordoned["spec"]["unschedulable"] = True
    assert keys(wanted_taints(cordoned, NOW, evict=True)) == {("mine", "NoExecute"), ("unschedulable", "NoSchedule")}


def test_nobody_is_evicted_while_every_node_is_silent():
    silent = node("a", ready="Unknown")
    assert keys(wanted_taints(silent, NOW, evict=False)) == {("unreachable", "NoSchedule")}
    silent["spec"]["taints"] = wanted_taints(silent, NOW, evict=True)
    assert has_execute_taint(silent)
    assert keys(wanted_taints(silent, NOW, evict=False, lift=True)) == {("unreachable", "NoSchedule")}


def zone(name: str, ready: int, silent: int) -> list[Any]:
    labels = {"topology.kubernetes.io/zone": name}
    states = ["True"] * ready + ["Unknown"] * silent
    return [node(f"{name}{number}", labels=labels, ready=state) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("nodes", "rate"),
    [
        pytest.param(zone("a", 3, 1), 0.1, id="one of a few nodes"),
        pytest.param(zone("a", 1, 2), 0.1, id="two of three nodes"),
        pytest.param(zone("a", 2, 3), 0.0, id="most nodes of a small zone"),
        pytest.param(zone("a", 20, 31), 0.01, id="most nodes of a large zone"),
        pytest.param(zone("a", 0, 3) + zone("b", 1, 0), 0.1, id="a whole zone, but not another"),
        pytest.param(zone("a", 0, 3) + zone("b", 0, 1), 0.0, id="all nodes of all zones"),
    ],
)
def test_how_fast_a_zone_loses_the_pods_of_its_nodes(nodes, rate):
    zones = Zones.of(nodes, Options().unhealthy_zone_threshold)
    assert zones.rate(("", "a"), Options()) == rate


def test_the_second_node_of_a_zone_waits():
    pace = Pace()
    assert pace.wait(("", "a"), 0.1, NOW) == 0
    pace.taken(("", "a"), NOW)
    assert pace.wait(("", "a"), 0.1, at(4)) == 6
    assert pace.wait(("", "b"), 0.1, at(4)) == 0
    assert pace.wait(("", "a"), 0.1, at(11)) == 0


TAINT: Any = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": stamp()}


def tolerating(seconds=None):
    item = {"key": TAINT["key"], "operator": "Exists", "effect": "NoExecute"}
    return {"tolerations": [item | ({"tolerationSeconds": seconds} if seconds is not None else {})]}


@pytest.mark.parametrize(
    ("spec", "when"),
    [({}, at(10)), (tolerating(300), at(300)), (tolerating(0), at(0)), (tolerating(), None)],
    ids=["not tolerated: now", "for a while", "not at all", "for ever"],
)
def test_when_a_pod_must_leave(spec, when):
    assert eviction_time(pod("p", spec=spec), [TAINT], at(10)) == when


def test_a_pod_made_after_the_taint_has_its_own_time():
    assert eviction_time(pod("p", created=at(100), spec=tolerating(300)), [TAINT], at(101)) == at(400)


def test_pods_of_a_silent_node_are_not_ready():
    conditions = existing(not_ready_pod_conditions(pod("p"), at(5)))
    assert conditions[0]["status"] == "False"
    assert not_ready_pod_conditions(pod("p", ready=False), NOW) is None


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [
        pytest.param([3], 0, id="a small cluster"),
        pytest.param([101], 15, id="a larger one"),
        pytest.param([101, 95], 15, id="a little smaller again"),
        pytest.param([101, 89], 0, id="small again"),
        pytest.param([600, 5000], 300, id="a very large one"),
    ],
)
def test_kubelets_of_a_large_cluster_may_cache_longer(sizes, seconds):
    step = 0
    for size in sizes:
        step = next_step(step, size)
    assert seconds_of(step) == seconds
