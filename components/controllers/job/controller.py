"""The controllers of Jobs and of their deletion some time after they finished."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Delete
from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.job.indexes import FINALIZER
from kubewire.components.controllers.job.plan import (
    has_finalizer,
    plan,
    remove_finalizer,
    until_expired,
)
from kubewire.components.controllers.meta import Key, controller_of
from kubewire.components.controllers.sharedinformers import (
    namespace_values,
    orphans_in,
    owner_values,
)
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import JOBS, PODS
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod


class JobController(KeyedController):
    component = "job-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs = self.follow(JOBS, self.enqueue)
        self.pods_by_owner = self.informers.index(PODS, owner_values)
        self.pods_by_namespace = self.informers.index(PODS, namespace_values)
        self.follow(PODS, self.enqueue_owner("Job"))
        self.orphans = OrphanPods(context)

    async def run(self) -> None:
        await asyncio.gather(super().run(), self.orphans.run())

    async def sync(self, key: Key) -> None:
        job = self.jobs.store.get(key)
        if job is None:
            await self._release_orphans(key)
            return
        orphans = self.pods_by_owner.get(orphans_in(key[0]))
        pods = self.pods_by_owner.get(job["metadata"]["uid"]) + orphans
        selector = LabelSelector.from_object(job["spec"].get("selector"))
        claimed = claim(job, selector, PODS, pods, finalizer=FINALIZER)
        await self.apply(key, claimed.changes)
        step = plan(job, claimed.owned, self.context.now())
        await self.apply(key, step.actions, step.requeue_after)

    async def _release_orphans(self, key: Key) -> None:
        """Removes the tracking finalizer from pods of a deleted Job.

        No controller counts these pods any more, so the finalizer must not keep them.
        """
        for pod in self.pods_by_namespace.get(key[0]):
            owner = controller_of(pod)
            if owner and owner["kind"] == "Job" and owner["name"] == key[1] and has_finalizer(pod):
                try:
                    await self.apply(key, [remove_finalizer(pod)])
                except ApiError as error:
                    if error.status != 404:
                        raise


class OrphanPods(KeyedController):
    """Frees pods that no controller has, of a Job that was deleted without them; keys are pods."""

    component = "job-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.follow(PODS, self._on_pod)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and has_finalizer(new) and controller_of(new) is None:
            self.enqueue(old, new)

    async def sync(self, key: Key) -> None:
        pod = self.pods.store.get(key)
        if pod is not None and has_finalizer(pod) and controller_of(pod) is None:
            await self.apply(key, [remove_finalizer(pod)])


class TtlAfterFinishedController(KeyedController):
    component = "ttl-after-finished-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs = self.follow(JOBS, self.enqueue)

    async def sync(self, key: Key) -> None:
        job = self.jobs.store.get(key)
        left = until_expired(job, self.context.now()) if job else None
        if job is None or left is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        delete = Delete(JOBS, *key, job["metadata"]["uid"], propagation_policy="Foreground")
        await self.apply(key, [delete])
