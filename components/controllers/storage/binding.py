"""Plans what binds volumes and claims to each other (pkg/controller/volume/persistentvolume).

A binding is two references: the volume's spec.claimRef and the claim's spec.volumeName. The
volume's is written first, with its resourceVersion as precondition, so that of two claims only one
gets the volume; whoever finds a binding half done completes it. An annotation says whether a
controller wrote a reference, or a user who wanted just this pair.

    claim   Pending -> Bound -> Lost       (the volume is gone)
    volume  Available -> Bound -> Released (the claim is gone) -> deleted by its provisioner, or Failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Change, Emit
from kubewire.components.controllers.meta import annotations_of, is_deleting
from kubewire.components.kubeapi import volumes as matching
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        PersistentVolume,
        PersistentVolumeClaim,
        Pod,
        StorageClass,
    )

_NO_VOLUME = "no persistent volumes available for this claim and no storage class is set"
_FIRST_CONSUMER = "waiting for first consumer to be created before binding"
_WAITING = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the "
    "system administrator. If volume creation is delayed, please verify that the provisioner is "
    "running and correctly registered."
)
#: Provisioners of the tree, which no longer exist; kubernetes.io/no-provisioner never was one.
_IN_TREE = "kubernetes.io/"
_LOST_REFERENCE = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
_LOST_VOLUME = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
_MISBOUND = "Two claims are bound to the same volume, this one is bound incorrectly"


@dataclass(frozen=True)
class Storage:
    """The volumes, the classes by name, and the pods of a claim's namespace that use it."""

    volumes: Mapping[str, PersistentVolume]
    classes: Mapping[str, StorageClass]
    users: Sequence[Pod] = ()


def plan_claim(claim: PersistentVolumeClaim, storage: Storage) -> tuple[Action, ...]:
    if matching.BIND_COMPLETED in annotations_of(claim):
        return _bound_claim(claim, storage)
    name = claim["spec"].get("volumeName")
    if not name:
        return _unbound_claim(claim, storage)
    volume = storage.volumes.get(name)
    if volume is None:
        return _claim_phase(claim, "Pending")
    if not volume["spec"].get("claimRef"):
        if why := matching.mismatch(volume, claim):
            text = f'Cannot bind to requested volume "{name}": {why}'
            return (Emit(claim, "Warning", "VolumeMismatch", text), *_claim_phase(claim, "Pending"))
        return bind(volume, claim)
    if matching.is_bound_to(volume, claim):
        return bind(volume, claim)
    text = f'volume "{name}" already bound to a different claim.'
    return (Emit(claim, "Warning", "FailedBinding", text), *_claim_phase(claim, "Pending"))


def _bound_claim(claim: PersistentVolumeClaim, storage: Storage) -> tuple[Action, ...]:
    name = claim["spec"].get("volumeName")
    if not name:
        return _lost(claim, "ClaimLost", _LOST_REFERENCE)
    volume = storage.volumes.get(name)
    if volume is None:
        return _lost(claim, "ClaimLost", _LOST_VOLUME)
    reference = volume["spec"].get("claimRef")
    if reference and reference.get("uid") != claim["metadata"]["uid"]:
        return _lost(claim, "ClaimMisbound", _MISBOUND)
    return bind(volume, claim)


def _lost(claim: PersistentVolumeClaim, reason: str, text: str) -> tuple[Action, ...]:
    actions = _claim_phase(claim, "Lost")
    return (*actions, Emit(claim, "Warning", reason, text)) if actions else ()


def _unbound_claim(claim: PersistentVolumeClaim, storage: Storage) -> tuple[Action, ...]:
    if is_deleting(claim):
        return ()
    if not matching.names_class(claim):
        default = matching.default_class(storage.classes.values())
        if default is not None:
            # A claim that was made before there was a default class gets it now (KEP-3333).
            fresh = {"spec": {"storageClassName": default["metadata"]["name"]}}
            return (_patch_claim(claim, fresh),)
    storage_class = storage.classes.get(matching.class_of(claim))
    delayed = waits_for_consumer(claim, storage_class)
    volume = matching.find_volume(claim, storage.volumes.values(), only_reserved=delayed)
    if volume is not None:
        return bind(volume, claim)
    pending = _claim_phase(claim, "Pending")
    if delayed:
        return (_consumer(claim, storage.users), *pending)
    if not matching.class_of(claim):
        return (Emit(claim, "Normal", "FailedBinding", _NO_VOLUME), *pending)
    return (*_provision(claim, storage_class), *pending)


