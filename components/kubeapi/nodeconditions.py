"""Conditions of a Node that other programs than its kubelet write. Pure except for the clock."""

from __future__ import annotations

from kubewire.components.kubeapi.events import timestamp
from kubewire.components.kubeapi.resources import KubeObject


def network_available(reason: str, message: str) -> KubeObject:
    """A strategic merge patch of a Node's status by which a pod network reports that the node's
    network is set up.

    It sets the condition NetworkUnavailable to False; the controllers then remove the taint
    network-unavailable.
    """
    now = timestamp()
    condition = {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {"status": {"conditions": [condition]}}
