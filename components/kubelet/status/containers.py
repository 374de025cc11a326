"""status.containerStatuses and initContainerStatuses from records and probe verdicts."""

from __future__ import annotations

from typing import Any

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, ProbeView

ContainerStatus = dict[str, Any]


def container_statuses(pod: KubeObject, record: PodRecord, probes: ProbeView) -> list[ContainerStatus]:
    """Of the app containers, sorted by name as upstream sorts them."""
    initialized = initialization_done(pod, record, probes)
    default = "ContainerCreating" if initialized or not pods.init_containers(pod) else "PodInitializing"
    found = [_status(item, record, probes, default, init=False) for item in pods.containers(pod)]
    return sorted(found, key=lambda status: str(status["name"]))


def init_container_statuses(pod: KubeObject, record: PodRecord, probes: ProbeView) -> list[ContainerStatus]:
    """Of the init containers, in the order in which they run."""
    return [_status(item, record, probes, "PodInitializing", init=True) for item in pods.init_containers(pod)]


def ephemeral_container_statuses(pod: KubeObject, record: PodRecord, probes: ProbeView) -> list[ContainerStatus]:
    """Of the ephemeral containers, which are never ready."""
    found = [_status(item, record, probes, "ContainerCreating", init=False) for item in pods.ephemeral_containers(pod)]
    return [{key: value for key, value in one.items() if key != "started"} | {"ready": False} for one in found]


def initialization_done(pod: KubeObject, record: PodRecord, probes: ProbeView) -> bool:
    """Every init container has succeeded and every sidecar has started; or an app container ran already."""
    if any(item["name"] in record.current for item in pods.containers(pod)):
        return True
    return all(_init_done(item, record, probes) for item in pods.init_containers(pod))


def _init_done(item: pods.Container, record: PodRecord, probes: ProbeView) -> bool:
    current = record.current.get(item["name"])
    if current is None:
        return False
    return started(item, current, probes) if pods.is_sidecar(item) else current.succeeded


def started(item: pods.Container, current: ContainerRecord | None, probes: ProbeView) -> bool:
    """Running, and its startup probe has succeeded where it has one."""
    if current is None or not current.running:
        return False
    return not item.get("startupProbe") or probes.started.get(item["name"]) is True


def ready(item: pods.Container, current: ContainerRecord | None, probes: ProbeView) -> bool:
    """Started, and its readiness probe has succeeded where it has one."""
    if not started(item, current, probes):
        return False
    return not item.get("readinessProbe") or probes.ready.get(item["name"]) is True


def _status(
    item: pods.Container, record: PodRecord, probes: ProbeView, default_reason: str, *, init: bool
) -> ContainerStatus:
    name = item["name"]
    current, waiting = record.current.get(name), record.waiting.get(name)
    previous = record.previous.get(name)
    long_running = not init or pods.is_sidecar(item)
    status: ContainerStatus = {
        "name": name,
        "state": {},
        "lastState": {"terminated": terminated(previous)} if previous else {},
        "ready": ready(item, current, probes) if long_running else bool(current and current.succeeded),
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
        # A container that waits for its next start shows how the last run ended as lastState.
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


def _waiting(reason: str, message: str) -> dict[str, str]:
    return {"reason": reason, "message": message} if message else {"reason": reason}


def terminated(record: ContainerRecord) -> dict[str, Any]:
    """A ContainerStateTerminated. Death by a signal is 128 + its number, as a shell reports it."""
    state: dict[str, Any] = {
        "exitCode": record.exit_code if record.exit_code is not None else 137,
        "reason": record.reason or ("Completed" if record.succeeded else "Error"),
        "startedAt": pods.format_time(record.started_at),
        "finishedAt": pods.format_time(record.finished_at),
        "containerID": record.container_id,
    }
    if record.message:
        state["message"] = record.message
    return state
