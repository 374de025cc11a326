"""The pod conditions that the kubelet owns, with upstream's reasons and messages
(pkg/kubelet/status/generate.go)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import PodRecord

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ContainerStatus, Pod, PodCondition

Statuses = Sequence["ContainerStatus"]

#: The types of all conditions that the kubelet writes; other types belong to other controllers.
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def conditions(
    pod: Pod,
    record: PodRecord,
    init_statuses: Statuses,
    statuses: Statuses,
    phase: str,
) -> list[PodCondition]:
    """The conditions in upstream's order, without transition times (see stamp())."""
    sandbox_ready = record.sandbox is not None and record.sandbox.ready
    return [
        _condition("PodReadyToStartContainers", sandbox_ready),
        initialized(pod, init_statuses, statuses, phase),
        ready(pod, init_statuses, statuses, phase),
        containers_ready(pod, init_statuses, statuses, phase),
        _condition("PodScheduled", True),
    ]


def _condition(kind: str, status: bool, reason: str = "", message: str = "") -> PodCondition:
    condition: PodCondition = {"type": kind, "status": "True" if status else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _listed(label: str, names: Sequence[str]) -> str:
    return f"containers with {label} status: [{' '.join(names)}]" if names else ""


def _incomplete(label: str, unknown: Sequence[str], incomplete: Sequence[str]) -> str:
    return ", ".join(filter(None, [_listed("unknown", unknown), _listed(label, incomplete)]))


def containers_ready(
    pod: Pod,
    init_statuses: Statuses,
    statuses: Statuses,
    phase: str,
    kind: str = "ContainersReady",
) -> PodCondition:
    """True if all app containers and sidecars are ready."""
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


def ready(pod: Pod, init_statuses: Statuses, statuses: Statuses, phase: str) -> PodCondition:
    """True if ContainersReady and all readiness gates are true (KEP-580)."""
    base = containers_ready(pod, init_statuses, statuses, phase, "Ready")
    if base["status"] != "True":
        return base
    current = (pod.get("status") or {}).get("conditions") or []
    held = {item["type"]: item["status"] for item in current}
    problems = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        name = f'pod readiness gate "{kind}"'
        if kind not in held:
            problems.append(f"corresponding condition of {name} does not exist.")
        elif held[kind] != "True":
            problems.append(f'the status of {name} is not "True", but {held[kind]}')
    if problems:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(problems))
    return base


def initialized(
    pod: Pod,
    init_statuses: Statuses,
    statuses: Statuses,
    phase: str,
) -> PodCondition:
    """True once the init containers are done; it does not become false again."""
    by_name = {status["name"]: status for status in init_statuses}
    wanted = pods.init_containers(pod)
    unknown = [item["name"] for item in wanted if item["name"] not in by_name]
    incomplete = []
    for item in wanted:
        if item["name"] not in by_name:
            continue
        status = by_name[item["name"]]
        if not (status["started"] if pods.is_sidecar(item) else status["ready"]):
            incomplete.append(item["name"])
    if phase == "Succeeded" and not unknown:
        return _condition("Initialized", True, "PodCompleted")
    if any(_has_run(status) for status in statuses):
        return _condition("Initialized", True)
    if message := _incomplete("incomplete", unknown, incomplete):
        return _condition("Initialized", False, "ContainersNotInitialized", message)
    return _condition("Initialized", True)


def _has_run(status: ContainerStatus) -> bool:
    return bool({"running", "terminated"} & {*status["state"], *(status.get("lastState") or {})})


def stamp(
    fresh: Sequence[PodCondition],
    old: Sequence[PodCondition],
    now: str,
    generation: int | None,
) -> list[PodCondition]:
    """Adds transition times; a condition whose status has not changed keeps its time."""
    before = {item["type"]: item for item in old}
    stamped: list[PodCondition] = []
    for item in fresh:
        known = before.get(item["type"])
        same = known is not None and known["status"] == item["status"]
        time = known.get("lastTransitionTime") or now if same and known else now
        entry: PodCondition = {**item, "lastTransitionTime": time}
        if generation:
            entry["observedGeneration"] = generation
        stamped.append(entry)
    return stamped
