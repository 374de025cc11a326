"""The columns of a pod: NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE, READINESS GATES
(printPod of k8s.io/kubernetes/pkg/printers/internalversion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.duration import human_duration, parse_time
from kubewire.components.apiserver.kinds.spec import Column
from kubewire.components.kubeapi.resources import KubeObject

COLUMNS = (
    cells.NAME,
    Column(
        "Ready",
        "string",
        "",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column("Status", "string", "", "The aggregate status of the containers in this pod."),
    Column(
        "Restarts",
        "string",
        "",
        "The number of container restarts, and the time of the last one.",
    ),
    cells.AGE,
    Column("IP", "string", "", "The pod's first address.", 1),
    Column("Node", "string", "", "The node on which the pod runs.", 1),
    Column(
        "Nominated Node",
        "string",
        "",
        "The node on which preemption makes room for the pod.",
        1,
    ),
    Column("Readiness Gates", "string", "", "The number of readiness gates that are true.", 1),
)


@dataclass(frozen=True)
class _Containers:
    """A summary of one list of container statuses; reason "" leaves the pod's reason as it is."""

    reason: str = ""
    ready: int = 0
    restarts: int = 0
    last_restart: datetime | None = None
    failure: str = ""


def row(pod: KubeObject, now: datetime) -> list[Any]:
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    init = _init_containers(spec, status)
    sidecars = _sidecars(spec)
    main = _Containers()
    if not init.reason or _condition(status, "Initialized") == "True":
        main = _main_containers(status)
        statuses = status.get("initContainerStatuses") or ()
        counted = _restarts([item for item in statuses if item.get("name", "") in sidecars])
        restarts = main.restarts + counted.restarts
        last = _later(main.last_restart, counted.last_restart)
    else:
        restarts = init.restarts
        last = init.last_restart
    total = len(spec.get("containers") or ()) + len(sidecars)
    text = str(restarts)
    if restarts and last:
        text += f" ({human_duration((now - last).total_seconds())} ago)"
    return [
        cells.name(pod),
        f"{init.ready + main.ready}/{total}",
        _reason(pod, status, init, main),
        text,
        cells.age(pod, now),
        _address(status) or cells.NONE,
        spec.get("nodeName") or cells.NONE,
        status.get("nominatedNodeName") or cells.NONE,
        _gates(spec, status),
    ]


def _sidecars(spec: Mapping[str, Any]) -> set[str]:
    return {
        container["name"]
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }


def _reason(
    pod: KubeObject,
    status: Mapping[str, Any],
    init: _Containers,
    main: _Containers,
) -> str:
    phase = status.get("phase") or ""
    reason = status.get("reason") or phase
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    reason = main.reason or init.reason or reason
    if reason == "Completed":
        reason = _completed(status, main)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    return reason


def _completed(status: Mapping[str, Any], main: _Containers) -> str:
    """The reason when a container has completed; the other containers decide."""
    if main.ready and _condition(status, "Ready") == "True":
        return "Running"
    return main.failure or ("NotReady" if main.ready else "Completed")


def _init_containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> _Containers:
    """Reads up to the first init container that is not done; its state becomes `Init:...`."""
    sidecars = _sidecars(spec)
    seen = []
    ready = 0
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        seen.append(container)
        terminated = cells.at(container, "state", "terminated")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if container.get("name", "") in sidecars and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        counted = _restarts(seen)
        reason = _init_reason(container, index, len(spec.get("initContainers") or ()))
        return _Containers(reason, ready, counted.restarts, counted.last_restart)
    counted = _restarts(seen)
    return _Containers("", ready, counted.restarts, counted.last_restart)


def _init_reason(container: Mapping[str, Any], index: int, total: int) -> str:
    terminated = cells.at(container, "state", "terminated")
    if terminated is not None:
        return "Init:" + _end(terminated)
    waiting = cells.at(container, "state", "waiting", "reason")
    if waiting and waiting != "PodInitializing":
        return f"Init:{waiting}"
    return f"Init:{index}/{total}"


def _main_containers(status: Mapping[str, Any]) -> _Containers:
    statuses = status.get("containerStatuses") or ()
    reason = ""
    failure = ""
    ready = 0
    for container in reversed(statuses):
        state = container.get("state") or {}
        if cells.at(state, "waiting", "reason"):
            reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            reason = _end(state["terminated"])
            failure = reason if state["terminated"].get("exitCode") else failure
        elif container.get("ready") and state.get("running") is not None:
            ready += 1
    counted = _restarts(statuses)
    return _Containers(reason, ready, counted.restarts, counted.last_restart, failure)


def _end(terminated: Mapping[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _restarts(statuses: Sequence[Mapping[str, Any]]) -> _Containers:
    last = None
    for container in statuses:
        last = _later(
            last,
            parse_time(cells.at(container, "lastState", "terminated", "finishedAt")),
        )
    return _Containers(
        restarts=sum(container.get("restartCount", 0) for container in statuses),
        last_restart=last,
    )


def _later(first: datetime | None, second: datetime | None) -> datetime | None:
    return max(filter(None, (first, second)), default=None)


def _condition(status: Mapping[str, Any], kind: str) -> str:
    conditions = status.get("conditions") or ()
    return next((item.get("status", "") for item in conditions if item.get("type") == kind), "")


def _address(status: Mapping[str, Any]) -> str:
    addresses = status.get("podIPs") or ()
    return str(addresses[0].get("ip", "") if addresses else status.get("podIP", ""))


def _gates(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return cells.NONE
    types = [gate.get("conditionType", "") for gate in gates]
    true = sum(_condition(status, condition_type) == "True" for condition_type in types)
    return f"{true}/{len(gates)}"
