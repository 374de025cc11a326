"""Runs the Deployment plan: claims ReplicaSets, carries out one step, resolves hash collisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Create, Update
from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.deployment.plan import plan
from kubewire.components.controllers.meta import Key, controller_of, controller_uid
from kubewire.components.controllers.podtemplate import equal_ignoring_hash
from kubewire.components.controllers.sharedinformers import orphans_in, owner_values
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import DEPLOYMENTS, PODS, REPLICASETS
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Deployment, Pod, ReplicaSet


class DeploymentController(KeyedController):
    component = "deployment-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.deployments = self.follow(DEPLOYMENTS, self.enqueue)
        self.sets = self.follow(REPLICASETS, self.enqueue_owner("Deployment"))
        self.sets_by_owner = self.informers.index(REPLICASETS, owner_values)
        self.pods_by_owner = self.informers.index(PODS, owner_values)
        self.informers.handle(REPLICASETS, self._enqueue_adopters)
        self.follow(PODS, self._enqueue_recreating)

    def _enqueue_adopters(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        if new is None or controller_of(new) is not None:
            return
        namespace = new["metadata"]["namespace"]
        labels = new["metadata"].get("labels")
        for key, deployment in self.deployments.store.items():
            if key[0] != namespace:
                continue
            if LabelSelector.from_object(deployment["spec"]["selector"]).matches(labels):
                self.queue.add(key)

    def _enqueue_recreating(self, old: Pod | None, new: Pod | None) -> None:
        """Enqueues the Deployment of a deleted pod, because Recreate waits for the old pods to
        go.
        """
        if new is not None or old is None:
            return
        owner = controller_of(old)
        if owner is None or owner["kind"] != "ReplicaSet":
            return
        namespace = old["metadata"]["namespace"]
        replicaset = self.sets.get(owner["name"], namespace)
        deployment = controller_of(replicaset) if replicaset else None
        if deployment is not None:
            self.queue.add((namespace, deployment["name"]))

    async def sync(self, key: Key) -> None:
        deployment = self.deployments.store.get(key)
        if deployment is None:
            return
        metadata = deployment["metadata"]
        orphans = self.sets_by_owner.get(orphans_in(metadata["namespace"]))
        candidates = self.sets_by_owner.get(metadata["uid"]) + orphans
        selector = LabelSelector.from_object(deployment["spec"]["selector"])
        claimed = claim(deployment, selector, REPLICASETS, candidates)
        if claimed.changes:
            await self.apply(key, claimed.changes)
            return
        uids = [replicaset["metadata"]["uid"] for replicaset in claimed.owned]
        pods = [pod for uid in uids for pod in self.pods_by_owner.get(uid)]
        step = plan(deployment, claimed.owned, pods, self.context.now())
        await self.apply(key, (), step.requeue_after)
        await self._carry_out(key, deployment, step.actions)

    async def _carry_out(
        self,
        key: Key,
        deployment: Deployment,
        actions: tuple[Action, ...],
    ) -> None:
        current = deployment
        for action in actions:
            try:
                if isinstance(action, Update) and action.subresource == "status":
                    # An earlier action of this step may have changed the Deployment's annotations.
                    status = {**current, "status": action.obj["status"]}
                    await self.apply(key, [replace(action, obj=status)])
                else:
                    await self.apply(key, [action])
                    if getattr(action, "resource", None) == DEPLOYMENTS:
                        current = await self.client.get(DEPLOYMENTS, key[1], key[0])
            except ApiError as error:
                if not isinstance(action, Create) or error.reason != "AlreadyExists":
                    raise
                await self._collision(key, deployment, action.obj)
                return

    async def _collision(self, key: Key, deployment: Deployment, wanted: Mapping[str, Any]) -> None:
        """Handles a ReplicaSet name that is taken.

        If the existing ReplicaSet is the Deployment's and has its template, the sync continues
        later. If not, another template has the same hash, and collisionCount is raised so that the
        next hash differs.
        """
        metadata = wanted["metadata"]
        existing = await self.client.get(REPLICASETS, metadata["name"], metadata["namespace"])
        is_own = controller_uid(existing) == deployment["metadata"]["uid"]
        if is_own and equal_ignoring_hash(
            existing["spec"]["template"],
            deployment["spec"]["template"],
        ):
            self.queue.add_rate_limited(key)
            return
        held = deployment.get("status") or {}
        status = {**held, "collisionCount": int(held.get("collisionCount") or 0) + 1}
        await self.apply(key, [Update(DEPLOYMENTS, {**deployment, "status": status}, "status")])
