"""The ConfigMaps and Secrets that pods of this node refer to.

Each object is watched by name while a pod uses it; this is upstream's default change detection
strategy, Watch. It does not list all Secrets, because upstream's node authorizer only lets a
kubelet read those of its own pods (https://kubernetes.io/docs/reference/access-authn-authz/node/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.resources import CONFIGMAPS, SECRETS, Resource, T

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ConfigMap, Secret

Key = tuple[str, str, str]


class ReferencedObjects:
    """Runs an informer per object in use. on_change gets the uids of the pods to sync again."""

    def __init__(self, client: Client, on_change: Callable[[Iterable[str]], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._informers: dict[Key, tuple[Informer[Any], asyncio.Task[None]]] = {}
        self._users: dict[Key, set[str]] = {}

    async def use(
        self,
        uid: str,
        namespace: str,
        config_maps: Iterable[str],
        secrets: Iterable[str],
    ) -> None:
        """Declares all objects that the pod uses; returns when each has been looked up once."""
        wanted = {(CONFIGMAPS.plural, namespace, name) for name in config_maps}
        wanted |= {(SECRETS.plural, namespace, name) for name in secrets}
        for key in self._used_by(uid):
            if key not in wanted:
                self._drop(key, uid)
        for key in wanted:
            self._users.setdefault(key, set()).add(uid)
            if key not in self._informers:
                self._start(key)
        for key in sorted(wanted):
            if entry := self._informers.get(key):
                await entry[0].synced.wait()

    def release(self, uid: str) -> None:
        """Declares that the pod uses no objects any more."""
        for key in self._used_by(uid):
            self._drop(key, uid)

    def _used_by(self, uid: str) -> list[Key]:
        return [key for key, users in self._users.items() if uid in users]

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        return self._get(CONFIGMAPS, namespace, name)

    def secret(self, namespace: str, name: str) -> Secret | None:
        return self._get(SECRETS, namespace, name)

    def _get(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        entry = self._informers.get((resource.plural, namespace, name))
        found: T | None = entry[0].get(name, namespace) if entry else None
        return found

    def _start(self, key: Key) -> None:
        plural, namespace, name = key
        informer: Informer[Any] = Informer(
            self._client,
            CONFIGMAPS if plural == CONFIGMAPS.plural else SECRETS,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            handler=lambda old, new: self._on_change(tuple(self._users.get(key, ()))),
        )
        task = asyncio.create_task(informer.run(), name=f"watch {plural}/{name}")
        self._informers[key] = (informer, task)

    def _drop(self, key: Key, uid: str) -> None:
        self._users[key].discard(uid)
        if not self._users[key]:
            del self._users[key]
            self._informers.pop(key)[1].cancel()

    async def close(self) -> None:
        for _, task in self._informers.values():
            task.cancel()
        self._informers.clear()
