"""Runs the ReplicaSet plan: claims pods, creates or deletes some, writes the status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Update
from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import (
    Key,
    controller_of,
    controller_uid,
    is_deleting,
    labels_of,
)
from kubewire.components.controllers.pods import until_available
from kubewire.components.controllers.replicaset.plan import (
    as_replicaset,
    doubled_up,
    plan_replicas,
    plan_status,
    status_differs,
)
from kubewire.components.controllers.sharedinformers import orphans_in, owner_values
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import (
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    Resource,
)
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, ReplicaSet, ReplicaSetStatus


class ReplicaController(KeyedController):
    """Keeps the number of pods of the objects of one resource, which seen() shows as ReplicaSets."""

    resource: Resource[Any]
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.sets = self.follow(self.resource, self.enqueue)
        self.sets_by_owner = self.informers.index(self.resource, owner_values)
        self.pods_by_owner = self.informers.index(PODS, owner_values)
        self.follow(PODS, self.enqueue_owner(self.resource.kind))
        self.informers.handle(PODS, self._enqueue_adopters)

    def seen(self, obj: Any) -> ReplicaSet:
        """The object as a ReplicaSet; its kind and apiVersion stay its own."""
        raise NotImplementedError

    def reported(self, status: ReplicaSetStatus) -> ReplicaSetStatus:
        """The part of the status that the resource has."""
        return status

    def _enqueue_adopters(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or controller_of(new) is not None or is_deleting(new):
            return
        if old is not None and labels_of(old) == labels_of(new) and controller_of(old) is None:
            return
        namespace = new["metadata"]["namespace"]
        for key, replicaset in self.sets.store.items():
            selector = LabelSelector.from_object(self.seen(replicaset)["spec"].get("selector"))
            if key[0] == namespace and selector.matches(labels_of(new)):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        obj = self.sets.store.get(key)
        if obj is None:
            return
        replicaset = self.seen(obj)
        pods = self._candidates(replicaset)
        selector = LabelSelector.from_object(replicaset["spec"]["selector"])
        claimed = claim(replicaset, selector, PODS, pods)
        await self.apply(key, claimed.changes)
        now = self.context.now()
        error: ApiError | None = None
        if not is_deleting(replicaset):
            try:
                crowding = self._doubled_up(replicaset)
                await self.apply(key, plan_replicas(replicaset, claimed.owned, crowding, now))
            except ApiError as failure:
                error = failure
        status = plan_status(replicaset, claimed.owned, now, error.message if error else None)
        status = self.reported(status)
        if status_differs(replicaset.get("status"), status):
            await self.apply(key, [Update(self.resource, {**obj, "status": status}, "status")])
        if error is not None:
            raise error
        min_ready = int(replicaset["spec"].get("minReadySeconds") or 0)
        await self.apply(key, (), until_available(claimed.owned, min_ready, now))

    def _candidates(self, replicaset: ReplicaSet) -> list[Pod]:
        metadata = replicaset["metadata"]
        owned = self.pods_by_owner.get(metadata["uid"])
        return owned + self.pods_by_owner.get(orphans_in(metadata["namespace"]))

    def _doubled_up(self, replicaset: ReplicaSet) -> dict[str, int]:
        owner = controller_uid(replicaset)
        siblings: list[ReplicaSet] = self.sets_by_owner.get(owner) if owner else [replicaset]
        uids = [item["metadata"]["uid"] for item in siblings]
        return doubled_up([pod for uid in uids for pod in self.pods_by_owner.get(uid)])


class ReplicaSetController(ReplicaController):
    component = "replicaset-controller"
    resource = REPLICASETS

    def seen(self, obj: Any) -> ReplicaSet:
        replicaset: ReplicaSet = obj
        return replicaset


class ReplicationController(ReplicaController):
    """ReplicationControllers, the older form: their selector is a plain map of labels."""

    component = "replication-controller"
    resource = REPLICATIONCONTROLLERS

    def seen(self, obj: Any) -> ReplicaSet:
        return as_replicaset(obj)

    def reported(self, status: ReplicaSetStatus) -> ReplicaSetStatus:
        status.pop("terminatingReplicas", None)
        return status
