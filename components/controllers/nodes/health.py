"""Derives conditions, taints and evictions from the state of a node
(https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.meta import condition, created_at, format_time, parse_time
from kubewire.components.kubeapi.taints import NO_EXECUTE, NO_SCHEDULE, tolerates

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, NodeCondition, Pod, PodCondition, Taint

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_FROM_KUBELET = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
#: The NoSchedule taint for a condition with this status (TaintNodesByCondition).
_SCHEDULE_TAINTS = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_MANAGED = {*_SCHEDULE_TAINTS.values(), _UNSCHEDULABLE}


def unknown_conditions(node: Node, now: datetime) -> list[NodeCondition] | None:
    """The conditions of a node whose kubelet stopped reporting; None when they are Unknown
    already.
    """
    standing = list((node.get("status") or {}).get("conditions") or [])
    result = [item for item in standing if item["type"] not in _FROM_KUBELET]
    changed = False
    for kind in _FROM_KUBELET:
        held = condition(node.get("status"), kind)
        if held is not None and held["status"] == "Unknown":
            result.append(held)
            continue
        changed = True
        result.append(_unknown(node, kind, held, now))
    return result if changed else None


def _unknown(node: Node, kind: str, held: NodeCondition | None, now: datetime) -> NodeCondition:
    fresh: NodeCondition = {
        "type": kind,
        "status": "Unknown",
        "lastTransitionTime": format_time(now),
    }
    if held is None:
        created: Any = node["metadata"].get("creationTimestamp")
        fresh["reason"] = "NodeStatusNeverUpdated"
        fresh["message"] = "Kubelet never posted node status."
        fresh["lastHeartbeatTime"] = created
        return fresh
    reason = "NodeStatusUnknown"
    text = "Kubelet stopped posting node status."
    return {**held, **fresh, "reason": reason, "message": text}


def ready_status(node: Node) -> str:
    """True, False or Unknown; a node without the condition Ready is Unknown."""
    ready = condition(node.get("status"), "Ready")
    return str(ready["status"]) if ready else "Unknown"


def has_execute_taint(node: Node) -> bool:
    """Whether the node already loses its pods because it is not ready."""
    taints = (node.get("spec") or {}).get("taints") or []
    return any(
        item.get("effect") == NO_EXECUTE and item["key"] in (NOT_READY, UNREACHABLE)
        for item in taints
    )


def wanted_taints(
    node: Node, now: datetime, *, evict: bool, lift: bool = False
) -> list[Taint] | None:
    """spec.taints as the conditions and spec.unschedulable require; None when nothing changes.

    With evict an unready node also gets its NoExecute taint, and with lift it loses it. The caller
    lifts the taints while no node at all is ready, because then the control plane rather than the
    nodes is likely to be cut off.
    """
    spec = node.get("spec") or {}
    standing = list(spec.get("taints") or [])
    wanted = _schedule_keys(node)
    execute = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready_status(node), "")
    execute = execute if condition(node.get("status"), "Ready") and not lift else ""
    kept = [item for item in standing if _stays(item, wanted, execute)]
    present = {(item["key"], item["effect"]) for item in kept}
    missing = [key for key in sorted(wanted) if (key, NO_SCHEDULE) not in present]
    added: list[Taint] = [{"key": key, "effect": NO_SCHEDULE} for key in missing]
    if execute and evict and (execute, NO_EXECUTE) not in present:
        added.append({"key": execute, "effect": NO_EXECUTE})
    if not added and len(kept) == len(standing):
        return None
    return kept + [{**item, "timeAdded": format_time(now)} for item in added]


def _schedule_keys(node: Node) -> set[str]:
    conditions = (node.get("status") or {}).get("conditions") or []
    keys = {_SCHEDULE_TAINTS.get((item["type"], item["status"]), "") for item in conditions}
    if (node.get("spec") or {}).get("unschedulable"):
        keys.add(_UNSCHEDULABLE)
    return keys - {""}


def _stays(taint: Taint, schedule: set[str], execute: str) -> bool:
    key = taint["key"]
    effect = taint.get("effect")
    if effect == NO_SCHEDULE and key in _MANAGED:
        return key in schedule
    if effect == NO_EXECUTE and key in (NOT_READY, UNREACHABLE):
        return bool(key == execute)
    return True


def eviction_time(pod: Pod, taints: Sequence[Taint], now: datetime) -> datetime | None:
    """When a pod must leave its node because of NoExecute taints; None when it may stay.

    A pod that tolerates all of them for a limited time leaves after the shortest
    tolerationSeconds.
    """
    deadlines: list[datetime] = []
    for taint in taints:
        if taint.get("effect") != NO_EXECUTE:
            continue
        matching = [item for item in pod["spec"].get("tolerations") or [] if tolerates(item, taint)]
        if not matching:
            return now
        since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else created_at(pod)
        # The time of a pod that is newer than the taint counts from its creation.
        since = max(since, created_at(pod))
        given = [item.get("tolerationSeconds") for item in matching]
        limits = [seconds for seconds in given if seconds is not None]
        if limits:
            deadlines.append(since + timedelta(seconds=max(min(limits), 0)))
    return min(deadlines, default=None)


def not_ready_pod_conditions(pod: Pod, now: datetime) -> list[PodCondition] | None:
    """status.conditions with Ready False for a pod on a silent node; None if it was not ready."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    if not any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
        return None
    return [
        {
            **item,
            "status": "False",
            "lastTransitionTime": format_time(now),
        }
        if item["type"] == "Ready"
        else item
        for item in conditions
    ]


def disruption_target(
    pod: Pod,
    reason: str,
    message: str,
    now: datetime,
) -> list[PodCondition]:
    """status.conditions with DisruptionTarget set to True."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    fresh: PodCondition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(now),
    }
    return [*(item for item in conditions if item["type"] != "DisruptionTarget"), fresh]
