"""A pod's whole status from what is known about it. Pure: the same input gives the same status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import PodRecord, ProbeView
from kubewire.components.kubelet.status.conditions import OWNED, conditions, stamp
from kubewire.components.kubelet.status.containers import (
    container_statuses,
    ephemeral_container_statuses,
    init_container_statuses,
)
from kubewire.components.kubelet.status.phase import phase

PodStatus = dict[str, Any]


@dataclass(frozen=True)
class Override:
    """Why the pod as a whole ended (DeadlineExceeded, Evicted ...): the phase is then Failed."""

    reason: str
    message: str


def pod_status(
    pod: KubeObject,
    record: PodRecord,
    probes: ProbeView,
    host_ips: Sequence[str],
    now: float,
    *,
    terminal: bool = False,
    override: Override | None = None,
) -> PodStatus:
    """status for the API; pod["status"] gives the transition times and the conditions of others.

    terminal: the pod is being ended, so that stopped containers stay stopped.
    """
    old = pod.get("status") or {}
    init = init_container_statuses(pod, record, probes)
    own = container_statuses(pod, record, probes)
    # A phase never goes back from Succeeded or Failed.
    current = old.get("phase") if pods.is_terminal(pod) else phase(pod, init, own, terminal=terminal)
    if override and current != "Succeeded":
        current = "Failed"
    generation = pod["metadata"].get("generation")
    stamped = stamp(
        conditions(pod, record, init, own, str(current)),
        old.get("conditions") or [],
        pods.format_time(now),
        generation,
    )
    others = [item for item in old.get("conditions") or [] if item["type"] not in OWNED]
    status: PodStatus = {
        "phase": current,
        "conditions": stamped + others,
        "hostIP": host_ips[0] if host_ips else "",
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": old.get("startTime") or pods.format_time(now),
        "qosClass": pods.qos_class(pod),
        "containerStatuses": own,
    }
    if generation:
        status["observedGeneration"] = generation
    if init:
        status["initContainerStatuses"] = init
    if added := ephemeral_container_statuses(pod, record, probes):
        status["ephemeralContainerStatuses"] = added
    ips = tuple(host_ips) if pods.host_network(pod) and record.sandbox else record.ips
    if not ips:
        # A finished pod keeps the address it had.
        ips = tuple(entry["ip"] for entry in old.get("podIPs") or []) if terminal else ()
    if ips:
        status |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    if override:
        status |= {"reason": override.reason, "message": override.message}
    return status


def _replacing(old: PodStatus, new: PodStatus) -> PodStatus:
    """new as an element of a merged list: what it has no longer (a reason, a message) is to go."""
    return {key: None for key in old if key not in new} | new


#: Lists that a strategic merge patch would merge by key where a new value must replace the old one.
_REPLACED = {"podIPs": "ip", "hostIPs": "ip"}


def status_patch(old: PodStatus, new: PodStatus) -> PodStatus | None:
    """The strategic merge patch of status that turns old into new; None when nothing changed.

    Conditions merge by type, so only those that changed are named and those of others stay untouched.
    """
    patch: PodStatus = {}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        if key == "conditions":
            known = {item["type"]: item for item in before or []}
            changed = [
                _replacing(known.get(item["type"], {}), item) for item in value if known.get(item["type"]) != item
            ]
            if changed:
                patch[key] = changed
        elif key in _REPLACED:
            field = _REPLACED[key]
            kept = {entry[field] for entry in value}
            gone = [{field: entry[field], "$patch": "delete"} for entry in before or [] if entry[field] not in kept]
            patch[key] = [*gone, *value]
        else:
            patch[key] = value
    for key in ("podIP", "podIPs", "reason", "message"):
        if key in old and key not in new:
            patch[key] = None
    return patch or None
