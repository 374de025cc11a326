"""Lists and then watches one resource, and keeps a local store of it: client-go's reflector and
informer in one.

A list returns all objects and a resourceVersion; a watch from that version on returns every later
change, so the two together never miss one. When the connection breaks, the watch continues from the
last version seen. Only if the server has forgotten that version (410 Gone) is the list repeated,
and the differences become changes for the handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic

from kubewire.components.base.retrying import GrowingDelay
from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.resources import Resource, T

log = logging.getLogger(__name__)

#: Called for each change with (old, new): (None, new) for added, (old, new) for changed, (old,
#: None) for deleted.
Handler = Callable[[T | None, T | None], None]
Key = tuple[str, str]

_BACKOFF_FIRST = 0.05
_BACKOFF_LAST = 5.0


def key_of(obj: Mapping[str, Any]) -> Key:
    """(namespace, name); the namespace of a cluster-scoped object is ""."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Informer(Generic[T]):
    """The store follows the API server, across broken connections and restarts of the server. The
    handler is called for real changes only, also after a repeated list, and must not block."""

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        handler: Handler[T] | None = None,
        transform: Callable[[T], T] | None = None,
        optional: bool = False,
    ) -> None:
        """optional: the API server may not serve the resource, because its CRD is not installed.
        Until it does, the resource counts as one without objects, and nothing is logged."""
        self.client = client
        self.resource = resource
        self.store: dict[Key, T] = {}
        self.synced = asyncio.Event()
        self._scope = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._handlers: list[Handler[T]] = [handler] if handler else []
        self._transform = transform
        self._optional = optional
        self._resource_version = ""

    def add_handler(self, handler: Handler[T]) -> None:
        """Call it before run(): a later handler would miss the objects that are already in the
        store."""
        self._handlers.append(handler)

    def get(self, name: str, namespace: str = "") -> T | None:
        return self.store.get((namespace, name))

    async def run(self) -> None:
        """Runs until cancelled. Errors are logged and retried with a growing delay (50 ms to 5
        s)."""
        delay = GrowingDelay(_BACKOFF_FIRST, _BACKOFF_LAST)
        while True:
            try:
                if not self._resource_version:
                    await self._relist()
                    delay.reset()
                await self._watch()
                delay.reset()
                continue
            except ApiUnavailable as error:
                log.debug("%s: %s", self.resource.plural, error)
            except ApiError as error:
                if error.status == 410:
                    self._resource_version = ""
                    continue
                if error.status == 404 and self._optional:
                    self._not_served()
                    await delay.sleep()
                    continue
                log.warning("%s: %s", self.resource.plural, error)
                self._resource_version = ""
            await delay.sleep()

    async def _relist(self) -> None:
        listed = await self.client.list(
            self.resource,
            self._scope,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        fresh = {key_of(item): item for item in listed.items}
        for key in [key for key in self.store if key not in fresh]:
            self._remove(key)
        for item in fresh.values():
            self._put(item)
        self._resource_version = listed.resource_version
        self.synced.set()

    def _not_served(self) -> None:
        for key in list(self.store):
            self._remove(key)
        self._resource_version = ""
        self.synced.set()

    async def _watch(self) -> None:
        events = self.client.watch(
            self.resource,
            self._scope,
            resource_version=self._resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        async for event in events:
            self._resource_version = event.object["metadata"]["resourceVersion"]
            if event.type == "DELETED":
                self._remove(key_of(event.object), event.object)
            elif event.type != "BOOKMARK":
                self._put(event.object)

    def _put(self, obj: T) -> None:
        obj = self._transform(obj) if self._transform else obj
        key = key_of(obj)
        old = self.store.get(key)
        if (
            old is not None
            and old["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]
        ):
            return
        replaced = old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid")
        if replaced:
            # Deleted and created again between two lists: handlers must see both.
            self._remove(key)
            old = None
        self.store[key] = obj
        self._tell(old, obj)

    def _remove(self, key: Key, last: T | None = None) -> None:
        old = self.store.pop(key, None)
        if old is not None:
            self._tell(last if last is not None else old, None)

    def _tell(self, old: T | None, new: T | None) -> None:
        for handler in self._handlers:
            try:
                handler(old, new)
            except Exception:  # an error in one handler must not end the watch for the others
                log.exception(
                    "a handler of %s failed on %s",
                    self.resource.plural,
                    key_of(new or old or {}),
                )


async def wait_synced(*informers: Informer[Any]) -> None:
    """Returns when every informer has completed its first list."""
    for informer in informers:
        await informer.synced.wait()
