"""Runs the DaemonSet plan on changes of DaemonSets, pods, nodes and ControllerRevisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.daemonset.plan import plan
from kubewire.components.controllers.meta import Key, controller_of, labels_of
from kubewire.components.controllers.sharedinformers import orphans_in, owner_values
from kubewire.components.kubeapi.resources import (
    CONTROLLERREVISIONS,
    DAEMONSETS,
    NODES,
    PODS,
)
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, Pod


class DaemonSetController(KeyedController):
    component = "daemonset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.sets = self.follow(DAEMONSETS, self.enqueue)
        self.nodes = self.follow(NODES, self._enqueue_all_on_node_change)
        self.follow(CONTROLLERREVISIONS, self.enqueue_owner("DaemonSet"))
        self.revisions_by_owner = self.informers.index(CONTROLLERREVISIONS, owner_values)
        self.pods_by_owner = self.informers.index(PODS, owner_values)
        self.follow(PODS, self.enqueue_owner("DaemonSet"))
        self.informers.handle(PODS, self._enqueue_adopters)

    def _enqueue_all_on_node_change(self, old: Node | None, new: Node | None) -> None:
        """Ignores heartbeats: only labels and taints decide where daemon pods run."""
        if old is not None and new is not None and _placement(old) == _placement(new):
            return
        for key in self.sets.store:
            self.queue.add(key)

    def _enqueue_adopters(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or controller_of(new) is not None:
            return
        namespace = new["metadata"]["namespace"]
        for key, daemonset in self.sets.store.items():
            selector = LabelSelector.from_object(daemonset["spec"]["selector"])
            if key[0] == namespace and selector.matches(labels_of(new)):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        daemonset = self.sets.store.get(key)
        if daemonset is None:
            return
        uid = daemonset["metadata"]["uid"]
        orphans = orphans_in(key[0])
        selector = LabelSelector.from_object(daemonset["spec"]["selector"])
        pods = self.pods_by_owner.get(uid) + self.pods_by_owner.get(orphans)
        claimed = claim(daemonset, selector, PODS, pods)
        revisions = self.revisions_by_owner.get(uid) + self.revisions_by_owner.get(orphans)
        histories = claim(daemonset, selector, CONTROLLERREVISIONS, revisions)
        await self.apply(key, claimed.changes + histories.changes)
        nodes = [self.nodes.store[name] for name in sorted(self.nodes.store)]
        step = plan(daemonset, nodes, claimed.owned, histories.owned, self.context.now())
        await self.apply(key, step.actions, step.requeue_after)


def _placement(node: Node) -> object:
    return labels_of(node), (node.get("spec") or {}).get("taints") or []
