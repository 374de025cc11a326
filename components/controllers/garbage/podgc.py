"""Pods that nobody will clean up: of nodes that are gone, deleted before they had a node, too many finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from kubewire.components.controllers.actions import Action, Applier, Delete, Patch
from kubewire.components.controllers.controller import Context
from kubewire.components.controllers.meta import by_age, is_deleting
from kubewire.components.controllers.nodes.health import disruption_target
from kubewire.components.controllers.pods import is_finished
from kubewire.components.controllers.writes import Writes
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.informer import wait_synced
from kubewire.components.kubeapi.resources import NODES, PODS, KubeObject

log = logging.getLogger(__name__)
_PERIOD = 20.0
#: How long a node must be missing before its pods are collected.
QUARANTINE = timedelta(seconds=40)


def orphaned(pods: Sequence[KubeObject], nodes: Collection[str]) -> list[KubeObject]:
    """Pods bound to a node that does not exist."""
    return [pod for pod in pods if pod["spec"].get("nodeName") and pod["spec"]["nodeName"] not in nodes]


def unscheduled_terminating(pods: Sequence[KubeObject]) -> list[KubeObject]:
    """No kubelet will ever confirm their end."""
    return [pod for pod in pods if is_deleting(pod) and not pod["spec"].get("nodeName")]


def beyond_threshold(pods: Sequence[KubeObject], threshold: int) -> list[KubeObject]:
    """The oldest finished pods beyond the threshold; 0 or less: none."""
    finished = by_age(pod for pod in pods if is_finished(pod))
    return finished[: max(len(finished) - threshold, 0)] if threshold > 0 else []


def removal(pod: KubeObject, now: datetime, *, orphan: bool) -> list[Action]:
    """Marked Failed first, so that controllers count it as such, then gone without grace."""
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    actions: list[Action] = []
    if not is_finished(pod):
        status: KubeObject = {"phase": "Failed"}
        if orphan:
            text = "PodGC: node no longer exists"
            status["conditions"] = disruption_target(pod, "DeletionByPodGC", text, now)
        actions.append(Patch(PODS, namespace, name, {"status": status}, "status"))
    return [*actions, Delete(PODS, namespace, name, metadata["uid"], grace_period_seconds=0)]


class PodGarbageCollector:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.pods, self.nodes = context.informers.get(PODS), context.informers.get(NODES)
        self.missing: dict[str, datetime] = {}
        events = context.recorder("pod-garbage-collector")
        writes = Writes(lambda _: None, lambda _resource, _key: None)
        self.applier = Applier(context.client, events, writes, "podgc")

    async def run(self) -> None:
        await wait_synced(self.pods, self.nodes)
        while True:
            for action in await self._plan():
                try:
                    await self.applier.run([action])
                except ApiError as error:
                    log.debug("%s: %s", action, error)
            await asyncio.sleep(_PERIOD)

    async def _plan(self) -> list[Action]:
        now = self.context.now()
        pods = [self.pods.store[key] for key in sorted(self.pods.store)]
        nodes = {name for _, name in self.nodes.store}
        gone = await self._gone_nodes(orphaned(pods, nodes), now)
        orphans = [pod for pod in orphaned(pods, nodes) if pod["spec"]["nodeName"] in gone]
        actions = [action for pod in orphans for action in removal(pod, now, orphan=True)]
        others = unscheduled_terminating(pods)
        others += beyond_threshold(pods, self.context.options.terminated_pod_gc_threshold)
        return actions + [action for pod in others for action in removal(pod, now, orphan=False)]

    async def _gone_nodes(self, orphans: Sequence[KubeObject], now: datetime) -> set[str]:
        """Missing for the whole quarantine, and the API server agrees."""
        names = {pod["spec"]["nodeName"] for pod in orphans}
        self.missing = {name: self.missing.get(name, now) for name in names}
        gone = set()
        for name, since in self.missing.items():
            if now - since >= QUARANTINE and not await self._exists(name):
                gone.add(name)
        return gone

    async def _exists(self, name: str) -> bool:
        try:
            await self.context.client.get(NODES, name)
        except ApiError as error:
            return error.status != 404
        return True
