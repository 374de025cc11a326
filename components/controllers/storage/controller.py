"""The volume binder: one queue for claims and volumes, and one worker, as each may take from the
other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key
from kubewire.components.controllers.storage.binding import Storage, plan_claim, plan_volume
from kubewire.components.controllers.storage.users import claims_in_use
from kubewire.components.kubeapi import volumes as matching
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import (
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    STORAGECLASSES,
)

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        PersistentVolume,
        PersistentVolumeClaim,
        StorageClass,
    )

#: Seconds after which an unbound claim is looked at again (PVClaimBinderSyncPeriod).
_RESYNC = 15.0


class PersistentVolumeBinder(KeyedController):
    component = "persistentvolume-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims = self.follow(PERSISTENTVOLUMECLAIMS, self._on_claim)
        self.volumes = self.follow(PERSISTENTVOLUMES, self._on_volume)
        self.classes = self.follow(STORAGECLASSES, self._on_class)
        self.follow(PODS)
        self.users = self.informers.index(PODS, claims_in_use)

    def _on_claim(
        self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        self.enqueue(old, new)
        claim = new or old
        if claim is not None and (name := claim["spec"].get("volumeName")):
            self.queue.add(("", name))
        if new is None and old is not None:
            for key, volume in self.volumes.store.items():
                if matching.is_bound_to(volume, old):
                    self.queue.add(key)

    def _on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        self.enqueue(old, new)
        reference = (new or old or {})["spec"].get("claimRef")
        if reference:
            self.queue.add((reference["namespace"], reference["name"]))
        elif new is not None:
            self._enqueue_unbound()

    def _on_class(self, old: StorageClass | None, new: StorageClass | None) -> None:
        self._enqueue_unbound()

    def _enqueue_unbound(self) -> None:
        for key, claim in self.claims.store.items():
            if not claim["spec"].get("volumeName"):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        if not key[0]:
            await self._sync_volume(key)
            return
        claim = self.claims.store.get(key)
        if claim is None:
            return
        storage = Storage(
            {name: volume for (_, name), volume in self.volumes.store.items()},
            {name: item for (_, name), item in self.classes.store.items()},
            self.users.get("/".join(key)),
        )
        waits = (claim.get("status") or {}).get("phase") == "Pending"
        await self.apply(key, plan_claim(claim, storage), _RESYNC if waits else None)

    async def _sync_volume(self, key: Key) -> None:
        volume = self.volumes.store.get(key)
        if volume is None:
            return
        reference = volume["spec"].get("claimRef")
        claim = None
        if reference:
            place = (reference["namespace"], reference["name"])
            claim = self.claims.store.get(place)
            # A claim that the informer does not show may be newer than what it shows.
            if claim is None and not self._is_released(volume):
                claim = await self._read_claim(place)
        await self.apply(key, plan_volume(volume, claim))

    def _is_released(self, volume: PersistentVolume) -> bool:
        return (volume.get("status") or {}).get("phase") in ("Released", "Failed")

    async def _read_claim(self, key: Key) -> PersistentVolumeClaim | None:
        try:
            return await self.client.get(PERSISTENTVOLUMECLAIMS, key[1], key[0])
        except ApiError as error:
            if error.status != 404:
                raise
            return None
