"""CronJobs: which Jobs are due, what happens to those that run, and which are kept."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.actions import Emit
from kubewire.components.controllers.cronjob.plan import plan
from kubewire.components.kubeapi.resources import CRONJOBS, JOBS
from tests.components.controllers.objects import stamp, template
from tests.components.controllers.world import World

MINUTE = 60


def start(**spec: Any) -> World:
    world = World()
    body = {
        "schedule": "*/5 * * * *",
        "concurrencyPolicy": "Allow",
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": template()}},
        **spec,
    }
    metadata = {"name": "tick", "namespace": "default", "uid": "uid-tick", "creationTimestamp": stamp(world.now)}
    world.put(CRONJOBS, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": body})
    return world


def sync(world: World) -> int:
    cronjob = world.get(CRONJOBS, "tick")
    return world.apply(plan(cronjob, world.all(JOBS), world.now).actions)


def pass_time(world: World, minutes: float) -> None:
    world.tick(minutes * MINUTE)
    sync(world)
    sync(world)


def finish(world: World, name: str, outcome: str = "Complete") -> None:
    world.get(JOBS, name)["status"] = {
        "conditions": [{"type": outcome, "status": "True"}],
        "startTime": stamp(world.now),
        "completionTime": stamp(world.now),
    }


def status(world: World) -> Any:
    return world.get(CRONJOBS, "tick").get("status") or {}


# 12:00 on 2026-01-01, in minutes since 1970.
NOON = 29454480


def test_a_job_is_created_when_it_is_due_and_named_by_its_time() -> None:
    world = start()
    step = plan(world.get(CRONJOBS, "tick"), [], world.now)
    assert (step.actions, step.requeue_after) == ((), 5 * MINUTE + 0.1)
    pass_time(world, 5)
    (name,) = world.names(JOBS)
    assert name == f"tick-{NOON + 5}"
    metadata = world.get(JOBS, name)["metadata"]
    assert metadata["labels"] == {"a": "b"}
    assert metadata["annotations"] == {"batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T12:05:00Z"}
    assert metadata["ownerReferences"][0]["controller"]
    assert status(world)["lastScheduleTime"] == "2026-01-01T12:05:00Z"
    assert [item["name"] for item in status(world)["active"]] == [name]
    assert sync(world) == 0


def test_of_the_times_that_were_missed_only_the_latest_counts() -> None:
    world = start()
    pass_time(world, 22)
    assert world.names(JOBS) == [f"tick-{NOON + 20}"]


def test_too_many_missed_times_are_reported_and_the_latest_still_counts() -> None:
    world = start(schedule="* * * * *")
    world.tick(1000 * MINUTE + 30)
    events = [
        item.reason for item in plan(world.get(CRONJOBS, "tick"), [], world.now).actions if isinstance(item, Emit)
    ]
    assert events == ["TooManyMissedTimes"]
    sync(world)
    assert world.names(JOBS) == [f"tick-{NOON + 1000}"]


@pytest.mark.parametrize(
    ("policy", "expected", "event"),
    [
        ("Allow", [f"tick-{NOON + 5}", f"tick-{NOON + 10}"], None),
        ("Forbid", [f"tick-{NOON + 5}"], "JobAlreadyActive"),
        ("Replace", [f"tick-{NOON + 10}"], None),
    ],
)
def test_what_happens_while_a_job_still_runs(policy: str, expected: list[str], event: str | None) -> None:
    world = start(concurrencyPolicy=policy)
    pass_time(world, 5)
    pass_time(world, 5)
    assert world.names(JOBS) == sorted(expected)
    assert any(item.startswith(event) for item in world.events) if event else True


def test_a_forbidden_job_starts_late_when_the_one_before_has_finished() -> None:
    world = start(concurrencyPolicy="Forbid")
    pass_time(world, 5)
    pass_time(world, 5)
    world.tick(MINUTE)
    finish(world, f"tick-{NOON + 5}")
    sync(world)
    assert f"tick-{NOON + 10}" in world.names(JOBS)


@pytest.mark.parametrize(
    ("spec", "event"),
    [
        ({"suspend": True}, None),
        ({"startingDeadlineSeconds": 60}, None),
        ({"timeZone": "Moon/Base"}, "UnknownTimeZone"),
        ({"schedule": "nonsense"}, "UnparseableSchedule"),
    ],
    ids=["suspended", "later than the deadline", "unknown time zone", "no schedule"],
)
def test_no_job_is_created(spec: Any, event: str | None) -> None:
    world = start(**spec)
    world.tick(7 * MINUTE)
    sync(world)
    assert world.names(JOBS) == []
    assert [item.partition(":")[0] for item in world.events] == ([event] if event else [])


def test_a_schedule_is_read_in_its_time_zone() -> None:
    world = start(schedule="30 13 * * *", timeZone="Europe/Berlin")
    pass_time(world, 31)
    assert world.names(JOBS) == [f"tick-{NOON + 30}"]
    (job,) = world.all(JOBS)
    assert "2026-01-01T13:30:00+01:00" in job["metadata"]["annotations"].values()


def test_finished_jobs_are_kept_up_to_the_limits_and_reported() -> None:
    world = start(successfulJobsHistoryLimit=1)
    for _ in range(3):
        pass_time(world, 5)
        finish(world, world.names(JOBS)[-1])
        sync(world)
    assert world.names(JOBS) == [f"tick-{NOON + 15}"]
    assert status(world)["lastSuccessfulTime"] == stamp(world.now)
    assert "active" not in status(world)
    assert f"SawCompletedJob: Saw completed job: tick-{NOON + 5}, condition: Complete" in world.events


def test_a_running_job_that_disappears_is_reported() -> None:
    world = start()
    pass_time(world, 5)
    world._objects[JOBS.plural].clear()
    sync(world)
    assert f"MissingJob: Active job went missing: tick-{NOON + 5}" in world.events
