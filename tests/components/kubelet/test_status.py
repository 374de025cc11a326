"""A pod's status: phase, conditions, container states, and the patch that is sent."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubewire.components.apiserver.registry.strategicmerge import strategic_merge
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, ProbeView, SandboxRecord, Waiting
from kubewire.components.kubelet.status.generate import Override, pod_status, status_patch
from kubewire.components.kubelet.status.writer import urgent
from tests.existing import existing

SANDBOX = SandboxRecord("s1", 0, "/run/netns/cni-1", ("10.244.1.2",), 0.0, 7)
NOW = 1767225600.0


def pod(policy: str = "Always", **fields: Any) -> Any:
    spec = {"restartPolicy": policy, "containers": [{"name": "app", "image": "nginx"}], **fields.pop("spec", {})}
    metadata = {"name": "p", "namespace": "d", "uid": "u", "generation": 2}
    return {"metadata": metadata, "spec": spec, **fields}


def run(name: str = "app", exit_code: int | None = None, attempt: int = 0) -> ContainerRecord:
    return ContainerRecord(
        name, f"{name}{attempt}", "nginx", "nginx@sha256:1", attempt, "s1", "h", NOW, NOW,
        finished_at=NOW + 5, exit_code=exit_code,
    )  # fmt: skip


def record(*runs: ContainerRecord, waiting: dict[str, Waiting] | None = None, **fields: Any) -> PodRecord:
    current = {item.name: item for item in runs}
    return PodRecord(fields.pop("sandbox", SANDBOX), current, waiting=waiting or {}, **fields)


def status(wanted: Any, held: PodRecord, probes: ProbeView | None = None, **options: Any) -> Any:
    return pod_status(wanted, held, probes or ProbeView(), ("172.18.0.3",), NOW, **options)


def condition(found: dict[str, Any], kind: str) -> Any:
    return next(item for item in found["conditions"] if item["type"] == kind)


CRASH: Any = {"app": Waiting("CrashLoopBackOff", "back-off 10s ...")}


@pytest.mark.parametrize(
    ("policy", "held", "terminal", "expected"),
    [
        ("Always", PodRecord(), False, "Pending"),
        ("Always", record(run()), False, "Running"),
        ("Always", record(run(exit_code=0)), False, "Running"),
        ("Always", record(run(exit_code=1), waiting=CRASH), False, "Running"),
        ("OnFailure", record(run(exit_code=0)), False, "Succeeded"),
        ("OnFailure", record(run(exit_code=1)), False, "Running"),
        ("Never", record(run(exit_code=1)), False, "Failed"),
        ("Always", record(run(exit_code=0)), True, "Succeeded"),
        ("Always", record(run(exit_code=137)), True, "Failed"),
    ],
    ids=[
        "nothing yet", "running", "restarting", "crash looping", "success", "to be tried again", "failure",
        "ended with 0", "ended by a signal",
    ],
)  # fmt: skip
def test_the_phase(policy: str, held: PodRecord, terminal: bool, expected: str) -> None:
    assert status(pod(policy), held, terminal=terminal)["phase"] == expected


def test_a_new_pod_is_being_created() -> None:
    found = status(pod(), PodRecord())
    assert found["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(found, "Ready")["reason"] == "ContainersNotReady"
    assert condition(found, "Ready")["message"] == "containers with unready status: [app]"
    assert condition(found, "PodReadyToStartContainers")["status"] == "False"
    assert "podIP" not in found


def test_with_init_containers_it_is_initializing() -> None:
    spec = {"initContainers": [{"name": "i", "image": "x"}, {"name": "j", "image": "x"}]}
    found = status(pod(spec=spec), record(run("i", exit_code=0)))
    assert found["phase"] == "Pending"
    assert found["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(found, "Initialized")["message"] == "containers with incomplete status: [j]"
    assert [item["ready"] for item in found["initContainerStatuses"]] == [True, False]


def test_a_running_pod() -> None:
    found = status(pod(), record(run()))
    assert [item["status"] for item in found["conditions"]] == ["True"] * 5
    assert found["podIP"] == "10.244.1.2" and found["podIPs"] == [{"ip": "10.244.1.2"}]
    assert (found["hostIP"], found["qosClass"], found["observedGeneration"]) == ("172.18.0.3", "BestEffort", 2)
    only = found["containerStatuses"][0]
    assert only["containerID"] == "kubewire://app0" and only["imageID"] == "nginx@sha256:1"
    assert only["ready"] and only["started"] and only["restartCount"] == 0


@pytest.mark.parametrize(
    ("probe", "view", "started", "ready"),
    [
        ("readinessProbe", ProbeView(), True, False),
        ("readinessProbe", ProbeView(ready={"app": True}), True, True),
        ("startupProbe", ProbeView(), False, False),
        ("startupProbe", ProbeView(started={"app": True}), True, True),
    ],
    ids=["not probed yet", "probed", "not started yet", "started"],
)
def test_probes_decide_started_and_ready(probe: str, view: ProbeView, started: bool, ready: bool) -> None:
    spec = {"containers": [{"name": "app", "image": "nginx", probe: {"exec": {}}}]}
    only = status(pod(spec=spec), record(run()), view)["containerStatuses"][0]
    assert (only["started"], only["ready"]) == (started, ready)


def test_crash_loop_back_off_shows_the_last_end_as_last_state() -> None:
    only = status(pod(), record(run(exit_code=2, attempt=3), waiting=CRASH))["containerStatuses"][0]
    assert only["state"]["waiting"] == {"reason": "CrashLoopBackOff", "message": "back-off 10s ..."}
    assert only["lastState"]["terminated"]["exitCode"] == 2
    assert only["restartCount"] == 3


def test_readiness_gates() -> None:
    gated = pod(spec={"readinessGates": [{"conditionType": "a/b"}]})
    found = status(gated, record(run()))
    assert condition(found, "Ready")["message"] == (
        'corresponding condition of pod readiness gate "a/b" does not exist.'
    )
    gated["status"] = {"conditions": [{"type": "a/b", "status": "True"}]}
    found = status(gated, record(run()))
    assert condition(found, "Ready")["status"] == "True"
    assert condition(found, "a/b") == {"type": "a/b", "status": "True"}, "a condition of others is kept"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = status(pod(), PodRecord())
    for item in first["conditions"]:
        item["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    second = status(pod(status=first), record(run()))
    assert condition(second, "PodScheduled")["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert condition(second, "Ready")["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_a_finished_phase_is_final() -> None:
    assert status(pod("Never", status={"phase": "Failed"}), record(run(exit_code=0)))["phase"] == "Failed"


def test_a_pod_ended_as_a_whole() -> None:
    found = status(pod(), record(run()), override=Override("DeadlineExceeded", "too long"))
    assert (found["phase"], found["reason"], found["message"]) == ("Failed", "DeadlineExceeded", "too long")
    assert "DisruptionTarget" not in [item["type"] for item in found["conditions"]]


def test_a_pod_that_made_room_has_the_condition_once_and_with_its_first_time() -> None:
    def preempted(old: Any, now: float) -> Any:
        why = Override("Preempting", "Preempted", disruption="for another pod")
        shown = pod_status(pod(status=old), record(run()), ProbeView(), ("172.18.0.3",), now, override=why)
        return [item for item in shown["conditions"] if item["type"] == "DisruptionTarget"], shown

    (first,), shown = preempted({}, NOW)
    assert (first["status"], first["reason"], first["message"]) == ("True", "TerminationByKubelet", "for another pod")
    assert preempted(shown, NOW + 9)[0] == [first]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1024Mi"}}, "Guaranteed"),
        ({"requests": {"cpu": "0"}}, "BestEffort"),
    ],
)
def test_quality_of_service(resources: dict[str, Any], expected: str) -> None:
    spec = {"containers": [{"name": "app", "image": "nginx", "resources": resources}]}
    assert status(pod(spec=spec), record(run()))["qosClass"] == expected


def test_the_patch_has_only_what_changed() -> None:
    old = status(pod(), PodRecord())
    assert status_patch(old, copy.deepcopy(old)) is None
    new = status(pod(status=old), record(run()))
    patch = status_patch(old, new)
    assert patch is not None
    assert set(patch) == {"phase", "conditions", "containerStatuses", "podIP", "podIPs"}
    assert {item["type"] for item in patch["conditions"]} == {
        "PodReadyToStartContainers", "Ready", "ContainersReady",
    }  # fmt: skip


def test_a_condition_that_has_become_true_keeps_no_reason_and_no_message() -> None:
    old, new = status(pod(), PodRecord()), status(pod(), record(run()))
    assert condition(old, "Ready")["reason"] == "ContainersNotReady"
    merged = strategic_merge(
        copy.deepcopy(old), existing(status_patch(old, new)), lambda path: "type" if path == ("conditions",) else None
    )
    assert condition(merged, "Ready") == condition(new, "Ready")
    assert status_patch(merged, new) is None


def test_a_new_address_replaces_the_old_one() -> None:
    old = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    new = {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}
    assert status_patch(old, new) == {
        "podIP": "10.0.0.2",
        "podIPs": [{"ip": "10.0.0.1", "$patch": "delete"}, {"ip": "10.0.0.2"}],
    }


def test_readiness_is_urgent_and_a_first_pending_is_not() -> None:
    pending, running = status(pod(), PodRecord()), status(pod(), record(run()))
    assert not urgent({}, pending)
    assert urgent(pending, running)
    assert not urgent(running, running)
