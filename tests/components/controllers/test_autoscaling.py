"""How many replicas a HorizontalPodAutoscaler wants, how fast it gets there, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kubewire.components.controllers.actions import Emit, Update
from kubewire.components.controllers.autoscaling.limits import History
from kubewire.components.controllers.autoscaling.plan import Round, Target, no_target, plan
from kubewire.components.controllers.flags import Autoscaling, parse
from tests.components.controllers.objects import NOW, at, pod, stamp


def autoscaler(metrics: Any = None, **spec: Any) -> Any:
    target = {"type": "Utilization", "averageUtilization": 50}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    body = {"minReplicas": 1, "maxReplicas": 10, "metrics": metrics or [cpu], **spec}
    body["scaleTargetRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    metadata = {"name": "web", "namespace": "default", "uid": "uid-hpa", "generation": 1}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": body}


def member(name: str, request: str | None = "100m", **given: Any) -> Any:
    requests = {"cpu": request} if request else {}
    container = {"name": "c", "resources": {"requests": requests}}
    item = pod(name, spec={"containers": [container]}, ready_since=at(-3600), **given)
    item["status"]["startTime"] = stamp(at(-3600))
    return item


def metric(name: str, cpu: str) -> Any:
    metadata = {"name": name}
    usage = {"cpu": cpu, "memory": "10Mi"}
    return {"metadata": metadata, "timestamp": stamp(), "window": "10s", "containers": [{"name": "c", "usage": usage}]}


def decide(
    used: Mapping[str, str | None],
    hpa: Any = None,
    history: History = History(),  # noqa: B008
    replicas: int | None = None,
    now: Any = NOW,
    flags: Autoscaling = Autoscaling(),  # noqa: B008
    **pods: Any,
) -> Round:
    """used is the processor time of each pod, None of one without metrics; pods replace members."""
    members = [pods.get(name) or member(name) for name in used]
    metrics = [metric(name, cpu) for name, cpu in used.items() if cpu is not None]
    count = len(members) if replicas is None else replicas
    return plan(hpa or autoscaler(), Target(count, members, metrics), history, now, flags)


def conditions(step: Round) -> dict[str, str]:
    (update,) = [action for action in step.actions if isinstance(action, Update)]
    return {item["type"]: item["reason"] for item in update.obj["status"]["conditions"]}


def events(step: Round) -> list[str]:
    return [f"{action.reason}: {action.message}" for action in step.actions if isinstance(action, Emit)]


LATE = member("b", ready=False)
LATE["status"]["startTime"] = stamp(at(-10))


@pytest.mark.parametrize(
    ("used", "pods", "expected"),
    [
        ({"a": "100m", "b": "100m"}, {}, 4),
        ({"a": "54m", "b": "54m"}, {}, None),
        ({"a": "150m", "b": None}, {}, 3),
        ({"a": "150m", "b": "1m"}, {"b": LATE}, 3),
        ({"a": "60m", "b": None}, {}, None),
        ({"a": "200m", "b": "200m"}, {"b": member("b", deleting=True)}, 4),
    ],
    ids=[
        "twice the target",
        "within the tolerance",
        "a pod without metrics counts as idle",
        "a pod that is not ready counts as idle",
        "and keeps it as it is where that turns the answer",
        "a pod that is being deleted does not count",
    ],
)
def test_growth(used: Any, pods: Any, expected: int | None) -> None:
    assert decide(used, **pods).rescale == expected


def test_it_says_why_it_grows_and_shows_what_it_saw() -> None:
    step = decide({"a": "100m", "b": "100m"})
    assert events(step) == [
        "SuccessfulRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target"
    ]
    assert conditions(step) == {
        "AbleToScale": "SucceededRescale",
        "ScalingActive": "ValidMetricFound",
        "ScalingLimited": "DesiredWithinRange",
    }
    (update,) = [action for action in step.actions if isinstance(action, Update)]
    status = update.obj["status"]
    assert (status["currentReplicas"], status["desiredReplicas"]) == (2, 4)
    assert status["currentMetrics"] == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageUtilization": 100, "averageValue": "100m"}},
        }
    ]


def test_it_shrinks_only_to_the_most_of_the_last_five_minutes() -> None:
    used = dict.fromkeys("abcd", "10m")
    before = History().recommended(4, at(-100))
    step = decide(used, history=before)
    assert step.rescale is None
    assert conditions(step)["AbleToScale"] == "ScaleDownStabilized"
    later = decide(used, history=step.history, now=at(201))
    assert later.rescale == 1
    assert events(later) == ["SuccessfulRescale: New size: 1; reason: All metrics below target"]


def test_it_at_most_doubles_without_a_behavior() -> None:
    step = decide(dict.fromkeys("abc", "1"), autoscaler(maxReplicas=100))
    assert step.rescale == 6
    assert conditions(step)["ScalingLimited"] == "ScaleUpLimit"


@pytest.mark.parametrize(
    ("rules", "changes", "expected"),
    [
        ({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}, (), 4),
        ({"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}, ((at(-30), 1),), 4),
        ({"policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}, (), 5),
        ({"selectPolicy": "Disabled"}, (), None),
        ({"tolerance": "30"}, (), None),
    ],
    ids=["pods in a period", "what was added already counts", "percent", "disabled", "tolerance"],
)
def test_the_policies_of_scaling_up(rules: Any, changes: Any, expected: int | None) -> None:
    hpa = autoscaler(behavior={"scaleUp": rules}, maxReplicas=100)
    assert decide(dict.fromkeys("abc", "1"), hpa, History(changes=changes)).rescale == expected


def test_a_window_of_scaling_down_replaces_the_five_minutes() -> None:
    hpa = autoscaler(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    used = dict.fromkeys("abcd", "10m")
    assert decide(used, hpa, History().recommended(4, at(-100))).rescale == 1


@pytest.mark.parametrize(
    ("replicas", "spec", "expected", "reason"),
    [
        (12, {}, 10, "Current number of replicas above Spec.MaxReplicas"),
        (1, {"minReplicas": 2}, 2, "Current number of replicas below Spec.MinReplicas"),
        (0, {}, None, ""),
    ],
    ids=["too many", "too few", "none, which disables it"],
)
def test_the_range(replicas: int, spec: Any, expected: int | None, reason: str) -> None:
    step = decide({"a": "50m"}, autoscaler(**spec), replicas=replicas)
    assert (step.rescale, step.reason) == (expected, reason)
    if expected is None:
        assert conditions(step)["ScalingActive"] == "ScalingDisabled"


def test_a_container_without_a_request_is_named() -> None:
    step = decide({"a": "50m"}, a=member("a", None))
    message = "failed to get cpu utilization: missing request for cpu in container c of Pod a"
    assert events(step)[0] == f"FailedGetResourceMetric: {message}"
    assert events(step)[1].endswith(f"invalid metrics (1 invalid out of 1), first error is: {message}")
    assert (step.rescale, conditions(step)["ScalingActive"]) == (None, "FailedGetResourceMetric")


MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "5Mi"}}}
EXTERNAL = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}}


def test_an_average_value_and_the_most_of_several_metrics() -> None:
    cpu = autoscaler()["spec"]["metrics"][0]
    step = decide({"a": "50m", "b": "50m"}, autoscaler([cpu, MEMORY]))
    assert step.rescale == 4


def test_a_metric_without_a_value_only_forbids_to_shrink() -> None:
    cpu = autoscaler()["spec"]["metrics"][0]
    assert decide({"a": "100m"}, autoscaler([cpu, EXTERNAL])).rescale == 2
    step = decide(dict.fromkeys("ab", "1m"), autoscaler([cpu, EXTERNAL]))
    assert (step.rescale, conditions(step)["ScalingActive"]) == (None, "FailedGetExternalMetric")


def test_a_target_that_is_not_there() -> None:
    emitted, update = no_target(autoscaler(), 'deployments.apps "web" not found', NOW)
    assert isinstance(emitted, Emit) and emitted.reason == "FailedGetScale"
    assert isinstance(update, Update)
    assert update.obj["status"]["conditions"][0]["reason"] == "FailedGetScale"


def test_a_round_that_changes_nothing_writes_nothing() -> None:
    hpa = autoscaler()
    first = decide({"a": "50m"}, hpa)
    (update,) = first.actions
    assert isinstance(update, Update)
    assert decide({"a": "50m"}, update.obj, first.history).actions == ()


def started(seconds: float, *, ready: bool, changed: float) -> Any:
    """A pod that started so many seconds ago, and whose condition Ready changed so many ago."""
    item = member("a")
    item["status"]["startTime"] = stamp(at(-seconds))
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": stamp(at(-changed))}
    item["status"]["conditions"] = [condition]
    return item


@pytest.mark.parametrize(
    ("flags", "rescale"),
    [
        pytest.param(Autoscaling(), 2, id="out of the default tolerance"),
        pytest.param(Autoscaling(tolerance=0.2), None, id="within the tolerance given"),
    ],
)
def test_the_tolerance_is_a_flag(flags: Autoscaling, rescale: int | None) -> None:
    assert decide({"a": "58m"}, flags=flags).rescale == rescale


@pytest.mark.parametrize(
    ("flags", "rescale"),
    [
        pytest.param(Autoscaling(), None, id="a minute ago is in the default window"),
        pytest.param(Autoscaling(downscale_stabilization=30), 1, id="it is not in half a minute"),
    ],
)
@pytest.mark.parametrize("spec", [{}, {"behavior": {"scaleDown": {"selectPolicy": "Max"}}}], ids=["plain", "behavior"])
def test_the_window_of_shrinking_is_a_flag(flags: Autoscaling, rescale: int | None, spec: Any) -> None:
    history = History(recommendations=((at(-60), 2),))
    assert decide({"a": "10m", "b": "10m"}, autoscaler(**spec), history, flags=flags).rescale == rescale


@pytest.mark.parametrize(
    ("a", "flags", "rescale"),
    [
        pytest.param(started(60, ready=False, changed=50), Autoscaling(), False, id="an unready pod that starts"),
        pytest.param(
            started(60, ready=False, changed=10),
            Autoscaling(cpu_initialization=30),
            True,
            id="it has started by the flag",
        ),
        pytest.param(
            started(400, ready=False, changed=380), Autoscaling(), False, id="never ready within the readiness delay"
        ),
        pytest.param(
            started(400, ready=False, changed=380),
            Autoscaling(readiness_delay=10),
            True,
            id="ready before, by the flag",
        ),
    ],
)
def test_when_the_use_of_a_starting_pod_counts_is_a_flag(a: Any, flags: Autoscaling, rescale: bool) -> None:
    step = decide({"a": "100m"}, flags=flags, a=a)
    assert (step.rescale is not None) == rescale


def test_the_flags_are_read() -> None:
    prefix = "--horizontal-pod-autoscaler"
    given = [
        f"{prefix}-sync-period=5s",
        f"{prefix}-downscale-stabilization=1m",
        f"{prefix}-cpu-initialization-period=2m",
        f"{prefix}-initial-readiness-delay=10s",
        f"{prefix}-tolerance=0.2",
    ]
    options = parse(["--kubeconfig=x", *given])
    assert options.autoscaling == Autoscaling(5, 60, 120, 10, 0.2)
    assert parse(["--kubeconfig=x"]).autoscaling == Autoscaling()
