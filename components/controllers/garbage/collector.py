"""Follows every resource that discovery lists, custom ones included, and applies the graph's
decisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.controller import Context
from kubewire.components.controllers.discovery import discover
from kubewire.components.controllers.garbage.graph import (
    FOREGROUND,
    ORPHAN,
    Decision,
    Graph,
    Node,
    OwnerState,
    Verdict,
    decide,
)
from kubewire.components.controllers.workqueue import WorkQueue
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.informer import Handler
from kubewire.components.kubeapi.resources import (
    CUSTOMRESOURCEDEFINITIONS,
    EVENTS,
    KubeObject,
    Resource,
)

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ObjectMeta, OwnerReference, PartialObjectMetadata

log = logging.getLogger(__name__)
_RESYNC = 30.0
_WORKERS = 20
_SYNC_PATIENCE = 10.0
_REMEMBERED_ABSENT = 1000


class GarbageCollector:
    """The controller; the keys of its queue are uids."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.client = context.client
        self.graph = Graph()
        self.queue: WorkQueue[str] = WorkQueue()
        self.kinds: dict[tuple[str, str], Resource[Any]] = {}
        self.watched: set[Resource[Any]] = set()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._resync_now = asyncio.Event()
        self._ready = asyncio.Event()
        context.informers.handle(
            CUSTOMRESOURCEDEFINITIONS,
            lambda _old, _new: self._resync_now.set(),
        )

    async def run(self) -> None:
        await asyncio.gather(self._follow_discovery(), self._work())

    async def _work(self) -> None:
        await self._ready.wait()
        await self.queue.run(self.sync, workers=_WORKERS)

    async def _follow_discovery(self) -> None:
        while True:
            self._resync_now.clear()
            try:
                await self._resync()
                self._ready.set()
            except ApiError as error:
                log.warning("cannot discover the resources to follow: %s", error)
            try:
                # A new CustomResourceDefinition's resource is served a moment after it appears, so
                # discovery is read shortly after the event, not at once.
                async with asyncio.timeout(_RESYNC if self._ready.is_set() else 1.0):
                    await self._resync_now.wait()
                await asyncio.sleep(0.2)
            except TimeoutError:
                pass

    async def _resync(self) -> None:
        discovered = await discover(self.client)
        wanted = {
            resource
            for resource in discovered.having("delete", "list", "watch")
            if resource.plural != "events" and resource != EVENTS
        }
        self.kinds = {}
        for resource in discovered.verbs:
            self.kinds[_group_version(resource), resource.kind] = resource
        if not discovered.failed:
            for resource in self.watched - wanted:
                self._unwatch(resource)
        for resource in sorted(wanted - self.watched, key=lambda item: (item.group, item.plural)):
            self.watched.add(resource)
            self.context.informers.get(resource)
            self.context.informers.handle(resource, self._handler(resource))
        self.context.informers.start()
        waiting = [self.context.informers.get(resource).synced.wait() for resource in wanted]
        # A resource that cannot be listed must not stop collection of the others. Proceeding
        # without it is safe, because an owner missing from the graph is looked up in the API.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SYNC_PATIENCE):
                await asyncio.gather(*waiting)

    def _unwatch(self, resource: Resource[Any]) -> None:
        self.watched.discard(resource)
        self.context.informers.drop(resource)
        for node in self.graph.of_resource(resource):
            self._forget(node.uid)

    def _handler(
        self,
        resource: Resource[Any],
    ) -> Handler[PartialObjectMetadata]:
        def handle(old: PartialObjectMetadata | None, new: PartialObjectMetadata | None) -> None:
            if new is None:
                self._forget((old or {})["metadata"]["uid"])
                return
            node = Node.of(resource, new)
            before = self.graph.get(node.uid)
            if before != node:
                self.graph.put(node)
                self._changed(before, node)

        return handle

    def _changed(self, before: Node | None, node: Node) -> None:
        if node.owners or node.waits_for_dependents or node.orphans_dependents:
            self.queue.add(node.uid)
        if node.waits_for_dependents:
            for child in self.graph.dependents(node.uid):
                self.queue.add(child.uid)
        # A former owner in foreground deletion may have waited for this change.
        for owner in before.owners if before else ():
            self._look_at_owner(owner["uid"])

    def _forget(self, uid: str) -> None:
        node = self.graph.remove(uid)
        self._remember_absent(uid)
        for child in self.graph.dependents(uid):
            self.queue.add(child.uid)
        for owner in node.owners if node else ():
            self._look_at_owner(owner["uid"])

    def _look_at_owner(self, uid: str) -> None:
        owner = self.graph.get(uid)
        if owner is not None and owner.waits_for_dependents:
            self.queue.add(uid)

    def _remember_absent(self, uid: str) -> None:
        self._absent[uid] = None
        while len(self._absent) > _REMEMBERED_ABSENT:
            self._absent.popitem(last=False)

    async def sync(self, uid: str) -> None:
        """Decides about one object and carries the decision out."""
        node = self.graph.get(uid)
        if node is None:
            return
        states = {owner["uid"]: await self._state_of(node, owner) for owner in node.owners}
        children = self.graph.dependents(uid)
        decision = decide(node, children, lambda owner: states[owner["uid"]])
        try:
            await self._carry_out(node, children, decision)
        except ApiError as error:
            if error.status != 404:
                raise

    async def _state_of(self, node: Node, owner: OwnerReference) -> OwnerState:
        """The state of an owner; one the graph does not know is looked up in the API server.

        The informers may lag behind, so an owner missing from the graph proves nothing.
        """
        known = self.graph.get(owner["uid"])
        if known is not None:
            return OwnerState.WAITING if known.waits_for_dependents else OwnerState.SOLID
        if owner["uid"] in self._absent:
            return OwnerState.DANGLING
        resource = self.kinds.get((owner["apiVersion"], owner["kind"]))
        if resource is None:
            text = "%s/%s has an owner of kind %s, which is not served"
            log.debug(text, node.namespace, node.name, owner["kind"])
            return OwnerState.UNKNOWN
        try:
            current = await self.client.get(resource, owner["name"], node.namespace or None)
        except ApiError as error:
            if error.status != 404:
                raise
            self._remember_absent(owner["uid"])
            return OwnerState.DANGLING
        if current["metadata"]["uid"] != owner["uid"]:
            self._remember_absent(owner["uid"])
            return OwnerState.DANGLING
        waits = Node.of(resource, current).waits_for_dependents
        return OwnerState.WAITING if waits else OwnerState.SOLID

    async def _carry_out(self, node: Node, children: list[Node], decision: Decision) -> None:
        match decision.verdict:
            case Verdict.DELETE:
                if decision.unblock:
                    await self._unblock(node)
                await self.client.delete(
                    node.resource,
                    node.name,
                    node.namespace or None,
                    propagation_policy=decision.policy,
                    uid=node.uid,
                )
            case Verdict.DROP_REFERENCES:
                await self._cut(node, decision.drop)
            case Verdict.ORPHAN:
                for child in children:
                    await self._cut(child, frozenset({node.uid}))
                await self._remove_finalizer(node, ORPHAN)
            case Verdict.REMOVE_FINALIZER:
                await self._remove_finalizer(node, FOREGROUND)
            case Verdict.WAIT:
                for child in children:
                    if not child.deleting:
                        self.queue.add(child.uid)
            case Verdict.KEEP:
                pass

    async def _cut(self, node: Node, uids: frozenset[str]) -> None:
        """Removes the references to these owners from the object."""
        fresh = await self._fresh(node)
        if fresh is None:
            return
        owners = fresh.get("ownerReferences") or []
        references = [item for item in owners if item["uid"] not in uids]
        await self._patch(node, fresh, {"ownerReferences": references})

    async def _unblock(self, node: Node) -> None:
        """Keeps the references, but no foreground deletion waits for the object any more."""
        fresh = await self._fresh(node)
        if fresh is None:
            return
        owners = fresh.get("ownerReferences") or []
        references = [{**item, "blockOwnerDeletion": False} for item in owners]
        await self._patch(node, fresh, {"ownerReferences": references})

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        fresh = await self._fresh(node)
        if fresh is None:
            return
        kept = [item for item in fresh.get("finalizers") or [] if item != finalizer]
        await self._patch(node, fresh, {"finalizers": kept})

    async def _fresh(self, node: Node) -> ObjectMeta | None:
        """The object's present metadata, or None when it is gone or another object has its name."""
        try:
            current = await self.client.get(node.resource, node.name, node.namespace or None)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        metadata: ObjectMeta = current["metadata"]
        return metadata if metadata["uid"] == node.uid else None

    async def _patch(self, node: Node, fresh: ObjectMeta, change: KubeObject) -> None:
        metadata = {"uid": fresh["uid"], "resourceVersion": fresh["resourceVersion"], **change}
        await self.client.patch(
            node.resource,
            node.name,
            {"metadata": metadata},
            node.namespace or None,
        )


def _group_version(resource: Resource[Any]) -> str:
    return resource.api_version
