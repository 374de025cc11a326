"""PodTopologyLabels: a pod has the region and zone of its node
(plugin/pkg/admission/podtopologylabels).

Programs in the pod can then learn from the downward API where they run.
"""

from __future__ import annotations

from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key

_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodTopologyLabels(Plugin):
    name = "PodTopologyLabels"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == "pods" and operation == "CREATE" and subresource in ("", "binding")

    def admit(self, attributes: Attributes) -> None:
        """Labels a Binding, whose labels the pod gets, or a pod that names its node itself."""
        obj = attributes.obj
        if attributes.subresource == "binding":
            node = (obj.get("target") or {}).get("name", "")
        else:
            node = (obj.get("spec") or {}).get("nodeName", "")
        stored = self.store.get(Key("nodes", "", node)) if node else None
        labels = (stored.obj["metadata"].get("labels") or {}) if stored else {}
        given = {key: labels[key] for key in _LABELS if key in labels}
        if given:
            metadata = obj.setdefault("metadata", {})
            metadata["labels"] = {**(metadata.get("labels") or {}), **given}
