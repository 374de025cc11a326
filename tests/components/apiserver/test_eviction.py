"""Evictions obey the budgets of their pods, and say why when they cannot."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import PODDISRUPTIONBUDGETS, PODS
from tests.components.apiserver.conftest import Run

_NUMBERS = itertools.count()
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


class Evicted:
    """A pod with budgets of the given spec and status, and what its eviction answered."""

    def __init__(self, run: Run, *budgets: Any, ready: bool = True, phase: str = "Running", grace: int = 30) -> None:
        self.name = f"evicted-{next(_NUMBERS)}"
        self.answer: dict[str, Any] = {}
        self.run, self.budgets, self.ready, self.phase, self.grace = run, budgets, ready, phase, grace
        self.pod, self.left = run(self._act)

    async def _act(self, client: Client) -> Any:
        metadata: Any = {"name": self.name, "namespace": "default", "labels": {"app": self.name}}
        container = {"name": "c", "image": "i"}
        spec: Any = {"containers": [container], "nodeName": "n", "terminationGracePeriodSeconds": self.grace}
        made: Any = {"metadata": metadata, "spec": spec}
        await client.create(PODS, made)
        conditions = [{"type": "Ready", "status": "True" if self.ready else "False"}]
        status = {"status": {"phase": self.phase, "conditions": conditions}}
        await client.patch(PODS, self.name, status, "default", subresource="status")
        for number, (more, state) in enumerate(self.budgets):
            budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": self.name}}, **more}
            name = f"{self.name}-{number}"
            await client.create(
                PODDISRUPTIONBUDGETS, {"metadata": {"name": name, "namespace": "default"}, "spec": budget}
            )
            await client.patch(PODDISRUPTIONBUDGETS, name, {"status": state}, "default", subresource="status")
        try:
            await client.create(PODS, {"metadata": metadata}, subresource="eviction")
        except ApiError as error:
            self.answer = error.body
        pod = next((item for item in (await client.list(PODS, "default")).items if _named(item, self.name)), None)
        budgets = list((await client.list(PODDISRUPTIONBUDGETS, "default")).items)
        return pod, [item["status"] for item in budgets if item["metadata"]["name"].startswith(f"{self.name}-")]


def _named(item: Any, name: str) -> bool:
    return bool(item["metadata"]["name"] == name)


def state(allowed: int, current: int = 1, desired: int = 1, observed: int = 1, **more: Any) -> dict[str, Any]:
    counts = {"disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": desired}
    return {**counts, "expectedPods": 1, "observedGeneration": observed, **more}


def test_an_evicted_pod_says_that_it_is_the_target_of_a_disruption(run: Run) -> None:
    evicted = Evicted(run)
    assert evicted.answer == {}
    assert evicted.pod["metadata"]["deletionTimestamp"]
    (target,) = (item for item in evicted.pod["status"]["conditions"] if item["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")
    assert target["message"] == "Eviction API: evicting"


def test_an_eviction_takes_a_disruption(run: Run) -> None:
    conditions = [
        {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": ""}
        | {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
    ]
    evicted = Evicted(run, ({}, state(1, 2, conditions=conditions)))
    assert evicted.answer == {}
    (left,) = evicted.left
    assert left["disruptionsAllowed"] == 0
    assert list(left["disruptedPods"]) == [evicted.name]
    assert (left["conditions"][0]["status"], left["conditions"][0]["reason"]) == ("False", "InsufficientPods")


FAILED = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no controllers"}


@pytest.mark.parametrize(
    ("status", "cause", "retry"),
    [
        pytest.param(
            state(0), "The disruption budget {} needs 1 healthy pods and has 1 currently", None, id="none is left"
        ),
        pytest.param(
            state(1, observed=0),
            "The disruption budget {} is still being processed by the server.",
            10,
            id="the controller has not seen the budget",
        ),
        pytest.param(
            state(0, conditions=[FAILED | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]),
            "The disruption budget {} does not allow evicting pods currently because it failed sync: no controllers",
            None,
            id="the controller could not count",
        ),
    ],
)
def test_a_refusal_says_why(run: Run, status: Any, cause: str, retry: int | None) -> None:
    evicted = Evicted(run, ({}, status))
    answer = evicted.answer
    assert (answer["code"], answer["reason"], answer["message"]) == (429, "TooManyRequests", REFUSED)
    message = cause.format(f"{evicted.name}-0")
    assert answer["details"]["causes"] == [{"reason": "DisruptionBudget", "message": message}]
    assert answer["details"].get("retryAfterSeconds") == retry
    assert "deletionTimestamp" not in evicted.pod["metadata"]


def test_a_pod_with_two_budgets_cannot_be_evicted(run: Run) -> None:
    evicted = Evicted(run, ({}, state(1)), ({}, state(1)))
    text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    assert (evicted.answer["code"], evicted.answer["message"]) == (500, text)


@pytest.mark.parametrize(
    ("more", "status", "ready", "phase", "goes"),
    [
        pytest.param({}, state(0, 1, 1), False, "Running", True, id="an unhealthy pod, as the others suffice"),
        pytest.param({}, state(0, 0, 1), False, "Running", False, id="not when the budget is not healthy"),
        pytest.param(
            {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
            state(0, 0, 1),
            False,
            "Running",
            True,
            id="always with AlwaysAllow",
        ),
        pytest.param(
            {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
            state(0, 0, 1),
            True,
            "Running",
            False,
            id="AlwaysAllow is not for healthy pods",
        ),
        pytest.param({}, state(0), False, "Pending", True, id="a pod that does not run yet"),
        pytest.param({}, state(0), False, "Failed", True, id="a pod that has ended"),
    ],
)
def test_pods_that_go_without_being_counted(
    run: Run, more: Any, status: Any, ready: bool, phase: str, goes: bool
) -> None:
    evicted = Evicted(run, (more, status), ready=ready, phase=phase)
    assert (evicted.answer == {}) is goes
    assert evicted.left[0].get("disruptedPods") is None


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_old_clients_may_name_the_old_version(run: Run, version: str) -> None:
    name = f"evicted-{next(_NUMBERS)}"
    metadata = {"name": name, "namespace": "default"}
    pod: Any = {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {"apiVersion": f"policy/{version}", "kind": "Eviction", "metadata": metadata}

    async def act(client: Client) -> Any:
        await client.create(PODS, pod)
        await client.request("POST", f"/api/v1/namespaces/default/pods/{name}/eviction", body=body)
        return [item["metadata"]["name"] for item in (await client.list(PODS, "default")).items]

    assert name not in run(act), "a pod without a node goes at once"


def test_a_dry_run_evicts_nothing_and_takes_no_disruption(run: Run) -> None:
    name = f"evicted-{next(_NUMBERS)}"
    metadata: Any = {"name": name, "namespace": "default", "labels": {"app": name}}
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    pod: Any = {"metadata": metadata, "spec": spec}
    budget = {"minAvailable": 0, "selector": {"matchLabels": {"app": name}}}
    path = f"/api/v1/namespaces/default/pods/{name}/eviction"

    async def act(client: Client) -> Any:
        await client.create(PODS, pod)
        running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await client.patch(PODS, name, {"status": running}, "default", subresource="status")
        await client.create(PODDISRUPTIONBUDGETS, {"metadata": metadata, "spec": budget})
        await client.patch(PODDISRUPTIONBUDGETS, name, {"status": state(1)}, "default", subresource="status")
        await client.request("POST", path, params={"dryRun": "All"}, body={"metadata": {"name": name}})
        return await client.get(PODS, name, "default"), await client.get(PODDISRUPTIONBUDGETS, name, "default")

    standing, left = run(act)
    assert "deletionTimestamp" not in standing["metadata"]
    assert [item["type"] for item in standing["status"]["conditions"]] == ["Ready"]
    assert left["status"]["disruptionsAllowed"] == 1
