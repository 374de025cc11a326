"""Admission of volumes and claims: DefaultStorageClass, StorageObjectInUseProtection and
PersistentVolumeClaimResize."""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.store import Key, Store
from kubewire.components.kubeapi import volumes
from kubewire.components.kubeapi.resources import KubeObject

_CLASSES = "storageclasses.storage.k8s.io"


def protect_volume(volume: KubeObject) -> None:
    _protect(volume, volumes.VOLUME_FINALIZER)


def admit_claim(store: Store, claim: KubeObject) -> None:
    """Gives a claim the default class if it names none, and the finalizer that protects it."""
    _protect(claim, volumes.CLAIM_FINALIZER)
    given: Any = claim
    if volumes.names_class(given):
        return
    classes: list[Any] = [stored.obj for stored in store.items(_CLASSES)]
    default = volumes.default_class(classes)
    if default is not None:
        claim["spec"]["storageClassName"] = default["metadata"]["name"]


def _protect(obj: KubeObject, finalizer: str) -> None:
    held = obj["metadata"].get("finalizers") or []
    if finalizer not in held:
        obj["metadata"]["finalizers"] = [*held, finalizer]


def check_growth(store: Store, new: KubeObject, old: KubeObject) -> None:
    """Refuses a larger claim whose class does not allow it; raises 403."""
    fresh: Any = new
    before: Any = old
    try:
        grows = volumes.requested(fresh) > volumes.requested(before)
    except ValueError:
        return  # validation reports the amount
    if not grows:
        return
    found = store.get(Key(_CLASSES, "", volumes.class_of(before)))
    if found is None or not found.obj.get("allowVolumeExpansion"):
        why = "only dynamically provisioned pvc can be resized and "
        why += "the storageclass that provisions the pvc must support resize"
        raise status.forbidden("", "persistentvolumeclaims", new["metadata"].get("name", ""), why)
