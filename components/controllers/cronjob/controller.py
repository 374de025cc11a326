"""Runs the CronJob plan on the Jobs that a CronJob controls."""

from __future__ import annotations

from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.cronjob.plan import plan
from kubewire.components.controllers.meta import Key
from kubewire.components.controllers.sharedinformers import owner_values
from kubewire.components.kubeapi.resources import CRONJOBS, JOBS


class CronJobController(KeyedController):
    component = "cronjob-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.cronjobs = self.follow(CRONJOBS, self.enqueue)
        self.follow(JOBS, self.enqueue_owner("CronJob"))
        self.jobs_by_owner = self.informers.index(JOBS, owner_values)

    async def sync(self, key: Key) -> None:
        cronjob = self.cronjobs.store.get(key)
        if cronjob is None:
            return
        jobs = self.jobs_by_owner.get(cronjob["metadata"]["uid"])
        step = plan(cronjob, jobs, self.context.now())
        await self.apply(key, step.actions, step.requeue_after)