def waits_for_consumer(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass | None,
) -> bool:
    """Whether the scheduler has yet to choose the node, and with it the volume."""
    mode = (storage_class or {}).get("volumeBindingMode")
    is_delayed = mode == matching.WAIT_FOR_FIRST_CONSUMER
    return is_delayed and matching.SELECTED_NODE not in annotations_of(claim)


def _consumer(claim: PersistentVolumeClaim, users: Sequence[Pod]) -> Emit:
    waiting = sorted(
        pod["metadata"]["name"]
        for pod in users
        if not pod["spec"].get("nodeName") and not is_deleting(pod)
    )
    if not waiting:
        return Emit(claim, "Normal", "WaitForFirstConsumer", _FIRST_CONSUMER)
    names = f"pod {waiting[0]}" if len(waiting) == 1 else f"pods {','.join(waiting)}"
    return Emit(claim, "Normal", "WaitForPodScheduled", f"waiting for {names} to be scheduled")


def _provision(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass | None,
) -> tuple[Action, ...]:
    """Leaves the claim to the provisioner of its class, which watches for the annotation."""
    name = matching.class_of(claim)
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return (Emit(claim, "Warning", "ProvisioningFailed", text),)
    provisioner = storage_class["provisioner"]
    if provisioner.startswith(_IN_TREE):
        text = f"no volume plugin matched name: {provisioner}"
        return (Emit(claim, "Warning", "ProvisioningFailed", text),)
    marks = {matching.PROVISIONER: provisioner, matching.BETA_PROVISIONER: provisioner}
    event = Emit(claim, "Normal", "ExternalProvisioning", _WAITING.format(provisioner))
    if marks.items() <= annotations_of(claim).items():
        return (event,)
    return (_patch_claim(claim, {"metadata": {"annotations": marks}}), event)


def bind(volume: PersistentVolume, claim: PersistentVolumeClaim) -> tuple[Action, ...]:
    """Writes what is missing of the binding, the volume's side first."""
    return (*_bind_volume(volume, claim), *_bind_claim(volume, claim))


def _bind_volume(volume: PersistentVolume, claim: PersistentVolumeClaim) -> tuple[Action, ...]:
    reference = volume["spec"].get("claimRef") or {}
    actions: tuple[Action, ...] = ()
    if reference.get("uid") != claim["metadata"]["uid"]:
        patch: dict[str, Any] = {"spec": {"claimRef": claim_reference(claim)}}
        if not reference:
            patch["metadata"] = {"annotations": {matching.BOUND_BY_CONTROLLER: "yes"}}
        actions = (_patch_volume(volume, patch),)
    return (*actions, *_volume_phase(volume, "Bound"))


def claim_reference(claim: PersistentVolumeClaim) -> dict[str, str]:
    metadata = claim["metadata"]
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }


def _bind_claim(volume: PersistentVolume, claim: PersistentVolumeClaim) -> tuple[Action, ...]:
    notes = annotations_of(claim)
    marks: dict[str, str] = {}
    patch: dict[str, Any] = {}
    if claim["spec"].get("volumeName") != volume["metadata"]["name"]:
        patch["spec"] = {"volumeName": volume["metadata"]["name"]}
        marks[matching.BOUND_BY_CONTROLLER] = "yes"
    if matching.BIND_COMPLETED not in notes:
        marks[matching.BIND_COMPLETED] = "yes"
    if marks:
        patch["metadata"] = {"annotations": marks}
    actions: tuple[Action, ...] = (_patch_claim(claim, patch),) if patch else ()
    held = claim.get("status") or {}
    # The size of a bound claim changes only when its volume is expanded.
    size = held.get("capacity") if held.get("phase") == "Bound" else None
    status = {
        "phase": "Bound",
        "accessModes": volume["spec"].get("accessModes") or [],
        "capacity": size or volume["spec"].get("capacity") or {},
    }
    if all(held.get(key) == item for key, item in status.items()):
        return actions
    return (*actions, _claim_status(claim, status))


