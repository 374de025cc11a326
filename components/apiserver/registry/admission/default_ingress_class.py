"""DefaultIngressClass: an Ingress without a class gets the cluster's
(plugin/pkg/admission/network/defaultingressclass).
"""

from __future__ import annotations

from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served

_CLASSES = "ingressclasses.networking.k8s.io"
_IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
#: Names the class in another way, which the default must not overrule.
_CLASS = "kubernetes.io/ingress.class"


class DefaultIngressClass(Plugin):
    name = "DefaultIngressClass"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == "ingresses.networking.k8s.io" and operation == "CREATE"

    def admit(self, attributes: Attributes) -> None:
        spec = attributes.obj["spec"]
        annotations = attributes.obj["metadata"].get("annotations") or {}
        if spec.get("ingressClassName") is not None or _CLASS in annotations:
            return
        classes = [
            stored.obj["metadata"]
            for stored in self.store.items(_CLASSES)
            if (stored.obj["metadata"].get("annotations") or {}).get(_IS_DEFAULT) == "true"
        ]
        # Of several defaults the youngest is used, and of several of that age the first by name.
        classes.sort(key=lambda metadata: str(metadata["name"]))
        classes.sort(key=lambda metadata: str(metadata["creationTimestamp"]), reverse=True)
        if classes:
            spec["ingressClassName"] = classes[0]["name"]
