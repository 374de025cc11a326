"""Jobs, counted without loss."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.job.indexes import FINALIZER, format_indexes, parse_indexes
from kubewire.components.controllers.job.plan import is_finished, plan, until_expired
from kubewire.components.controllers.meta import condition
from kubewire.components.kubeapi.resources import JOBS, PODS
from kubewire.components.kubeapi.selectors import LabelSelector
from tests.components.controllers.objects import NOW, at, template, workload
from tests.components.controllers.world import World
from tests.existing import existing


def start(**spec):
    world = World()
    body = {"template": template(labels={"job-name": "web"}, restartPolicy="Never"), "backoffLimit": 6}
    job = workload("Job", replicas=None, **{**body, "parallelism": 1, "completions": 1, **spec})
    job["apiVersion"] = "batch/v1"
    world.put(JOBS, job)
    return world


def sync(world):
    job = world.get(JOBS, "web")
    return world.apply(plan(job, world.owned(PODS, job), world.now).actions)


def end(pod, phase):
    pod["status"]["phase"] = phase


def settle(world, outcome="Succeeded"):
    """Pods end with this phase as soon as they are made; deleted ones go when no finalizer holds them."""
    for _ in range(60):
        writes = sync(world)
        for pod in world.all(PODS):
            if pod["status"]["phase"] == "Pending":
                writes += 1
                end(pod, outcome(pod) if callable(outcome) else outcome)
        world.tick(700)
        if not writes:
            return world.get(JOBS, "web")["status"]
    raise AssertionError("does not settle")


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
@pytest.mark.parametrize(("completions", "parallelism"), [(1, 1), (5, 2), (4, 10)])
def test_a_job_runs_to_completion_and_counts_every_pod_once(completions, parallelism, mode):
    world = start(completions=completions, parallelism=parallelism, completionMode=mode)
    status = settle(world)
    assert status["succeeded"] == completions
    assert len(world.all(PODS)) == completions
    assert not status["uncountedTerminatedPods"]
    assert status["active"] == 0
    assert existing(condition(status, "Complete"))["reason"] == "CompletionsReached"
    assert "completionTime" in status
    assert "Completed: Job completed" in world.events
    assert not any(FINALIZER in (pod["metadata"].get("finalizers") or []) for pod in world.all(PODS))


def test_never_more_pods_than_parallelism_run():
    world = start(completions=6, parallelism=2)
    sync(world)
    assert len(world.all(PODS)) == 2
    sync(world)
    assert len(world.all(PODS)) == 2


def test_an_indexed_job_gives_each_pod_its_index():
    world = start(completions=3, parallelism=3, completionMode="Indexed")
    sync(world)
    pods = world.all(PODS)
    assert sorted(pod["spec"]["hostname"] for pod in pods) == ["web-0", "web-1", "web-2"]
    key = "batch.kubernetes.io/job-completion-index"
    assert sorted(pod["metadata"]["annotations"][key] for pod in pods) == ["0", "1", "2"]
    assert pods[0]["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    end(pods[1], "Succeeded")
    sync(world)
    assert world.get(JOBS, "web")["status"]["completedIndexes"] == "1"


def test_a_failed_index_is_tried_again():
    world = start(completions=2, parallelism=2, completionMode="Indexed")
    failed: list[Any] = []

    def outcome(pod):
        if pod["spec"]["hostname"] == "web-0" and not failed:
            failed.append(pod)
            return "Failed"
        return "Succeeded"

    status = settle(world, outcome)
    assert (status["succeeded"], status["failed"], status["completedIndexes"]) == (2, 1, "0,1")


def test_the_backoff_limit_ends_a_job_that_keeps_failing():
    world = start(backoffLimit=2)
    status = settle(world, "Failed")
    assert status["failed"] == 3
    failed = existing(condition(status, "Failed"))
    assert (failed["reason"], failed["message"]) == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )
    assert "BackoffLimitExceeded: Job has reached the specified backoff limit" in world.events


def test_after_a_failure_the_next_pod_waits():
    world = start()
    sync(world)
    end(world.all(PODS)[0], "Failed")
    sync(world)
    job = world.get(JOBS, "web")
    step = plan(job, world.owned(PODS, job), at(4))
    assert step.requeue_after == 6.0
    assert len(world.all(PODS)) == 1


def test_the_active_deadline_stops_running_pods():
    world = start(activeDeadlineSeconds=30)
    sync(world)
    job = world.get(JOBS, "web")
    assert plan(job, world.owned(PODS, job), at(10)).requeue_after == 20.0
    world.tick(31)
    sync(world)
    assert world.all(PODS)[0]["metadata"]["deletionTimestamp"]
    assert existing(condition(job["status"], "FailureTarget"))["reason"] == "DeadlineExceeded"
    assert condition(job["status"], "Failed") is None, "not before the pod is gone"


def test_a_suspended_job_runs_nothing_until_it_is_resumed():
    world = start(suspend=True)
    sync(world)
    assert world.all(PODS) == []
    job = world.get(JOBS, "web")
    assert existing(condition(job["status"], "Suspended"))["status"] == "True"
    assert "startTime" not in job["status"]
    job["spec"]["suspend"] = False
    status = settle(world)
    assert is_finished(job)
    assert existing(condition(status, "Suspended"))["status"] == "False"


def test_without_completions_one_success_is_enough():
    world = start(completions=None, parallelism=3)
    sync(world)
    assert len(world.all(PODS)) == 3
    end(world.all(PODS)[0], "Succeeded")
    for _ in range(3):
        sync(world)
    assert len(world.all(PODS)) == 3, "no new pod once one succeeded"
    status = settle(world)
    assert status["succeeded"] == 3
    assert condition(status, "Complete")


def test_a_finished_job_expires_after_its_ttl():
    world = start(ttlSecondsAfterFinished=100)
    assert until_expired(world.get(JOBS, "web"), NOW) is None
    settle(world)
    job = world.get(JOBS, "web")
    finished = existing(condition(job["status"], "Complete"))["lastTransitionTime"]
    assert finished
    assert existing(until_expired(job, world.now)) < 0
    assert existing(until_expired(job, NOW)) > 0


@pytest.mark.parametrize(
    ("indexes", "text"), [([], ""), ([3], "3"), ([1, 2], "1,2"), ([1, 3, 4, 5, 7], "1,3-5,7"), (range(9), "0-8")]
)
def test_index_lists_are_written_short(indexes, text):
    assert format_indexes(indexes) == text
    assert parse_indexes(text) == set(indexes)


def test_a_pod_that_the_job_does_not_select_any_more_is_free_of_it():
    world = start()
    sync(world)
    job = world.get(JOBS, "web")
    (pod,) = world.all(PODS)
    assert FINALIZER in pod["metadata"]["finalizers"]
    selector = LabelSelector.from_map({"job-name": "other"})
    (release,) = claim(job, selector, PODS, [pod], finalizer=FINALIZER).changes
    assert release.patch["metadata"]["ownerReferences"] == []
    assert release.patch["metadata"]["finalizers"] is None
    pod["metadata"]["finalizers"].append("example.com/other")
    (release,) = claim(job, selector, PODS, [pod], finalizer=FINALIZER).changes
    assert release.patch["metadata"]["finalizers"] == ["example.com/other"]
