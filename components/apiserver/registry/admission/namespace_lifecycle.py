"""NamespaceLifecycle: no new objects in a namespace that is missing or ends
(apiserver/pkg/admission/plugin/namespace/lifecycle).

A namespace that is being deleted could otherwise never become empty.
"""

from __future__ import annotations

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key

_PROTECTED = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle(Plugin):
    name = "NamespaceLifecycle"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        if operation == "DELETE":
            return served.storage == "namespaces"
        return operation == "CREATE" and served.namespaced

    def admit(self, attributes: Attributes) -> None:
        if attributes.operation == "DELETE":
            _check_deletable(attributes.name)
        else:
            self._check_open(attributes)

    def _check_open(self, attributes: Attributes) -> None:
        namespace = attributes.namespace
        stored = self.store.get(Key("namespaces", "", namespace))
        if stored is None:
            raise status.not_found("", "namespaces", namespace)
        if not stored.obj["metadata"].get("deletionTimestamp"):
            return
        why = f"unable to create new content in namespace {namespace}"
        why += " because it is being terminated"
        served = attributes.served
        error = status.forbidden(served.group, served.plural, attributes.name, why)
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        error.body["details"]["causes"] = [cause]
        raise error


def _check_deletable(name: str) -> None:
    if name in _PROTECTED:
        raise status.forbidden("", "namespaces", name, "this namespace may not be deleted")
