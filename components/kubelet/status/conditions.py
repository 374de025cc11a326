"""The pod conditions the kubelet owns, with upstream's reasons and messages (pkg/kubelet/status/generate.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import PodRecord

Condition = dict[str, Any]
Statuses = Sequence[Mapping[str, Any]]

#: All that this kubelet writes; conditions of any other type belong to somebody else.
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def conditions(
    pod: KubeObject, record: PodRecord, init_statuses: Statuses, statuses: Statuses, phase: str
) -> list[Condition]:
    """In upstream's order, without their transition times (see stamp)."""
    sandbox_ready = record.sandbox is not None and record.sandbox.ready
    return [
        _condition("PodReadyToStartContainers", sandbox_ready),
        initialized(pod, init_statuses, statuses, phase),
        ready(pod, init_statuses, statuses, phase),
        containers_ready(pod, init_statuses, statuses, phase),
        _condition("PodScheduled", True),
    ]


def _condition(kind: str, status: bool, reason: str = "", message: str = "") -> Condition:
    found: Condition = {"type": kind, "status": "True" if status else "False"}
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found


def _listed(label: str, names: Sequence[str]) -> str:
    return f"containers with {label} status: [{' '.join(names)}]" if names else ""


def _incomplete(label: str, unknown: Sequence[str], incomplete: Sequence[str]) -> str:
    return ", ".join(filter(None, [_listed("unknown", unknown), _listed(label, incomplete)]))


def containers_ready(
    pod: KubeObject, init_statuses: Statuses, statuses: Statuses, phase: str, kind: str = "ContainersReady"
) -> Condition:
    """True when all app containers and sidecars are ready."""
    by_name = {status["name"]: status for status in (*init_statuses, *statuses)}
    wanted = [item["name"] for item in pods.init_containers(pod) if pods.is_sidecar(item)]
    wanted += [item["name"] for item in pods.containers(pod)]
    unknown = [name for name in wanted if name not in by_name]
    unready = [name for name in wanted if name in by_name and not by_name[name]["ready"]]
    if phase == "Succeeded" and not unknown:
        return _condition(kind, False, "PodCompleted")
    if phase == "Failed":
        return _condition(kind, False, "PodFailed")
    if message := _incomplete("unready", unknown, unready):
        return _condition(kind, False, "ContainersNotReady", message)
    return _condition(kind, True)


def ready(pod: KubeObject, init_statuses: Statuses, statuses: Statuses, phase: str) -> Condition:
    """ContainersReady and every readiness gate (KEP-580)."""
    base = containers_ready(pod, init_statuses, statuses, phase, "Ready")
    if base["status"] != "True":
        return base
    held = {item["type"]: item["status"] for item in (pod.get("status") or {}).get("conditions") or []}
    problems = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in held:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif held[kind] != "True":
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {held[kind]}')
    if problems:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(problems))
    return base


def initialized(pod: KubeObject, init_statuses: Statuses, statuses: Statuses, phase: str) -> Condition:
    """True when the init containers have done their work, and from then on."""
    by_name = {status["name"]: status for status in init_statuses}
    wanted = pods.init_containers(pod)
    unknown = [item["name"] for item in wanted if item["name"] not in by_name]
    incomplete = [
        item["name"]
        for item in wanted
        if item["name"] in by_name and not by_name[item["name"]]["started" if pods.is_sidecar(item) else "ready"]
    ]
    if phase == "Succeeded" and not unknown:
        return _condition("Initialized", True, "PodCompleted")
    if any(_has_run(status) for status in statuses):
        return _condition("Initialized", True)
    if message := _incomplete("incomplete", unknown, incomplete):
        return _condition("Initialized", False, "ContainersNotInitialized", message)
    return _condition("Initialized", True)


def _has_run(status: Mapping[str, Any]) -> bool:
    return bool({"running", "terminated"} & {*status["state"], *(status.get("lastState") or {})})


def stamp(fresh: Sequence[Condition], old: Sequence[Condition], now: str, generation: int | None) -> list[Condition]:
    """Transition times: a condition whose status did not change keeps the time it had."""
    before = {item["type"]: item for item in old}
    stamped = []
    for item in fresh:
        known = before.get(item["type"])
        same = known is not None and known["status"] == item["status"]
        extra = {"observedGeneration": generation} if generation else {}
        time = known.get("lastTransitionTime") or now if same and known else now
        stamped.append({**item, "lastTransitionTime": time, **extra})
    return stamped
