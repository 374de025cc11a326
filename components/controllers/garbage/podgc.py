"""Deletes pods that no kubelet will clean up.

These are the pods of nodes that are gone, pods deleted before they had a node, and the oldest
finished pods beyond a limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Applier, Delete, Patch
from kubewire.components.controllers.controller import Context
from kubewire.components.controllers.meta import by_age, is_deleting
from kubewire.components.controllers.nodes.health import disruption_target
from kubewire.components.controllers.pods import is_finished
from kubewire.components.controllers.writes import Writes
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.informer import wait_synced
from kubewire.components.kubeapi.resources import NODES, PODS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, PodStatus

log = logging.getLogger(__name__)
_PERIOD = 20.0
#: How long a node must be missing before its pods are deleted.
QUARANTINE = timedelta(seconds=40)


def orphaned(pods: Sequence[Pod], nodes: Collection[str]) -> list[Pod]:
    """The pods bound to a node that does not exist."""
    bound = [pod for pod in pods if pod["spec"].get("nodeName")]
    return [pod for pod in bound if pod["spec"]["nodeName"] not in nodes]


def unscheduled_terminating(pods: Sequence[Pod]) -> list[Pod]:
    """Deleted pods without a node: no kubelet will ever confirm that they have ended."""
    return [pod for pod in pods if is_deleting(pod) and not pod["spec"].get("nodeName")]


def beyond_threshold(pods: Sequence[Pod], threshold: int) -> list[Pod]:
    """The oldest finished pods beyond the threshold; a threshold of 0 or less disables this."""
    finished = by_age(pod for pod in pods if is_finished(pod))
    return finished[: max(len(finished) - threshold, 0)] if threshold > 0 else []


def removal(pod: Pod, now: datetime, *, orphan: bool) -> list[Action]:
    """Marks the pod Failed, so that its controller counts it so, and deletes it without grace."""
    metadata = pod["metadata"]
    namespace = metadata["namespace"]
    name = metadata["name"]
    actions: list[Action] = []
    if not is_finished(pod):
        status: PodStatus = {"phase": "Failed"}
        if orphan:
            text = "PodGC: node no longer exists"
            status["conditions"] = disruption_target(pod, "DeletionByPodGC", text, now)
        actions.append(Patch(PODS, namespace, name, {"status": status}, "status"))
    return [*actions, Delete(PODS, namespace, name, metadata["uid"], grace_period_seconds=0)]


class PodGarbageCollector:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.pods = context.informers.get(PODS)
        self.nodes = context.informers.get(NODES)
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
                    log.debug("cannot apply %s: %s", action, error)
            await asyncio.sleep(_PERIOD)

    async def _plan(self) -> list[Action]:
        now = self.context.now()
        pods = [self.pods.store[key] for key in sorted(self.pods.store)]
        nodes = {name for _, name in self.nodes.store}
        gone = await self._gone_nodes(orphaned(pods, nodes), now)
        orphans = [pod for pod in orphaned(pods, nodes) if pod["spec"]["nodeName"] in gone]
        actions = [action for pod in orphans for action in removal(pod, now, orphan=True)]
        unneeded = unscheduled_terminating(pods)
        unneeded += beyond_threshold(pods, self.context.options.terminated_pod_gc_threshold)
        return actions + [action for pod in unneeded for action in removal(pod, now, orphan=False)]

    async def _gone_nodes(self, orphans: Sequence[Pod], now: datetime) -> set[str]:
        """The nodes that were missing for the whole quarantine and that the API server does not
        have.
        """
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
