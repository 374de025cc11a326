"""The status of a PodDisruptionBudget follows its pods; while it is unknown nothing may be disrupted."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.actions import Emit, Patch, Update
from kubewire.components.controllers.disruption.plan import plan, plan_stale
from tests.components.controllers.objects import NOW, at, pod, stamp, workload

OWNER = workload("ReplicaSet")


def budget(status: Any = None, **spec: Any) -> Any:
    metadata = {"name": "pdb", "namespace": "default", "uid": "u", "generation": 2, "resourceVersion": "1"}
    return {"kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec, "status": status or {}}


def pods(count: int, unready: int = 0, **given: Any) -> list[Any]:
    return [pod(f"p{number}", owner=OWNER, ready=number >= unready, **given) for number in range(count)]


def scale_of(owner: Any) -> tuple[str, int] | None:
    return (owner["uid"], 10) if owner["kind"] == "ReplicaSet" else None


def written(given: Any, members: list[Any]) -> Any:
    updates = [action for action in plan(given, members, scale_of, NOW).actions if isinstance(action, Update)]
    assert [update.subresource for update in updates] == ["status"]
    return updates[0].obj["status"]


@pytest.mark.parametrize(
    ("spec", "count", "unready", "want"),
    [
        pytest.param({"minAvailable": 2}, 3, 0, (1, 3, 2, 3), id="a number needs no controller"),
        pytest.param({"minAvailable": 2}, 3, 1, (0, 2, 2, 3), id="only ready pods are healthy"),
        pytest.param({"minAvailable": 0}, 0, 0, (0, 0, 0, 0), id="without pods nothing is allowed"),
        pytest.param({"minAvailable": "25%"}, 4, 0, (1, 4, 3, 10), id="a percentage of the scale, rounded up"),
        pytest.param({"maxUnavailable": "25%"}, 10, 0, (3, 10, 7, 10), id="unavailable pods, rounded up"),
        pytest.param({"maxUnavailable": 20}, 4, 0, (4, 4, 0, 10), id="more unavailable than there are"),
    ],
)
def test_counts(spec: Any, count: int, unready: int, want: tuple[int, ...]) -> None:
    status = written(budget(**spec), pods(count, unready))
    fields = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    assert tuple(status[field] for field in fields) == want
    assert status["observedGeneration"] == 2
    (condition,) = status["conditions"]
    allowed = ("True", "SufficientPods") if want[0] else ("False", "InsufficientPods")
    assert (condition["status"], condition["reason"], condition["observedGeneration"]) == (*allowed, 2)


def test_an_unchanged_status_is_not_written_again() -> None:
    given = budget(minAvailable=1)
    given["status"] = written(given, pods(2))
    assert plan(given, pods(2), scale_of, at(5)).actions == ()


def test_evicted_pods_are_not_healthy_until_they_must_have_gone() -> None:
    given = budget({"disruptedPods": {"p0": stamp(at(-60)), "p1": stamp(at(-121)), "gone": stamp()}}, minAvailable=1)
    step = plan(given, pods(3), scale_of, NOW)
    (update,) = (action for action in step.actions if isinstance(action, Update))
    assert update.obj["status"]["disruptedPods"] == {"p0": stamp(at(-60))}
    assert update.obj["status"]["currentHealthy"] == 2
    assert step.requeue_after == 60
    (late,) = (action for action in step.actions if isinstance(action, Emit))
    assert (late.reason, late.regarding["metadata"]["name"]) == ("NotDeleted", "p1")


def test_a_pod_whose_controller_is_unknown_stops_all_disruptions() -> None:
    stray = pod("stray", owner=workload("Rollout"))
    step = plan(budget({"disruptionsAllowed": 4}, maxUnavailable=1), [stray], scale_of, NOW)
    event, update = step.actions
    assert isinstance(event, Emit) and isinstance(update, Update)
    assert event.message == 'Failed to calculate the number of expected pods: found no controllers for pod "stray"'
    assert update.obj["status"]["disruptionsAllowed"] == 0
    (condition,) = update.obj["status"]["conditions"]
    assert condition["reason"] == "SyncFailed"
    assert condition["message"] == 'found no controllers for pod "stray"'


def test_pods_without_a_controller_are_reported() -> None:
    step = plan(budget(maxUnavailable=1), [pod("bare")], scale_of, NOW, "all")
    assert [action.reason for action in step.actions if isinstance(action, Emit)] == ["UnmanagedPods"]


def targeted(since: float, **given: Any) -> Any:
    marked = pod("p", **given)
    target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": stamp(at(since))}
    marked["status"]["conditions"].append(target | given.get("target", {}))
    return marked


@pytest.mark.parametrize(
    ("given", "patched", "again"),
    [
        pytest.param(targeted(-120), True, None, id="after two minutes it is cleared"),
        pytest.param(targeted(-20), False, 100, id="before that it waits"),
        pytest.param(targeted(-500, deleting=True), False, None, id="not while it is being deleted"),
        pytest.param(targeted(-500, phase="Failed"), False, None, id="not when it has ended"),
        pytest.param(
            targeted(-500, target={"reason": "TerminationByKubelet"}), False, None, id="not what the kubelet has set"
        ),
    ],
)
def test_a_stale_disruption_target_is_cleared(given: Any, patched: bool, again: float | None) -> None:
    step = plan_stale(given, NOW)
    assert (len(step.actions) == 1, step.requeue_after) == (patched, again)
    for action in step.actions:
        assert isinstance(action, Patch)
        ready, target = action.patch["status"]["conditions"]
        assert (ready["type"], target["type"], target["status"]) == ("Ready", "DisruptionTarget", "False")
