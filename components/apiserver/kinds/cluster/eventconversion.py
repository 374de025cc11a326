"""Converts Events between the two groups that share one storage
(k8s.io/kubernetes/pkg/apis/events/v1/conversion.go).
"""

from __future__ import annotations

from kubewire.components.kubeapi.resources import KubeObject

#: Maps the field names of events.k8s.io/v1 to those of core/v1.
_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_BACK = {old: new for new, old in _RENAMED.items()}


def to_core(event: KubeObject) -> KubeObject:
    renamed = {_RENAMED.get(key, key): value for key, value in event.items()}
    return renamed | {"apiVersion": "v1"}


def from_core(event: KubeObject) -> KubeObject:
    renamed = {_BACK.get(key, key): value for key, value in event.items()}
    return renamed | {"apiVersion": "events.k8s.io/v1"}
