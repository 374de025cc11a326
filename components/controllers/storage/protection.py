"""Keeps claims that pods use and volumes that are bound until nobody needs them
(https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection).

A finalizer holds the object. Admission sets it on creation; here it is added to older objects, and
removed from one that is being deleted and is no longer in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Change
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, is_deleting
from kubewire.components.controllers.pods import is_finished
from kubewire.components.controllers.storage.users import claims_in_use
from kubewire.components.kubeapi.resources import (
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    Resource,
)
from kubewire.components.kubeapi.volumes import CLAIM_FINALIZER, VOLUME_FINALIZER

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import PersistentVolume, PersistentVolumeClaim, Pod


def plan_claim(claim: PersistentVolumeClaim, users: Sequence[Pod]) -> tuple[Action, ...]:
    """users are the pods that mount the claim; one that has finished, or has no node yet, does not
    hold it."""
    in_use = any(pod["spec"].get("nodeName") and not is_finished(pod) for pod in users)
    return _plan(PERSISTENTVOLUMECLAIMS, claim, CLAIM_FINALIZER, in_use)


def plan_volume(volume: PersistentVolume) -> tuple[Action, ...]:
    in_use = (volume.get("status") or {}).get("phase") == "Bound"
    return _plan(PERSISTENTVOLUMES, volume, VOLUME_FINALIZER, in_use)


def _plan(
    resource: Resource[PersistentVolumeClaim] | Resource[PersistentVolume],
    obj: PersistentVolumeClaim | PersistentVolume,
    finalizer: str,
    in_use: bool,
) -> tuple[Action, ...]:
    metadata = obj["metadata"]
    held = metadata.get("finalizers") or []
    if is_deleting(obj) and finalizer in held and not in_use:
        wanted = [item for item in held if item != finalizer]
    elif not is_deleting(obj) and finalizer not in held:
        wanted = [*held, finalizer]
    else:
        return ()
    patch = {
        "metadata": {
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": wanted,
        }
    }
    return (Change(resource, metadata.get("namespace", ""), metadata["name"], patch),)


class ClaimProtection(KeyedController):
    component = "persistentvolumeclaim-protection-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims = self.follow(PERSISTENTVOLUMECLAIMS, self.enqueue)
        self.follow(PODS, self._on_pod)
        self.users = self.informers.index(PODS, claims_in_use)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        for value in claims_in_use(pod) if pod is not None else ():
            namespace, _, name = value.partition("/")
            claim = self.claims.store.get((namespace, name))
            if claim is not None and is_deleting(claim):
                self.queue.add((namespace, name))

    async def sync(self, key: Key) -> None:
        claim = self.claims.store.get(key)
        if claim is not None:
            await self.apply(key, plan_claim(claim, self.users.get("/".join(key))))


class VolumeProtection(KeyedController):
    component = "persistentvolume-protection-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.volumes = self.follow(PERSISTENTVOLUMES, self.enqueue)

    async def sync(self, key: Key) -> None:
        volume = self.volumes.store.get(key)
        if volume is not None:
            await self.apply(key, plan_volume(volume))
