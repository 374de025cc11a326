"""Plans one round of a HorizontalPodAutoscaler: the number of replicas, conditions and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Emit, Update
from kubewire.components.controllers.autoscaling import replicas
from kubewire.components.controllers.autoscaling.limits import History, limit, rules
from kubewire.components.controllers.autoscaling.replicas import MetricProblem, Proposal
from kubewire.components.controllers.flags import Autoscaling
from kubewire.components.controllers.meta import format_time
from kubewire.components.kubeapi.quantity import milli_value, parse_quantity
from kubewire.components.kubeapi.resources import HORIZONTALPODAUTOSCALERS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import HorizontalPodAutoscaler, Pod

_KEYS = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


@dataclass(frozen=True)
class Target:
    """The scaled object: replicas as its scale subresource says, its pods and their metrics.

    metrics is None when there is no answer, and problem says why.
    """

    replicas: int
    pods: Sequence[Pod]
    metrics: Sequence[Mapping[str, Any]] | None
    problem: str = ""


@dataclass(frozen=True)
class Round:
    """rescale is the new number of replicas, or None to leave it."""

    actions: tuple[Action, ...]
    history: History
    rescale: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Wanted:
    """What the metrics ask for, by which one, and what the status shows of them."""

    replicas: int
    name: str
    statuses: tuple[Mapping[str, Any], ...]


class _Status:
    """The status in the making."""

    def __init__(self, hpa: HorizontalPodAutoscaler, now: datetime) -> None:
        self._hpa = hpa
        self._now = now
        held: Any = hpa.get("status") or {}
        self.fields: dict[str, Any] = {
            key: item for key, item in held.items() if key != "conditions"
        }
        self._conditions: dict[str, Any] = {
            item["type"]: item for item in held.get("conditions") or []
        }

    def condition(self, kind: str, value: str, reason: str, message: str) -> None:
        before = self._conditions.get(kind)
        since = format_time(self._now)
        if before is not None and before["status"] == value:
            since = before.get("lastTransitionTime", since)
        fresh = {"type": kind, "status": value, "reason": reason, "message": message}
        self._conditions[kind] = {**fresh, "lastTransitionTime": since}

    def write(self) -> tuple[Action, ...]:
        status = {
            **self.fields,
            "observedGeneration": self._hpa["metadata"].get("generation", 0),
            "conditions": list(self._conditions.values()),
        }
        if status == self._hpa.get("status"):
            return ()
        fresh: Any = {**self._hpa, "status": status}
        return (Update(HORIZONTALPODAUTOSCALERS, fresh, "status"),)


def no_target(hpa: HorizontalPodAutoscaler, error: str, now: datetime) -> tuple[Action, ...]:
    """The scale of the target cannot be read."""
    status = _Status(hpa, now)
    text = f"the HPA controller was unable to get the target's current scale: {error}"
    status.condition("AbleToScale", "False", "FailedGetScale", text)
    return (Emit(hpa, "Warning", "FailedGetScale", error), *status.write())


def plan(
    hpa: HorizontalPodAutoscaler,
    target: Target,
    history: History,
    now: datetime,
    flags: Autoscaling = Autoscaling(),  # noqa: B008
) -> Round:
    spec = hpa["spec"]
    status = _Status(hpa, now)
    current = target.replicas
    least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    text = "the HPA controller was able to get the target's current scale"
    status.condition("AbleToScale", "True", "SucceededGetScale", text)
    status.fields |= {"currentReplicas": current}
    if current == 0 and least != 0:
        text = "scaling is disabled since the replica count of the target is zero"
        status.condition("ScalingActive", "False", "ScalingDisabled", text)
        status.fields["desiredReplicas"] = 0
        return Round(status.write(), history)
    if current > most:
        return _rescaled(
            hpa,
            status,
            history,
            current,
            most,
            "Current number of replicas above Spec.MaxReplicas",
            now,
        )
    if current < least:
        return _rescaled(
            hpa,
            status,
            history,
            current,
            least,
            "Current number of replicas below Spec.MinReplicas",
            now,
        )
    try:
        wanted = _wanted(hpa, target, now, flags)
    except _Failure as failure:
        message = f"the HPA was unable to compute the replica count: {failure}"
        status.condition("ScalingActive", "False", failure.reason, message)
        status.fields |= {"desiredReplicas": current}
        events = (
            Emit(hpa, "Warning", failure.reason, str(failure)),
            Emit(hpa, "Warning", "FailedComputeMetricsReplicas", failure.summary),
        )
        return Round((*events, *status.write()), history)
    text = f"the HPA was able to successfully calculate a replica count from {wanted.name}"
    status.condition("ScalingActive", "True", "ValidMetricFound", text)
    status.fields["currentMetrics"] = list(wanted.statuses)
    limited = limit(spec, current, wanted.replicas, history, now, flags.downscale_stabilization)
    status.condition("AbleToScale", "True", *limited.able)
    status.condition("ScalingLimited", *limited.limited)
    remembered = history.recommended(wanted.replicas, now)
    reason = "All metrics below target"
    if wanted.replicas > current:
        reason = f"{wanted.name} above target"
    return _rescaled(hpa, status, remembered, current, limited.replicas, reason, now)


def _rescaled(
    hpa: HorizontalPodAutoscaler,
    status: _Status,
    history: History,
    current: int,
    desired: int,
    reason: str,
    now: datetime,
) -> Round:
    status.fields["desiredReplicas"] = desired
    if desired == current:
        return Round(status.write(), history)
    text = f"the HPA controller was able to update the target scale to {desired}"
    status.condition("AbleToScale", "True", "SucceededRescale", text)
    status.fields["lastScaleTime"] = format_time(now)
    event = Emit(hpa, "Normal", "SuccessfulRescale", f"New size: {desired}; reason: {reason}")
    changed = history.changed(desired - current, now)
    return Round((event, *status.write()), changed, desired, reason)


class _Failure(Exception):
    """No metric says what to do."""

    def __init__(self, reason: str, message: str, invalid: int, total: int) -> None:
        super().__init__(message)
        self.reason = reason
        self.summary = (
            f"invalid metrics ({invalid} invalid out of {total}), first error is: {message}"
        )


def _wanted(
    hpa: HorizontalPodAutoscaler, target: Target, now: datetime, flags: Autoscaling
) -> _Wanted:
    """The most that any metric asks for; a metric without a value only forbids to shrink."""
    metrics = hpa["spec"].get("metrics") or []
    best: tuple[int, str] | None = None
    statuses: list[Mapping[str, Any]] = []
    failures: list[tuple[str, str]] = []
    for metric in metrics:
        try:
            proposal, name = _proposal(hpa, metric, target, now, flags)
        except MetricProblem as problem:
            failures.append((f"FailedGet{metric['type']}Metric", str(problem)))
            continue
        statuses.append(_shown(metric, proposal))
        if best is None or proposal.replicas > best[0]:
            best = proposal.replicas, name
    if best is None or (failures and best[0] < target.replicas):
        reason, message = failures[0] if failures else ("FailedGetMetrics", "no metrics")
        raise _Failure(reason, message, len(failures), len(metrics))
    return _Wanted(*best, tuple(statuses))


def _proposal(
    hpa: HorizontalPodAutoscaler,
    metric: Mapping[str, Any],
    target: Target,
    now: datetime,
    flags: Autoscaling,
) -> tuple[Proposal, str]:
    source = metric.get(_KEYS.get(metric["type"], "")) or {}
    if metric["type"] not in ("Resource", "ContainerResource"):
        name = ((source.get("metric") or {}).get("name")) or ""
        api = "external" if metric["type"] == "External" else "custom"
        raise MetricProblem(f"unable to get metric {name}: no {api} metrics API is served here")
    resource, wanted = source["name"], source["target"]
    container = source.get("container", "")
    if target.metrics is None:
        text = f"unable to get metrics for resource {resource}: {target.problem}"
        raise MetricProblem(f"failed to get {resource} utilization: {text}")
    samples = replicas.samples_of(target.metrics, resource, container)
    tolerates = _tolerance(hpa, flags.tolerance)
    start = replicas.Start(flags.cpu_initialization, flags.readiness_delay)
    shown = f"{resource} container resource" if container else f"{resource} resource"
    if wanted.get("averageValue") is not None:
        average = milli_value(wanted["averageValue"])
        proposal = replicas.by_average(
            target.replicas, average, target.pods, samples, resource, tolerates, now, start
        )
        return proposal, shown
    try:
        requests = replicas.requests_of(target.pods, resource, container)
        proposal = replicas.by_utilization(
            target.replicas,
            int(wanted["averageUtilization"]),
            target.pods,
            samples,
            requests,
            resource,
            tolerates,
            now,
            start,
        )
    except MetricProblem as problem:
        raise MetricProblem(f"failed to get {resource} utilization: {problem}") from problem
    return proposal, f"{shown} utilization (percentage of request)"


def _tolerance(hpa: HorizontalPodAutoscaler, default: float) -> Any:
    up, down = (
        float(parse_quantity(rules(hpa["spec"], key).get("tolerance") or str(default)))
        for key in ("scaleUp", "scaleDown")
    )
    return lambda ratio: 1 - down <= ratio <= 1 + up


def _shown(metric: Mapping[str, Any], proposal: Proposal) -> Mapping[str, Any]:
    key = _KEYS[metric["type"]]
    source = metric[key]
    in_cores = source["name"] == "cpu"
    amount = f"{proposal.average}m" if in_cores else str(proposal.average // 1000)
    current: dict[str, Any] = {"averageValue": amount}
    if proposal.utilization is not None:
        current["averageUtilization"] = proposal.utilization
    body = {"name": source["name"], "current": current}
    if "container" in source:
        body["container"] = source["container"]
    return {"type": metric["type"], key: body}
