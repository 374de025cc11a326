"""Volumes, claims and classes for tests."""

from __future__ import annotations

from typing import Any

from tests.components.controllers.objects import stamp


def claim(name: str = "data", *, size: str = "1Gi", **given: Any) -> Any:
    """storage_class, volume, modes, phase, notes, deleting, selector, finalizers."""
    metadata: Any = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "7"}
    metadata["annotations"] = dict(given.get("notes", {}))
    if given.get("deleting"):
        metadata["deletionTimestamp"] = stamp()
    if "finalizers" in given:
        metadata["finalizers"] = given["finalizers"]
    spec: Any = {
        "accessModes": given.get("modes", ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": size}},
        "volumeMode": "Filesystem",
    }
    if given.get("storage_class", "") is not None:
        spec["storageClassName"] = given.get("storage_class", "")
    for key, field in (("volume", "volumeName"), ("selector", "selector")):
        if key in given:
            spec[field] = given[key]
    status = {"phase": given.get("phase", "Pending")}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec, "status": status}


def volume(name: str = "pv", *, size: str = "1Gi", **given: Any) -> Any:
    """storage_class, modes, phase, notes, labels, policy, claim (its claimRef), node."""
    metadata: Any = {"name": name, "uid": f"uid-{name}", "resourceVersion": "7", "labels": given.get("labels", {})}
    metadata["annotations"] = dict(given.get("notes", {}))
    spec: Any = {
        "accessModes": given.get("modes", ["ReadWriteOnce"]),
        "capacity": {"storage": size},
        "hostPath": {"path": f"/srv/{name}"},
        "persistentVolumeReclaimPolicy": given.get("policy", "Retain"),
        "storageClassName": given.get("storage_class", ""),
    }
    if "claim" in given:
        spec["claimRef"] = given["claim"]
    if "node" in given:
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [given["node"]]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}
    status = {"phase": given.get("phase", "Available")}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec, "status": status}


def storage_class(name: str = "standard", *, default: bool = False, **given: Any) -> Any:
    metadata: Any = {"name": name, "creationTimestamp": given.pop("created", stamp())}
    if default:
        metadata["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    body = {"provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer"}
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata}
    return {**head, **body, "reclaimPolicy": "Delete", **given}


def reference(name: str = "data", uid: str | None = "") -> Any:
    """A claimRef; without a uid it only reserves the volume."""
    found = {"namespace": "default", "name": name, "uid": uid or f"uid-{name}"}
    return found if uid is not None else {"namespace": "default", "name": name}
