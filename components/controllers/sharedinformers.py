"""One informer per resource for the whole process, with indexes (client-go's
SharedInformerFactory).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic

from kubewire.components.controllers.meta import Key, controller_uid
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.informer import Handler, Informer, key_of
from kubewire.components.kubeapi.resources import Resource, T

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import PartialObjectMetadata, Pod


class Index(Generic[T]):
    """The objects of an informer by the values of a function, sorted by namespace and name."""

    def __init__(self, values: Callable[[T], Iterable[str]]) -> None:
        self._values = values
        self._buckets: dict[str, dict[Key, T]] = {}
        self._where: dict[Key, tuple[str, ...]] = {}

    def handle(self, old: T | None, new: T | None) -> None:
        key = key_of(new or old or {})
        for value in self._where.pop(key, ()):
            bucket = self._buckets[value]
            bucket.pop(key, None)
            if not bucket:
                del self._buckets[value]
        if new is not None:
            values = tuple(self._values(new))
            self._where[key] = values
            for value in values:
                self._buckets.setdefault(value, {})[key] = new

    def get(self, value: str) -> list[T]:
        bucket = self._buckets.get(value)
        return [bucket[key] for key in sorted(bucket)] if bucket else []


def owner_values(obj: PartialObjectMetadata) -> tuple[str, ...]:
    """Indexes objects by their controller's uid, and orphans, which may be adopted, by
    namespace.
    """
    return (controller_uid(obj) or orphans_in(obj["metadata"].get("namespace", "")),)


def orphans_in(namespace: str) -> str:
    return f"orphans/{namespace}"


def namespace_values(obj: PartialObjectMetadata) -> tuple[str, ...]:
    return (obj["metadata"].get("namespace", ""),)


def node_values(pod: Pod) -> tuple[str, ...]:
    return (pod["spec"].get("nodeName") or "",)


class SharedInformers:
    """The informers; get() creates one on first use, and start() runs those that do not run yet."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Resource[Any], Informer[Any]] = {}
        self._indexes: dict[tuple[Resource[Any], Callable[[Any], Iterable[str]]], Index[Any]] = {}
        self._progress: dict[Resource[Any], int] = {}
        self._tasks: dict[Resource[Any], asyncio.Task[None]] = {}

    def get(self, resource: Resource[T]) -> Informer[T]:
        if resource not in self._informers:
            informer = Informer(self._client, resource, transform=_without_managed_fields)
            self._informers[resource] = informer
            self._progress[resource] = 0
            informer.add_handler(lambda old, new: self._advance(resource, old, new))
        shared: Informer[T] = self._informers[resource]
        return shared

    def handle(self, resource: Resource[T], handler: Handler[T]) -> None:
        """Adds a handler; if the informer runs already, the handler gets every stored object as
        added.
        """
        informer = self.get(resource)
        informer.add_handler(handler)
        for obj in list(informer.store.values()):
            handler(None, obj)

    def index(self, resource: Resource[T], values: Callable[[T], Iterable[str]]) -> Index[T]:
        if (resource, values) not in self._indexes:
            index = Index(values)
            self._indexes[resource, values] = index
            self.handle(resource, index.handle)
        shared: Index[T] = self._indexes[resource, values]
        return shared

    def progress(self, resource: Resource[Any]) -> int | None:
        """The highest resourceVersion seen; None for a resource without an informer."""
        return self._progress.get(resource)

    def lookup(self, resource: Resource[T], key: Key) -> T | None:
        informer = self._informers.get(resource)
        return informer.store.get(key) if informer else None

    def _advance(self, resource: Resource[T], old: T | None, new: T | None) -> None:
        obj: Mapping[str, Any] = new or old or {}
        version = obj["metadata"].get("resourceVersion", "0")
        self._progress[resource] = max(self._progress[resource], int(version))

    def start(self) -> None:
        """Runs every informer that does not run yet."""
        for resource, informer in self._informers.items():
            if resource not in self._tasks:
                self._tasks[resource] = asyncio.create_task(
                    informer.run(),
                    name=f"informer/{resource.plural}",
                )

    def drop(self, resource: Resource[Any]) -> None:
        """Stops following a resource that is no longer served, and forgets its objects."""
        task = self._tasks.pop(resource, None)
        if task is not None:
            task.cancel()
        informer = self._informers.pop(resource, None)
        self._progress.pop(resource, None)
        self._indexes = {key: index for key, index in self._indexes.items() if key[0] != resource}
        if informer is not None:
            informer.store.clear()

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _without_managed_fields(obj: T) -> T:
    # No controller reads managedFields, and they take a good part of an object's memory.
    obj["metadata"].pop("managedFields", None)
    return obj
