"""Counts again when a quota changes and when something goes that it bounds."""

from __future__ import annotations

import asyncio
from typing import Any

from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.discovery import discover
from kubewire.components.controllers.meta import Key
from kubewire.components.controllers.resourcequota.plan import plan, resources_of
from kubewire.components.kubeapi import quotas
from kubewire.components.kubeapi.informer import Handler
from kubewire.components.kubeapi.resources import RESOURCEQUOTAS, KubeObject, Resource

#: Seconds after which everything is counted, whatever was seen.
_RESYNC = 300.0
#: Seconds after which a new object, which admission has counted, is surely seen here too.
_SETTLED = 1.0
_SYNC_PATIENCE = 10.0


class ResourceQuotaController(KeyedController):
    """Keys are quotas. The resources to follow are those that quotas name."""

    component = "resourcequota-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.quotas = self.follow(RESOURCEQUOTAS, self._on_quota)
        self.quotas_by_namespace = self.informers.index(RESOURCEQUOTAS, _namespaces)
        self.known: dict[str, Resource[Any]] = {}
        self.watched: set[Resource[Any]] = set()

    def _on_quota(self, old: KubeObject | None, new: KubeObject | None) -> None:
        metadata = (new or old or {})["metadata"]
        if old is None or new is None or old.get("spec") != new.get("spec"):
            self.queue.add((metadata["namespace"], metadata["name"]))

    def _handler(self, resource: str) -> Handler[KubeObject]:
        def handle(old: KubeObject | None, new: KubeObject | None) -> None:
            namespace = (new or old or {})["metadata"].get("namespace", "")
            for quota in self.quotas_by_namespace.get(namespace):
                if resource not in resources_of(quota):
                    continue
                key = (namespace, quota["metadata"]["name"])
                if new is None:
                    self.queue.add(key)
                elif old is None or quotas.usage(resource, old) != quotas.usage(resource, new):
                    self.queue.add_after(key, _SETTLED)

        return handle

    async def sync(self, key: Key) -> None:
        quota = self.quotas.store.get(key)
        if quota is None:
            return
        objects: dict[str, list[KubeObject]] = {}
        for name in resources_of(quota):
            resource = await self._resource(name)
            if resource is not None:
                objects[name] = await self._objects(name, resource, key[0])
        self.queue.add_after(key, _RESYNC)
        # The quota may have been written while the resources were looked up.
        quota = self.quotas.store.get(key) or quota
        await self.apply(key, plan(quota, objects, self.context.now()))

    async def _resource(self, name: str) -> Resource[Any] | None:
        """The resource of this name; None while there is none."""
        if name not in self.known:
            discovered = await discover(self.client)
            self.known = {
                f"{item.plural}.{item.group}".rstrip("."): item
                for item in discovered.having("list", "watch")
                if item.namespaced
            }
        return self.known.get(name)

    async def _objects(
        self, name: str, resource: Resource[Any], namespace: str
    ) -> list[KubeObject]:
        if resource not in self.watched:
            self.watched.add(resource)
            self.informers.handle(resource, self._handler(name))
        self.informers.start()
        informer = self.informers.get(resource)
        async with asyncio.timeout(_SYNC_PATIENCE):
            await informer.synced.wait()
        return self.informers.index(resource, _namespaces).get(namespace)


def _namespaces(obj: KubeObject) -> tuple[str, ...]:
    return (obj["metadata"].get("namespace", ""),)
