"""Computes the container statuses from the records and the probe verdicts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, ProbeView

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Container,
        ContainerStateTerminated,
        ContainerStateWaiting,
        ContainerStatus,
        Pod,
    )


def container_statuses(
    pod: Pod,
    record: PodRecord,
    probes: ProbeView,
) -> list[ContainerStatus]:
    """The statuses of the app containers, sorted by name as upstream does."""
    initialized = initialization_done(pod, record, probes) or not pods.init_containers(pod)
    reason = "ContainerCreating" if initialized else "PodInitializing"
    statuses = [_status(item, record, probes, reason, init=False) for item in pods.containers(pod)]
    return sorted(statuses, key=lambda status: str(status["name"]))


def init_container_statuses(
    pod: Pod,
    record: PodRecord,
    probes: ProbeView,
) -> list[ContainerStatus]:
    """The statuses of the init containers, in the order in which they run."""
    items = pods.init_containers(pod)
    return [_status(item, record, probes, "PodInitializing", init=True) for item in items]


def ephemeral_container_statuses(
    pod: Pod,
    record: PodRecord,
    probes: ProbeView,
) -> list[ContainerStatus]:
    """The statuses of the ephemeral containers, which are never ready."""
    items = pods.ephemeral_containers(pod)
    statuses = [_status(item, record, probes, "ContainerCreating", init=False) for item in items]
    for status in statuses:
        del status["started"]
        status["ready"] = False
    return statuses


def initialization_done(pod: Pod, record: PodRecord, probes: ProbeView) -> bool:
    """Whether app containers may start: all init containers have succeeded and all sidecars
    started.

    It is also true if an app container has run.
    """
    if any(item["name"] in record.current for item in pods.containers(pod)):
        return True
    return all(_init_done(item, record, probes) for item in pods.init_containers(pod))


def _init_done(item: Container, record: PodRecord, probes: ProbeView) -> bool:
    current = record.current.get(item["name"])
    if current is None:
        return False
    return started(item, current, probes) if pods.is_sidecar(item) else current.succeeded


def started(item: Container, current: ContainerRecord | None, probes: ProbeView) -> bool:
    """Whether a container runs, and its startup probe, if it has one, has succeeded."""
    if current is None or not current.running:
        return False
    return not item.get("startupProbe") or probes.started.get(item["name"]) is True


def ready(item: Container, current: ContainerRecord | None, probes: ProbeView) -> bool:
    """Whether a container is started, and its readiness probe, if it has one, has succeeded."""
    if not started(item, current, probes):
        return False
    return not item.get("readinessProbe") or probes.ready.get(item["name"]) is True


def _status(
    item: Container,
    record: PodRecord,
    probes: ProbeView,
    default_reason: str,
    *,
    init: bool,
) -> ContainerStatus:
    name = item["name"]
    current = record.current.get(name)
    waiting = record.waiting.get(name)
    previous = record.previous.get(name)
    long_running = not init or pods.is_sidecar(item)
    is_ready = ready(item, current, probes) if long_running else bool(current and current.succeeded)
    status: ContainerStatus = {
        "name": name,
        "state": {},
        "lastState": {"terminated": terminated(previous)} if previous else {},
        "ready": is_ready,
        "restartCount": current.attempt if current else 0,
        "image": item.get("image", ""),
        "imageID": current.image_id if current else "",
        "started": started(item, current, probes),
    }
    if current is not None:
        status["containerID"] = current.container_id
    if current is not None and current.running:
        status["state"] = {"running": {"startedAt": pods.format_time(current.started_at)}}
    elif waiting is not None:
        # While a container waits for its next start, lastState shows how its last run ended.
        status["state"] = {"waiting": _waiting(waiting.reason, waiting.message)}
        if current is not None:
            status["lastState"] = {"terminated": terminated(current)}
    elif current is not None:
        status["state"] = {"terminated": terminated(current)}
    else:
        status["state"] = {"waiting": _waiting(default_reason, "")}
    if item.get("resources"):
        status["resources"] = item["resources"]
        if requests := item["resources"].get("requests"):
            status["allocatedResources"] = requests
    return status


def _waiting(reason: str, message: str) -> ContainerStateWaiting:
    return {"reason": reason, "message": message} if message else {"reason": reason}


def terminated(record: ContainerRecord) -> ContainerStateTerminated:
    """A ContainerStateTerminated. Its exit code for signal N is 128 + N, as in a shell."""
    state: ContainerStateTerminated = {
        "exitCode": record.exit_code if record.exit_code is not None else 137,
        "reason": record.reason or ("Completed" if record.succeeded else "Error"),
        "startedAt": pods.format_time(record.started_at),
        "finishedAt": pods.format_time(record.finished_at),
        "containerID": record.container_id,
    }
    if record.message:
        state["message"] = record.message
    return state
