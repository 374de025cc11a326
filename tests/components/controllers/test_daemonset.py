"""DaemonSets: which nodes, replacement within budgets."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.daemonset.nodes import new_pod, node_of, verdict
from kubewire.components.controllers.daemonset.plan import plan
from kubewire.components.controllers.pods import is_ready
from kubewire.components.kubeapi.resources import CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS
from tests.components.controllers.objects import node, template, workload
from tests.components.controllers.world import World

NO_NETWORK: Any = {"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}
CONTROL_PLANE: Any = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def start(count=3, nodes=None, **spec):
    world = World()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    world.put(DAEMONSETS, workload("DaemonSet", replicas=None, **{"updateStrategy": strategy, **spec}))
    for item in nodes or [node(f"n{number}") for number in range(count)]:
        world.put(NODES, item)
    return world


def sync(world):
    step = plan(
        world.get(DAEMONSETS, "web"),
        world.all(NODES),
        world.all(PODS),
        world.all(CONTROLLERREVISIONS),
        world.now,
    )
    return world.apply(step.actions)


def by_node(world):
    return sorted(node_of(item) for item in world.all(PODS))


def test_every_node_gets_one_pod_bound_by_affinity_to_its_name():
    world = start(3)
    world.settle(sync)
    assert by_node(world) == ["n0", "n1", "n2"]
    assert all("nodeName" not in item["spec"] for item in world.all(PODS))
    status = world.get(DAEMONSETS, "web")["status"]
    assert (status["desiredNumberScheduled"], status["numberReady"], status["updatedNumberScheduled"]) == (3, 3, 3)
    assert status["numberUnavailable"] == 0


def test_a_new_node_gets_its_pod_and_a_tainted_one_loses_nothing_it_has():
    world = start(2)
    world.settle(sync)
    world.put(NODES, node("n9"))
    world.settle(sync)
    assert by_node(world) == ["n0", "n1", "n9"]
    world.get(NODES, "n0")["spec"]["taints"] = [CONTROL_PLANE]
    world.settle(sync)
    assert by_node(world) == ["n0", "n1", "n9"]
    assert world.get(DAEMONSETS, "web")["status"]["numberMisscheduled"] == 1


@pytest.mark.parametrize(
    ("target", "spec", "run", "stay"),
    [
        (node("n"), {}, True, True),
        (node("n", taints=[CONTROL_PLANE]), {}, False, True),
        (node("n", taints=[CONTROL_PLANE]), {"tolerations": [{"operator": "Exists"}]}, True, True),
        (node("n", taints=[{"key": "x", "effect": "NoExecute"}]), {}, False, False),
        (node("n", taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]), {}, True, True),
        (node("n", taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]), {}, True, True),
        (node("n", taints=[NO_NETWORK]), {"hostNetwork": True}, True, True),
        (node("n", taints=[NO_NETWORK]), {}, False, True),
        (node("n"), {"nodeSelector": {"disk": "ssd"}}, False, False),
        (node("n", labels={"disk": "ssd"}), {"nodeSelector": {"disk": "ssd"}}, True, True),
        (node("n"), {"nodeName": "other"}, False, False),
    ],
)  # fmt: skip
def test_which_nodes_a_daemon_belongs_on(target, spec, run, stay):
    found = verdict(workload("DaemonSet", replicas=None, template=template(**spec)), target)
    assert (found.run, found.stay) == (run, stay)


def test_pods_on_nodes_that_no_longer_match_are_deleted():
    world = start(nodes=[node("a", labels={"disk": "ssd"}), node("b", labels={"disk": "ssd"})])
    world.get(DAEMONSETS, "web")["spec"]["template"] = template(nodeSelector={"disk": "ssd"})
    world.settle(sync)
    world.get(NODES, "a")["metadata"]["labels"].pop("disk")
    world.settle(sync)
    assert by_node(world) == ["b"]


@pytest.mark.parametrize(("unavailable", "floor"), [(1, 9), ("20%", 8), ("100%", 0)])
def test_a_rolling_update_keeps_its_budget(unavailable, floor):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": 0}}
    world = start(10, updateStrategy=strategy)
    world.settle(sync)
    world.get(DAEMONSETS, "web")["spec"]["template"] = template("nginx:2")

    def check():
        living = [item for item in world.all(PODS) if not item["metadata"].get("deletionTimestamp")]
        assert sum(is_ready(item) for item in living) >= floor

    world.settle(sync, check)
    assert {item["spec"]["containers"][0]["image"] for item in world.all(PODS)} == {"nginx:2"}
    assert len(world.all(PODS)) == 10


def test_with_surge_the_old_pod_goes_when_the_new_one_is_available():
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 2}}
    world = start(5, updateStrategy=strategy)
    world.settle(sync)
    world.get(DAEMONSETS, "web")["spec"]["template"] = template("nginx:2")

    def check():
        living = [item for item in world.all(PODS) if not item["metadata"].get("deletionTimestamp")]
        assert len({node_of(item) for item in living if is_ready(item)}) == 5
        assert len(living) <= 7

    world.settle(sync, check)
    assert {item["spec"]["containers"][0]["image"] for item in world.all(PODS)} == {"nginx:2"}
    assert len(world.all(PODS)) == 5


def test_a_failed_pod_is_replaced_and_said_so():
    world = start(1)
    world.settle(sync)
    (failed,) = world.names(PODS)
    world.get(PODS, failed)["status"]["phase"] = "Failed"
    world.settle(sync)
    assert world.names(PODS) != [failed]
    assert f"FailedDaemonPod: Found failed daemon pod default/{failed} on node n0, will try to kill it" in world.events


def test_node_of_reads_the_affinity_of_a_pod_that_is_not_bound_yet():
    pod = new_pod(workload("DaemonSet", replicas=None), "n7", "abc")
    assert node_of(pod) == "n7"
    assert pod["metadata"]["labels"]["controller-revision-hash"] == "abc"
