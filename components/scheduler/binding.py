"""Writes a scheduling decision about volumes, and waits until the claims are bound (upstream's
VolumeBinding, Reserve and PreBind)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kubewire.components.kubeapi import volumes as matching
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.resources import (
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
)
from kubewire.components.scheduler.podspec import PodInfo
from kubewire.components.scheduler.volumes import Choice, Storage, choose, claims_of, is_bound

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, PersistentVolume, PersistentVolumeClaim

#: Seconds in which the claims have to be bound (bindTimeoutSeconds).
_PATIENCE = 600.0


class VolumeBinder:
    """Follows claims, volumes and classes, and binds the claims of pods that have got a node.

    on_change is called when a claim, a volume or a class changes.
    """

    def __init__(self, client: Client, on_change: Callable[[], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._claims = Informer(client, PERSISTENTVOLUMECLAIMS, handler=self._changed)
        self._volumes = Informer(client, PERSISTENTVOLUMES, handler=self._changed)
        self._classes = Informer(client, STORAGECLASSES, handler=self._changed)
        self._reserved: dict[tuple[str, str], frozenset[str]] = {}
        self._news = asyncio.Event()

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        return self._claims, self._volumes, self._classes

    def _changed(self, old: object, new: object) -> None:
        # Everyone who waits has this event; who waits next gets a new one.
        self._news.set()
        self._news = asyncio.Event()
        self._on_change()

    def storage(self) -> Storage:
        return Storage(
            self._claims.store,
            {name: volume for (_, name), volume in self._volumes.store.items()},
            {name: item for (_, name), item in self._classes.store.items()},
            frozenset(name for names in self._reserved.values() for name in names),
        )

    def reserve(self, pod: PodInfo, node: Node) -> Choice:
        """The volumes of a pod that gets this node; other pods do not get them meanwhile."""
        if not matching.claim_names(pod.obj):
            return Choice()
        storage = self.storage()
        choice = choose(claims_of(pod, storage), storage, node) or Choice()
        self._reserved[pod.key] = frozenset(
            volume["metadata"]["name"] for volume in choice.bind.values()
        )
        return choice

    def release(self, pod: PodInfo) -> None:
        self._reserved.pop(pod.key, None)

    def _claim(self, namespace: str, name: str) -> PersistentVolumeClaim | None:
        return self._claims.get(name, namespace)

    async def bind(self, pod: PodInfo, node: str, choice: Choice) -> None:
        """Raises ApiError when a write is refused, or the volumes do not come."""
        for name, volume in choice.bind.items():
            await self._claim_volume(pod.namespace, name, volume)
        selected = {
            name: await self._select_node(pod.namespace, name, node) for name in choice.provision
        }
        names = [*choice.bind, *choice.provision]
        try:
            async with asyncio.timeout(_PATIENCE):
                while not self._are_bound(pod.namespace, names, node, selected):
                    await self._news.wait()
        except TimeoutError:
            text = f"binding volumes: timed out waiting for the condition ({', '.join(names)})"
            raise ApiError(504, "Timeout", text) from None

    async def _claim_volume(self, namespace: str, name: str, volume: PersistentVolume) -> None:
        claim = self._claim(namespace, name)
        if claim is None or matching.is_bound_to(volume, claim):
            return
        metadata = volume["metadata"]
        reference = {
            "kind": "PersistentVolumeClaim",
            "apiVersion": "v1",
            "namespace": namespace,
            "name": name,
            "uid": claim["metadata"]["uid"],
        }
        patch = {
            "metadata": {
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
                "annotations": {matching.BOUND_BY_CONTROLLER: "yes"},
            },
            "spec": {"claimRef": reference},
        }
        await self._client.patch(PERSISTENTVOLUMES, metadata["name"], patch)

    async def _select_node(self, namespace: str, name: str, node: str) -> int:
        """Returns the claim's version with the annotation, which its provisioner waits for."""
        marks: dict[str, Any] = {matching.SELECTED_NODE: node}
        patch = {"metadata": {"annotations": marks}}
        written = await self._client.patch(PERSISTENTVOLUMECLAIMS, name, patch, namespace)
        return int(written["metadata"]["resourceVersion"])

    def _are_bound(
        self,
        namespace: str,
        names: list[str],
        node: str,
        selected: Mapping[str, int],
    ) -> bool:
        """Raises ApiError when a claim is gone, or its provisioner has given up, which it says by
        removing the annotation."""
        bound = True
        for name in names:
            claim = self._claim(namespace, name)
            if claim is None:
                raise ApiError(409, "Conflict", f'persistentvolumeclaim "{name}" was deleted')
            if is_bound(claim):
                continue
            bound = False
            is_current = int(claim["metadata"]["resourceVersion"]) >= selected.get(name, 0)
            asked = matching.annotations_of(claim).get(matching.SELECTED_NODE)
            if name in selected and is_current and asked != node:
                raise ApiError(409, "Conflict", f'provisioning failed for PVC "{name}"')
        return bound