def plan_volume(
    volume: PersistentVolume,
    claim: PersistentVolumeClaim | None,
) -> tuple[Action, ...]:
    """claim is the one that claimRef names, if there is one of this name."""
    reference = volume["spec"].get("claimRef")
    if not reference or not reference.get("uid"):
        return _volume_phase(volume, "Available")
    if claim is None or claim["metadata"]["uid"] != reference["uid"]:
        return _reclaim(volume)
    name = claim["spec"].get("volumeName")
    if not name:
        # The claim's sync completes the binding.
        return ()
    if name == volume["metadata"]["name"]:
        return _volume_phase(volume, "Bound")
    return _unbind(volume)


def _unbind(volume: PersistentVolume) -> tuple[Action, ...]:
    """The claim has another volume; a volume made for it goes, one of a user waits for another."""
    if matching.PROVISIONED_BY in annotations_of(volume) and _policy(volume) == "Delete":
        return _reclaim(volume)
    if matching.BOUND_BY_CONTROLLER not in annotations_of(volume):
        fresh: dict[str, Any] = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
        return (_patch_volume(volume, fresh), *_volume_phase(volume, "Available"))
    marks = {matching.BOUND_BY_CONTROLLER: None}
    patch = {"metadata": {"annotations": marks}, "spec": {"claimRef": None}}
    return (_patch_volume(volume, patch), *_volume_phase(volume, "Available"))


def _policy(volume: PersistentVolume) -> str:
    return volume["spec"].get("persistentVolumeReclaimPolicy") or "Retain"


def _reclaim(volume: PersistentVolume) -> tuple[Action, ...]:
    """Its claim is gone. A provisioner deletes the volumes that it made when they are Released."""
    phase = (volume.get("status") or {}).get("phase")
    released = () if phase in ("Released", "Failed") else _volume_phase(volume, "Released")
    policy = _policy(volume)
    if policy == "Retain" or phase == "Failed":
        return released
    if policy == "Delete" and matching.PROVISIONED_BY in annotations_of(volume):
        return released
    adjective, reason = (
        ("deletable", "VolumeFailedDelete")
        if policy == "Delete"
        else ("recyclable", "VolumeFailedRecycle")
    )
    text = f"no {adjective} volume plugin matched"
    if policy == "Delete":
        text = (
            f'error getting deleter volume plugin for volume "{volume["metadata"]["name"]}": {text}'
        )
    return (
        *_volume_phase(volume, "Failed", text),
        Emit(volume, "Warning", reason, text),
    )


def _patch_volume(volume: PersistentVolume, patch: Mapping[str, Any]) -> Change:
    return Change(PERSISTENTVOLUMES, "", volume["metadata"]["name"], _guarded(volume, patch))


def _patch_claim(claim: PersistentVolumeClaim, patch: Mapping[str, Any]) -> Change:
    metadata = claim["metadata"]
    guarded = _guarded(claim, patch)
    return Change(PERSISTENTVOLUMECLAIMS, metadata["namespace"], metadata["name"], guarded)


def _guarded(
    obj: PersistentVolume | PersistentVolumeClaim,
    patch: Mapping[str, Any],
) -> dict[str, Any]:
    """A patch that is refused when the object changed meanwhile, or is another of its name."""
    metadata = obj["metadata"]
    guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    return {**patch, "metadata": {**(patch.get("metadata") or {}), **guard}}


def _volume_phase(volume: PersistentVolume, phase: str, message: str = "") -> tuple[Action, ...]:
    held = volume.get("status") or {}
    if held.get("phase") == phase:
        return ()
    metadata = volume["metadata"]
    status = {"phase": phase, "message": message or None}
    patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
    return (Change(PERSISTENTVOLUMES, "", metadata["name"], patch, "status"),)


def _claim_phase(claim: PersistentVolumeClaim, phase: str) -> tuple[Action, ...]:
    if (claim.get("status") or {}).get("phase") == phase:
        return ()
    return (_claim_status(claim, {"phase": phase, "accessModes": None, "capacity": None}),)


def _claim_status(claim: PersistentVolumeClaim, status: Mapping[str, Any]) -> Change:
    metadata = claim["metadata"]
    patch = {"metadata": {"uid": metadata["uid"]}, "status": dict(status)}
    return Change(PERSISTENTVOLUMECLAIMS, metadata["namespace"], metadata["name"], patch, "status")
