"""Priority: resolves a pod's priorityClassName to a number (plugin/pkg/admission/priority)."""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.cluster.priorityclass import SYSTEM_PRIORITIES
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Event, Key, Store
from kubewire.components.kubeapi.resources import KubeObject

_CLASSES = "priorityclasses.scheduling.k8s.io"
_PREEMPTS = "PreemptLowerPriority"


class Priority(Plugin):
    name = "Priority"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        #: The global default, if there is one, until a class changes.
        self._kept: tuple[KubeObject | None] | None = None
        store.subscribe(_CLASSES, self._forget)

    def _forget(self, event: Event) -> None:
        self._kept = None

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        if subresource or operation not in ("CREATE", "UPDATE"):
            return False
        return served.storage in ("pods", _CLASSES)

    def admit(self, attributes: Attributes) -> None:
        if attributes.served.storage != "pods":
            return
        spec = attributes.obj["spec"]
        if attributes.operation == "UPDATE":
            _keep(spec, attributes.old["spec"])
            return
        name = spec.get("priorityClassName", "")
        found = self._class(name)
        if name and found is None:
            raise _forbidden(attributes, f"no PriorityClass with name {name} was found")
        found = found or {}
        if not name and found:
            spec["priorityClassName"] = found["metadata"]["name"]
        _set(attributes, "priority", int(found.get("value", 0)))
        _set(attributes, "preemptionPolicy", found.get("preemptionPolicy") or _PREEMPTS)

    def validate(self, attributes: Attributes) -> None:
        if attributes.served.storage != _CLASSES or not attributes.obj.get("globalDefault"):
            return
        standing = self._default()
        other = "" if standing is None else standing["metadata"]["name"]
        if other and (attributes.operation == "CREATE" or other != attributes.name):
            text = f"PriorityClass {other} is already marked as default. Only one default can exist"
            raise _forbidden(attributes, text)

    def _class(self, name: str) -> KubeObject | None:
        """The named class, or without a name the global default."""
        if not name:
            return self._default()
        named = self.store.get(Key(_CLASSES, "", name))
        if named is None and name in SYSTEM_PRIORITIES:
            # Pods may come before the server has made its own classes.
            return {"metadata": {"name": name}, "value": SYSTEM_PRIORITIES[name]}
        return named.obj if named else None

    def _default(self) -> KubeObject | None:
        """Of several global defaults the one with the lowest value is used."""
        # In the owner thread no class changes between the search and its being kept.
        kept = self._kept or self.store.owner.call(self._searched)
        return kept[0]

    def _searched(self) -> tuple[KubeObject | None]:
        classes = [stored.obj for stored in self.store.items(_CLASSES)]
        defaults = [item for item in classes if item.get("globalDefault")]
        lowest = min(defaults, key=lambda item: int(item.get("value", 0)), default=None)
        self._kept = (lowest,)
        return self._kept


def _keep(spec: dict[str, Any], old: dict[str, Any]) -> None:
    """An update that leaves the resolved fields out does not mean to remove them."""
    for field in ("priority", "preemptionPolicy"):
        if spec.get(field) is None and old.get(field) is not None:
            spec[field] = old[field]


def _set(attributes: Attributes, field: str, value: Any) -> None:
    given = attributes.obj["spec"].get(field)
    if given is not None and given != value:
        kind = "integer" if field == "priority" else "string"
        shown = "priority" if field == "priority" else "PreemptionPolicy"
        text = (
            f"the {kind} value of {shown} ({given}) must not be provided in pod spec; "
            f"priority admission controller computed {value} from the given PriorityClass name"
        )
        raise _forbidden(attributes, text)
    attributes.obj["spec"][field] = value


def _forbidden(attributes: Attributes, why: str) -> status.StatusError:
    served = attributes.served
    return status.forbidden(served.group, served.plural, attributes.name, why)
