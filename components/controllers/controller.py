"""The loop around a plan: a work queue of keys, one at a time per key, never on a stale view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from kubewire.components.controllers.actions import Action, Applier
from kubewire.components.controllers.flags import Options
from kubewire.components.controllers.meta import Key, controller_of, key_of
from kubewire.components.controllers.sharedinformers import SharedInformers
from kubewire.components.controllers.workqueue import WorkQueue
from kubewire.components.controllers.writes import Writes
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.resources import KubeObject, Resource

#: How soon a key that waits for its own writes is looked at again if no event wakes it, in seconds.
_STALE_RETRY = 1.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class MakeRecorder(Protocol):
    def __call__(self, component: str) -> EventRecorder: ...


@dataclass(frozen=True)
class Context:
    """What a controller gets: nothing is global. now is replaced in tests."""

    client: Client
    informers: SharedInformers
    recorder: MakeRecorder
    options: Options = field(default_factory=Options)
    now: Callable[[], datetime] = utc_now


class Controller(Protocol):
    """run() until cancelled."""

    async def run(self) -> None: ...


class KeyedController:
    """Subclasses register handlers in __init__ through follow() and implement sync(key)."""

    #: Name in events' source.component, as upstream's.
    component = ""
    workers = 2

    def __init__(self, context: Context) -> None:
        self.context = context
        self.client, self.informers = context.client, context.informers
        self.queue: WorkQueue[Key] = WorkQueue()
        self.events = context.recorder(self.component)
        self.writes = Writes(context.informers.progress, context.informers.lookup)
        self._followed: list[Informer] = []

    def follow(
        self, resource: Resource, handler: Callable[[KubeObject | None, KubeObject | None], None] | None = None
    ) -> Informer:
        informer = self.informers.get(resource)
        self._followed.append(informer)
        if handler is not None:
            self.informers.handle(resource, handler)
        return informer

    def enqueue(self, old: KubeObject | None, new: KubeObject | None) -> None:
        self.queue.add(key_of(new or old or {}))

    def enqueue_owner(self, kind: str) -> Callable[[KubeObject | None, KubeObject | None], None]:
        """Handler: the controller of this kind of the object, before and after the change."""

        def handle(old: KubeObject | None, new: KubeObject | None) -> None:
            for obj in (old, new):
                owner = controller_of(obj) if obj else None
                if owner and owner["kind"] == kind:
                    self.queue.add(((obj or {})["metadata"].get("namespace", ""), owner["name"]))

        return handle

    async def run(self) -> None:
        await wait_synced(*self._followed)
        await self.queue.run(self._work, workers=self.workers)

    async def _work(self, key: Key) -> None:
        if not self.writes.caught_up(key):
            self.queue.add_after(key, _STALE_RETRY)
            return
        await self.sync(key)

    async def sync(self, key: Key) -> None:
        raise NotImplementedError

    async def apply(self, key: Key, actions: Iterable[Action], requeue_after: float | None = None) -> None:
        if requeue_after is not None:
            self.queue.add_after(key, requeue_after)
        await Applier(self.client, self.events, self.writes, key).run(actions)
