"""Computes status.phase from the container statuses
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, ContainerStatus, Pod

Statuses = Sequence["ContainerStatus"]


def phase(pod: Pod, init_statuses: Statuses, statuses: Statuses, *, terminal: bool) -> str:
    """Pending, Running, Succeeded or Failed. terminal: no container will be started again."""
    if not pods.containers(pod):
        return "Failed"
    init = _init_counts(pod, init_statuses)
    own = _counts(pods.containers(pod), statuses)
    policy = pods.restart_policy(pod)
    if init["failed"] and (policy == "Never" or terminal):
        return "Failed"
    if init["pending"] or init["failed"]:
        return "Pending"
    if own["waiting"] or own["unknown"]:
        return "Failed" if terminal and not own["running"] and own["stopped"] else "Pending"
    if own["running"] or init["running"]:
        return "Running"
    return _all_stopped(policy, own["stopped"] == own["succeeded"], terminal)


def _all_stopped(policy: str, succeeded: bool, terminal: bool) -> str:
    if terminal:
        return "Succeeded" if succeeded else "Failed"
    if policy == "Always":
        return "Running"
    if succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _counts(containers: Sequence[Container], statuses: Statuses) -> Counter[str]:
    by_name = {status["name"]: status for status in statuses}
    counts: Counter[str] = Counter()
    for item in containers:
        status = by_name.get(item["name"])
        if status is None:
            counts["unknown"] += 1
            continue
        state = status["state"]
        last = status.get("lastState") or {}
        if "running" in state:
            counts["running"] += 1
        elif "terminated" in state:
            counts["stopped"] += 1
            counts["succeeded"] += state["terminated"]["exitCode"] == 0
        elif "terminated" in last:
            # The container waits for a restart. The pod has run, so it is not Pending.
            counts["stopped"] += 1
        else:
            counts["waiting"] += 1
    return counts


def _init_counts(pod: Pod, statuses: Statuses) -> Counter[str]:
    by_name = {status["name"]: status for status in statuses}
    counts: Counter[str] = Counter()
    regular_started = _any_regular_started(pod)
    for item in pods.init_containers(pod):
        status = by_name.get(item["name"])
        state = status["state"] if status else {}
        last = (status.get("lastState") if status else None) or {}
        if pods.is_sidecar(item):
            counts["running"] += "running" in state
            counts["pending"] += not regular_started and not (status and status.get("started"))
        elif "terminated" in state:
            counts["failed"] += state["terminated"]["exitCode"] != 0
        elif "terminated" in last and last["terminated"]["exitCode"] != 0:
            counts["failed"] += 1
        else:
            counts["pending"] += 1
    return counts


def _any_regular_started(pod: Pod) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any(status.get("containerID") for status in statuses)
