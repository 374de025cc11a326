"""What a silent or unready node means: conditions, taints, evictions. Pure functions
(https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from kubewire.components.controllers.meta import condition, created_at, format_time, parse_time
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.taints import NO_EXECUTE, NO_SCHEDULE, tolerates

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_FROM_KUBELET = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
#: Condition and its status -> taint with NoSchedule (TaintNodesByCondition).
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


def unknown_conditions(node: KubeObject, now: datetime) -> list[KubeObject] | None:
    """All conditions of a node whose kubelet has gone silent; None when they already say so."""
    standing = list((node.get("status") or {}).get("conditions") or [])
    result = [item for item in standing if item["type"] not in _FROM_KUBELET]
    changed = False
    for kind in _FROM_KUBELET:
        held = condition({"conditions": standing}, kind)
        if held is not None and held["status"] == "Unknown":
            result.append(held)
            continue
        changed = True
        result.append(_unknown(node, kind, held, now))
    return result if changed else None


def _unknown(node: KubeObject, kind: str, held: KubeObject | None, now: datetime) -> KubeObject:
    fresh: KubeObject = {"type": kind, "status": "Unknown", "lastTransitionTime": format_time(now)}
    if held is None:
        created = node["metadata"].get("creationTimestamp")
        reason, text = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        return fresh | {"reason": reason, "message": text, "lastHeartbeatTime": created}
    reason, text = "NodeStatusUnknown", "Kubelet stopped posting node status."
    return {**held, **fresh, "reason": reason, "message": text}


def ready_status(node: KubeObject) -> str:
    """True, False or Unknown; a node without the condition is Unknown."""
    found = condition(node.get("status"), "Ready")
    return str(found["status"]) if found else "Unknown"


def wanted_taints(node: KubeObject, now: datetime, *, evict: bool) -> list[KubeObject] | None:
    """spec.taints as conditions and spec.unschedulable want them; None when nothing changes.

    evict: whether an unready node also gets its NoExecute taint (not while every node is silent).
    """
    spec = node.get("spec") or {}
    standing = list(spec.get("taints") or [])
    wanted = _schedule_keys(node)
    execute = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready_status(node), "")
    execute = execute if condition(node.get("status"), "Ready") else ""
    kept = [item for item in standing if _stays(item, wanted, execute)]
    present = {(item["key"], item["effect"]) for item in kept}
    added = [{"key": key, "effect": NO_SCHEDULE} for key in sorted(wanted) if (key, NO_SCHEDULE) not in present]
    if execute and evict and (execute, NO_EXECUTE) not in present:
        added.append({"key": execute, "effect": NO_EXECUTE})
    if not added and len(kept) == len(standing):
        return None
    return kept + [{**item, "timeAdded": format_time(now)} for item in added]


def _schedule_keys(node: KubeObject) -> set[str]:
    conditions = (node.get("status") or {}).get("conditions") or []
    keys = {_SCHEDULE_TAINTS.get((item["type"], item["status"]), "") for item in conditions}
    if (node.get("spec") or {}).get("unschedulable"):
        keys.add(_UNSCHEDULABLE)
    return keys - {""}


def _stays(taint: KubeObject, schedule: set[str], execute: str) -> bool:
    key, effect = taint["key"], taint.get("effect")
    if effect == NO_SCHEDULE and key in _MANAGED:
        return key in schedule
    if effect == NO_EXECUTE and key in (NOT_READY, UNREACHABLE):
        return bool(key == execute)
    return True


def eviction_time(pod: KubeObject, taints: Sequence[KubeObject], now: datetime) -> datetime | None:
    """When a pod must leave its node because of NoExecute taints; None: it may stay.

    A pod that tolerates all of them for a while leaves after the shortest tolerationSeconds.
    """
    deadlines: list[datetime] = []
    for taint in taints:
        if taint.get("effect") != NO_EXECUTE:
            continue
        matching = [item for item in pod["spec"].get("tolerations") or [] if tolerates(item, taint)]
        if not matching:
            return now
        since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else created_at(pod)
        # A pod made after the taint has its time from its own start.
        since = max(since, created_at(pod))
        limits = [item["tolerationSeconds"] for item in matching if item.get("tolerationSeconds") is not None]
        if limits:
            deadlines.append(since + timedelta(seconds=max(min(limits), 0)))
    return min(deadlines, default=None)


def not_ready_pod_conditions(pod: KubeObject, now: datetime) -> list[KubeObject] | None:
    """status.conditions with Ready False, for a pod on a silent node; None when it is not ready anyway."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    if not any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
        return None
    return [
        {**item, "status": "False", "lastTransitionTime": format_time(now)} if item["type"] == "Ready" else item
        for item in conditions
    ]


def disruption_target(pod: KubeObject, reason: str, message: str, now: datetime) -> list[KubeObject]:
    """status.conditions with DisruptionTarget True."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    fresh = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(now),
    }
    return [*(item for item in conditions if item["type"] != "DisruptionTarget"), fresh]
