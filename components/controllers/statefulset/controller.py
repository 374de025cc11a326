"""Runs the StatefulSet plan on the pods that match by name and selector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, controller_of, labels_of
from kubewire.components.controllers.sharedinformers import (
    namespace_values,
    orphans_in,
    owner_values,
)
from kubewire.components.controllers.statefulset.identity import ordinal_of
from kubewire.components.controllers.statefulset.plan import plan
from kubewire.components.kubeapi.resources import (
    CONTROLLERREVISIONS,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    STATEFULSETS,
)
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod


class StatefulSetController(KeyedController):
    component = "statefulset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.sets = self.follow(STATEFULSETS, self.enqueue)
        self.follow(CONTROLLERREVISIONS, self.enqueue_owner("StatefulSet"))
        self.revisions_by_owner = self.informers.index(CONTROLLERREVISIONS, owner_values)
        self.pods_by_owner = self.informers.index(PODS, owner_values)
        self.follow(PODS, self.enqueue_owner("StatefulSet"))
        self.informers.handle(PODS, self._enqueue_adopters)
        self.follow(PERSISTENTVOLUMECLAIMS)
        self.claims = self.informers.index(PERSISTENTVOLUMECLAIMS, namespace_values)

    def _enqueue_adopters(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or controller_of(new) is not None:
            return
        name = new["metadata"]["name"].rpartition("-")[0]
        key = (new["metadata"]["namespace"], name)
        statefulset = self.sets.store.get(key)
        if statefulset is not None:
            selector = LabelSelector.from_object(statefulset["spec"]["selector"])
            if selector.matches(labels_of(new)):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        statefulset = self.sets.store.get(key)
        if statefulset is None:
            return
        uid = statefulset["metadata"]["uid"]
        orphans = orphans_in(key[0])
        selector = LabelSelector.from_object(statefulset["spec"]["selector"])
        candidates = self.pods_by_owner.get(uid) + self.pods_by_owner.get(orphans)

        def has_ordinal(pod: Pod) -> bool:
            return ordinal_of(statefulset, pod) >= 0

        claimed = claim(statefulset, selector, PODS, candidates, admits=has_ordinal)
        revisions = self.revisions_by_owner.get(uid) + self.revisions_by_owner.get(orphans)
        histories = claim(statefulset, selector, CONTROLLERREVISIONS, revisions)
        await self.apply(key, claimed.changes + histories.changes)
        held = {claim["metadata"]["name"]: claim for claim in self.claims.get(key[0])}
        now = self.context.now()
        step = plan(statefulset, claimed.owned, histories.owned, now, held)
        await self.apply(key, step.actions, step.requeue_after)
