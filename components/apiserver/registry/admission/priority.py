"""Priority: resolves a pod's priorityClassName to a number (plugin/pkg/admission/priority)."""

from __future__ import annotations

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.resources import KubeObject

_CLASSES = "priorityclasses.scheduling.k8s.io"
_SYSTEM_PRIORITIES = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}


class Priority(Plugin):
    name = "Priority"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == "pods" and operation == "CREATE" and not subresource

    def admit(self, attributes: Attributes) -> None:
        pod = attributes.obj
        spec = pod["spec"]
        name = spec.get("priorityClassName", "")
        if name in _SYSTEM_PRIORITIES:
            spec["priority"] = _SYSTEM_PRIORITIES[name]
            spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
            return
        priority_class = self._class(name)
        if name and priority_class is None:
            why = f"no PriorityClass with name {name} was found"
            raise status.forbidden("", "pods", pod["metadata"].get("name", ""), why)
        if priority_class is not None:
            spec["priorityClassName"] = priority_class["metadata"]["name"]
        spec["priority"] = int((priority_class or {}).get("value", 0))
        policy = (priority_class or {}).get("preemptionPolicy")
        spec["preemptionPolicy"] = policy or "PreemptLowerPriority"

    def _class(self, name: str) -> KubeObject | None:
        """The named class, or without a name the global default.

        Of several global defaults the one with the lowest value is used.
        """
        if name:
            named = self.store.get(Key(_CLASSES, "", name))
            return named.obj if named else None
        classes = [stored.obj for stored in self.store.items(_CLASSES)]
        defaults = [item for item in classes if item.get("globalDefault")]
        return min(
            defaults,
            key=lambda priority_class: int(priority_class.get("value", 0)),
            default=None,
        )
