"""The control loop around a plan.

A controller makes the cluster match what an object declares. It is level-triggered: an event says
only that an object changed, not what to do about it. The event therefore puts the object's key
(namespace and name) into a work queue, and the worker that takes the key looks at the whole
current state, plans the difference and writes it. A lost, late or doubled event is harmless, and a
controller that starts again needs no memory of what it did
(https://kubernetes.io/docs/concepts/architecture/controller/).

Three rules must always hold:

- Each key is worked on by one worker at a time. The queue collapses events of a key that arrive
  while it waits, and puts the key back when events arrive while it is worked on.
- A plan never sees a state older than the controller's own last write. Informers lag behind the
  API server, and a ReplicaSet controller that does not see the pods it has just created would
  create them again. Upstream counts expected events (its "expectations"); here the key waits until
  the informers show the resourceVersion of the last write (writes.py).
- A failed key is tried again with a growing delay, and does not hold up other keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from kubewire.components.controllers.actions import Action, Applier
from kubewire.components.controllers.flags import Options
from kubewire.components.controllers.meta import Key, controller_of, key_of
from kubewire.components.controllers.sharedinformers import SharedInformers
from kubewire.components.controllers.workqueue import WorkQueue
from kubewire.components.controllers.writes import Writes
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.informer import Handler, Informer, wait_synced
from kubewire.components.kubeapi.resources import Resource, T

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import PartialObjectMetadata

#: Seconds after which a key that waits for its own writes is checked again if no event does it.
_STALE_RETRY = 1.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class MakeRecorder(Protocol):
    def __call__(self, component: str) -> EventRecorder: ...


@dataclass(frozen=True)
class Context:
    """The dependencies of a controller, so that it uses no globals. Tests replace now."""

    client: Client
    informers: SharedInformers
    recorder: MakeRecorder
    options: Options = field(default_factory=Options)
    now: Callable[[], datetime] = utc_now


class Controller(Protocol):
    """A controller runs until its run() is cancelled."""

    async def run(self) -> None: ...


class KeyedController:
    """A controller with a queue of keys.

    Subclasses register handlers in __init__ through follow() and implement sync(key).
    """

    #: The name in source.component of its events, the same as upstream's.
    component = ""
    workers = 2

    def __init__(self, context: Context) -> None:
        self.context = context
        self.client = context.client
        self.informers = context.informers
        self.queue: WorkQueue[Key] = WorkQueue()
        self.events = context.recorder(self.component)
        self.writes = Writes(context.informers.progress, context.informers.lookup)
        self._followed: list[Informer[Any]] = []

    def follow(
        self,
        resource: Resource[T],
        handler: Handler[T] | None = None,
    ) -> Informer[T]:
        """Returns the informer of a resource, which run() waits for before it starts."""
        informer = self.informers.get(resource)
        self._followed.append(informer)
        if handler is not None:
            self.informers.handle(resource, handler)
        return informer

    def enqueue(self, old: PartialObjectMetadata | None, new: PartialObjectMetadata | None) -> None:
        self.queue.add(key_of(new or old or {}))

    def enqueue_owner(self, kind: str) -> Handler[PartialObjectMetadata]:
        """Returns a handler that enqueues the object's controller of this kind.

        Both the old and the new controller are enqueued when a change replaces it.
        """

        def handle(old: PartialObjectMetadata | None, new: PartialObjectMetadata | None) -> None:
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
        """Brings the object of this key one step closer to what it declares."""
        raise NotImplementedError

    async def apply(
        self,
        key: Key,
        actions: Iterable[Action],
        requeue_after: float | None = None,
    ) -> None:
        if requeue_after is not None:
            self.queue.add_after(key, requeue_after)
        await Applier(self.client, self.events, self.writes, key).run(actions)
