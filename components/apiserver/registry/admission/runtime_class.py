"""RuntimeClass: a pod gets the overhead and the place of the runtime that it names
(plugin/pkg/admission/runtimeclass).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.amounts import parsed
from kubewire.components.kubeapi.resources import KubeObject

_CLASSES = "runtimeclasses.node.k8s.io"
_OTHER = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
_ALONE = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"


class RuntimeClass(Plugin):
    name = "RuntimeClass"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == "pods" and operation == "CREATE" and not subresource

    def admit(self, attributes: Attributes) -> None:
        spec = attributes.obj["spec"]
        found = self._class(attributes, spec.get("runtimeClassName") or "")
        if found is None:
            return
        overhead = (found.get("overhead") or {}).get("podFixed")
        if overhead and not spec.get("overhead"):
            spec["overhead"] = dict(overhead)
        scheduling = found.get("scheduling") or {}
        if selector := scheduling.get("nodeSelector"):
            spec["nodeSelector"] = _merged(attributes, spec.get("nodeSelector") or {}, selector)
        if tolerations := scheduling.get("tolerations"):
            own = spec.get("tolerations") or []
            spec["tolerations"] = [*own, *(item for item in tolerations if item not in own)]

    def validate(self, attributes: Attributes) -> None:
        spec = attributes.obj["spec"]
        given = spec.get("overhead")
        if not given:
            return
        found = self._class(attributes, spec.get("runtimeClassName") or "") or {}
        overhead = (found.get("overhead") or {}).get("podFixed")
        if overhead is None:
            raise _forbidden(attributes, _ALONE)
        if _values(overhead) != _values(given):
            raise _forbidden(attributes, _OTHER)

    def _class(self, attributes: Attributes, name: str) -> KubeObject | None:
        if not name:
            return None
        stored = self.store.get(Key(_CLASSES, "", name))
        if stored is None:
            raise _forbidden(attributes, f'pod rejected: RuntimeClass "{name}" not found')
        return stored.obj


def _values(overhead: Mapping[str, Any]) -> dict[str, Any]:
    return {name: amount.value for name, amount in parsed(overhead).items()}


def _merged(
    attributes: Attributes, own: Mapping[str, str], wanted: Mapping[str, str]
) -> dict[str, str]:
    for key, value in wanted.items():
        if own.get(key, value) != value:
            place = f"runtimeClass.scheduling.nodeSelector[{key}] = {value}"
            text = f"conflict: {place}; pod.spec.nodeSelector[{key}] = {own[key]}"
            raise _forbidden(attributes, text)
    return {**own, **wanted}


def _forbidden(attributes: Attributes, why: str) -> status.StatusError:
    return status.forbidden("", "pods", attributes.name, why)
