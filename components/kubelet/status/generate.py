"""Computes the whole status of a pod from its definition and its records. Pure.

The kubelet derives each status from its records and never edits the one before, so the status
cannot contradict the processes: what has not been recorded cannot be reported. From the old status
come only the facts that records do not have. These are startTime, the transition time of a
condition whose status has not changed, the address of a finished pod, and conditions of other
controllers (readiness gates).

These rules always hold, and controllers depend on them:

- Phase, conditions and container statuses are computed from the same record, so they agree for
  controllers that read different ones: EndpointSlices follow the Ready condition, Jobs the phase.
- A pod that is Succeeded or Failed keeps its phase for ever.
- Other controllers write to the same status. So a write is a patch (status_patch()) that names only
  the conditions the kubelet has changed, and never the whole list.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/; upstream: pkg/kubelet/status and
pkg/kubelet/kubelet_pods.go (generateAPIPodStatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import PodRecord, ProbeView
from kubewire.components.kubelet.status.conditions import OWNED, conditions, stamp
from kubewire.components.kubelet.status.containers import (
    container_statuses,
    ephemeral_container_statuses,
    init_container_statuses,
)
from kubewire.components.kubelet.status.phase import phase

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, PodCondition, PodStatus


@dataclass(frozen=True)
class Override:
    """Why the pod as a whole ended, for example DeadlineExceeded. The phase is then Failed.

    disruption: the message of the condition DisruptionTarget, if another pod needed the room.
    """

    reason: str
    message: str
    disruption: str = ""


def pod_status(
    pod: Pod,
    record: PodRecord,
    probes: ProbeView,
    host_ips: Sequence[str],
    now: float,
    *,
    terminal: bool = False,
    override: Override | None = None,
) -> PodStatus:
    """The status for the API. pod["status"]: the old status.

    terminal: the pod is being ended, so that stopped containers are not started again.
    """
    old = pod.get("status") or {}
    init = init_container_statuses(pod, record, probes)
    own = container_statuses(pod, record, probes)
    # The phases Succeeded and Failed are final.
    final = pods.is_terminal(pod)
    current = old["phase"] if final else phase(pod, init, own, terminal=terminal)
    if override and current != "Succeeded":
        current = "Failed"
    generation = pod["metadata"].get("generation")
    disruption = _disruption(override) if override and current == "Failed" else []
    stamped = stamp(
        [*conditions(pod, record, init, own, str(current)), *disruption],
        old.get("conditions") or [],
        pods.format_time(now),
        generation,
    )
    given = {item["type"] for item in stamped}
    foreign = [
        item
        for item in old.get("conditions") or []
        if item["type"] not in OWNED and item["type"] not in given
    ]
    status: PodStatus = {
        "phase": current,
        "conditions": stamped + foreign,
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
        # A pod that is being ended keeps its address in the status after its sandbox is gone.
        ips = tuple(entry["ip"] for entry in old.get("podIPs") or []) if terminal else ()
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]
    if override:
        status["reason"] = override.reason
        status["message"] = override.message
    return status


def _disruption(override: Override) -> list[PodCondition]:
    if not override.disruption:
        return []
    return [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "TerminationByKubelet",
            "message": override.disruption,
        }
    ]


def _replacing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """new as an element of a merged list: null removes the keys that it no longer has."""
    return {key: None for key in old if key not in new} | dict(new)


#: Lists that a strategic merge patch merges by this key, although the new list must replace the
#: old.
_REPLACED = {"podIPs": "ip", "hostIPs": "ip"}


def status_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """The strategic merge patch that turns status old into new; None if nothing has changed.

    Conditions merge by type, so the patch names only those that have changed.
    """
    patch: dict[str, Any] = {}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        if key == "conditions":
            known = {item["type"]: item for item in before or []}
            changed = [item for item in value if known.get(item["type"]) != item]
            if changed:
                patch[key] = [_replacing(known.get(item["type"], {}), item) for item in changed]
        elif key in _REPLACED:
            field = _REPLACED[key]
            kept = {entry[field] for entry in value}
            dropped = [entry[field] for entry in before or [] if entry[field] not in kept]
            gone = [{field: held, "$patch": "delete"} for held in dropped]
            patch[key] = [*gone, *value]
        else:
            patch[key] = value
    for key in ("podIP", "podIPs", "reason", "message"):
        if key in old and key not in new:
            patch[key] = None
    return patch or None
