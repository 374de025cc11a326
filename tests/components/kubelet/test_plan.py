"""The pod's state machine, row by row: what is there -> what to do."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubelet.pod.plan import Actions, Kill, deadline, plan, spec_hash
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, ProbeView, SandboxRecord


def pod(policy: str = "Always", init: list[dict[str, Any]] | None = None, **spec: Any) -> Any:
    containers = spec.pop("containers", [{"name": "app", "image": "nginx"}])
    body = {"restartPolicy": policy, "initContainers": init or [], "containers": containers, **spec}
    return {"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": body}


SANDBOX = SandboxRecord("s1", 0, "/run/netns/cni-1", ("10.244.1.2",), 0.0, 7)
DEAD_SANDBOX = SandboxRecord("s1", 0, "/run/netns/cni-1", ("10.244.1.2",), 0.0, 0, ready=False)


def run(name: str, exit_code: int | None = None, sandbox: str = "s1", image: str = "nginx") -> ContainerRecord:
    return ContainerRecord(
        name, f"{name}-id", image, "", 0, sandbox, spec_hash({"name": name, "image": image}), 0.0, 0.0,
        exit_code=exit_code,
    )  # fmt: skip


def record(*runs: ContainerRecord, sandbox: SandboxRecord | None = SANDBOX) -> PodRecord:
    return PodRecord(sandbox, {item.name: item for item in runs})


OVER = Actions(kill_pod=True, finished=True)
NOTHING = Actions()
INIT = [{"name": "i1", "image": "nginx"}, {"name": "i2", "image": "nginx"}]
SIDECAR = [{"name": "side", "image": "nginx", "restartPolicy": "Always"}]


@pytest.mark.parametrize(
    ("wanted", "held", "expected"),
    [
        (pod(), record(sandbox=None), Actions(create_sandbox=True)),
        (pod(), record(run("app"), sandbox=DEAD_SANDBOX), Actions(kill_pod=True, create_sandbox=True)),
        (pod("Never"), record(run("app", 1), sandbox=DEAD_SANDBOX), OVER),
        (pod("OnFailure"), record(run("app", 0), sandbox=DEAD_SANDBOX), OVER),
        (pod("OnFailure"), record(run("app", 1), sandbox=DEAD_SANDBOX), Actions(kill_pod=True, create_sandbox=True)),
        (pod(), record(), Actions(start=("app",))),
        (pod(), record(run("app")), NOTHING),
        (pod("Always"), record(run("app", 0)), Actions(start=("app",))),
        (pod("OnFailure"), record(run("app", 0)), OVER),
        (pod("OnFailure"), record(run("app", 3)), Actions(start=("app",))),
        (pod("Never"), record(run("app", 3)), OVER),
        (pod("Always", INIT), record(), Actions(start=("i1",))),
        (pod("Always", INIT), record(run("i1")), NOTHING),
        (pod("Always", INIT), record(run("i1", 0)), Actions(start=("i2",))),
        (pod("Always", INIT), record(run("i1", 1)), Actions(start=("i1",))),
        (pod("Never", INIT), record(run("i1", 1)), OVER),
        (pod("Always", INIT), record(run("i1", 0), run("i2", 0)), Actions(start=("app",))),
        (pod("Always", INIT), record(run("i1", 0, "s0"), run("i2", 0, "s0")), Actions(start=("i1",))),
        (pod("Always", SIDECAR), record(), Actions(start=("side",))),
        (pod("Always", SIDECAR), record(run("side")), Actions(start=("app",))),
        (pod("Always", [*SIDECAR, *INIT]), record(run("side"), run("i1", 0)), Actions(start=("i2",))),
        (pod("Always", SIDECAR), record(run("side", 1), run("app")), Actions(start=("side",))),
        (pod("OnFailure", SIDECAR), record(run("side"), run("app", 0)), OVER),
    ],
    ids=[
        "a new pod needs a sandbox",
        "pause is dead: everything anew",
        "pause is dead, but the pod has failed for good",
        "pause is dead, but the pod has succeeded",
        "pause is dead and a container is to be tried again",
        "containers start when there is a sandbox",
        "all is well",
        "Always starts a container that succeeded again",
        "OnFailure leaves it",
        "OnFailure starts one that failed again",
        "Never ends the pod",
        "init containers come first",
        "one at a time",
        "in order",
        "a failed one is tried again",
        "unless the policy is Never",
        "then the containers",
        "in a new sandbox they run again",
        "a sidecar is started like an init container",
        "and need not end",
        "nor hold back the init containers after it",
        "a dead sidecar is started again",
        "sidecars do not keep a finished pod alive",
    ],
)
def test_the_next_action(wanted: Any, held: PodRecord, expected: Actions) -> None:
    assert plan(wanted, held, ProbeView()) == expected


def test_an_ephemeral_container_runs_once_whatever_the_others_do() -> None:
    added = [{"name": "shell", "image": "busybox"}]
    assert plan(pod(ephemeralContainers=added), record(run("app")), ProbeView()) == Actions(start=("shell",))
    initializing = plan(pod("Always", INIT, ephemeralContainers=added), record(run("i1")), ProbeView())
    assert initializing == Actions(start=("shell",))
    assert plan(pod(ephemeralContainers=added), record(run("app"), run("shell", 1)), ProbeView()) == NOTHING
    assert plan(pod("Never", ephemeralContainers=added), record(run("app", 0), run("shell")), ProbeView()) == OVER


def test_several_containers_start_together_in_the_order_of_the_spec() -> None:
    two = [{"name": "b", "image": "nginx"}, {"name": "a", "image": "nginx"}]
    assert plan(pod(containers=two), record(), ProbeView()).start == ("b", "a")


@pytest.mark.parametrize(
    ("view", "policy", "expected"),
    [
        (ProbeView(alive={"app": False}), "Always", "Container app failed liveness probe, will be restarted"),
        (ProbeView(alive={"app": False}), "Never", "Container app failed liveness probe"),
        (ProbeView(started={"app": False}), "Always", "Container app failed startup probe, will be restarted"),
    ],
    ids=["liveness", "liveness under Never", "startup"],
)
def test_probes_kill(view: ProbeView, policy: str, expected: str) -> None:
    container = [{"name": "app", "image": "nginx", "startupProbe": {"exec": {}}}]
    found = plan(pod(policy, containers=container), record(run("app")), view)
    assert [kill.message for kill in found.kill] == [expected]


def test_a_readiness_probe_never_kills() -> None:
    assert plan(pod(), record(run("app")), ProbeView(ready={"app": False})) == NOTHING


def test_a_new_image_replaces_the_container() -> None:
    found = plan(pod(containers=[{"name": "app", "image": "nginx:2"}]), record(run("app")), ProbeView())
    assert found.kill == (Kill("app", "Container app definition changed, will be restarted"),)


def test_a_sidecar_with_a_startup_probe_holds_the_containers_back() -> None:
    sidecar = [{"name": "side", "image": "nginx", "restartPolicy": "Always", "startupProbe": {"exec": {}}}]
    held = record(run("side"))
    assert plan(pod(init=sidecar), held, ProbeView()) == NOTHING
    assert plan(pod(init=sidecar), held, ProbeView(started={"side": True})).start == ("app",)


def test_the_deadline_counts_from_the_start_time() -> None:
    found = deadline(pod(activeDeadlineSeconds=5), {"startTime": "2026-01-01T00:00:00Z"})
    assert found.at == 1767225605.0
    assert deadline(pod(), {"startTime": "2026-01-01T00:00:00Z"}).at is None
