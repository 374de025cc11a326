"""Admission of volumes and claims: their protection, their class, and which claims may grow."""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi import volumes

_CLASSES = "storageclasses.storage.k8s.io"
_CLAIMS = "persistentvolumeclaims"
_FINALIZERS = {
    "persistentvolumes": volumes.VOLUME_FINALIZER,
    _CLAIMS: volumes.CLAIM_FINALIZER,
}


class StorageObjectInUseProtection(Plugin):
    """Sets the finalizers that keep a claim of a pod and a volume of a claim
    (plugin/pkg/admission/storage/storageobjectinuseprotection)."""

    name = "StorageObjectInUseProtection"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage in _FINALIZERS and operation == "CREATE" and not subresource

    def admit(self, attributes: Attributes) -> None:
        metadata = attributes.obj["metadata"]
        finalizer = _FINALIZERS[attributes.served.storage]
        held = metadata.get("finalizers") or []
        if finalizer not in held:
            metadata["finalizers"] = [*held, finalizer]


class DefaultStorageClass(Plugin):
    """Gives a claim the default class if it names none
    (plugin/pkg/admission/storage/storageclass/setdefault)."""

    name = "DefaultStorageClass"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == _CLAIMS and operation == "CREATE" and not subresource

    def admit(self, attributes: Attributes) -> None:
        claim: Any = attributes.obj
        if volumes.names_class(claim):
            return
        classes: list[Any] = [stored.obj for stored in self.store.items(_CLASSES)]
        default = volumes.default_class(classes)
        if default is not None:
            claim["spec"]["storageClassName"] = default["metadata"]["name"]


class PersistentVolumeClaimResize(Plugin):
    """Refuses a larger claim whose class does not allow it
    (plugin/pkg/admission/storage/persistentvolume/resize)."""

    name = "PersistentVolumeClaimResize"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == _CLAIMS and operation == "UPDATE" and not subresource

    def validate(self, attributes: Attributes) -> None:
        new: Any = attributes.obj
        old: Any = attributes.old
        if volumes.requested(new) <= volumes.requested(old):
            return
        found = self.store.get(Key(_CLASSES, "", volumes.class_of(old)))
        if found is None or not found.obj.get("allowVolumeExpansion"):
            why = "only dynamically provisioned pvc can be resized and "
            why += "the storageclass that provisions the pvc must support resize"
            raise status.forbidden("", _CLAIMS, attributes.name, why)
