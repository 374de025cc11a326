"""Writes pod statuses to the API server.

Only changes are sent, with one request in flight per pod. A change of readiness, phase or address
is sent at once. Any other change waits for a moment and is sent together with the next ones, so
that the start of a pod takes two requests and not five.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kubewire.components.base.retrying import GrowingDelay
from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.resources import PODS
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.status.generate import status_patch

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, PodStatus

log = logging.getLogger(__name__)

#: The longest time that a change without urgency waits, in seconds.
SETTLE = 0.15
_RETRY_FIRST = 0.2
_RETRY_LAST = 5.0


def urgent(old: PodStatus, new: PodStatus) -> bool:
    """Whether other programs (controllers, `kubectl wait`) may be waiting for this change."""

    def seen(status: PodStatus) -> tuple[object, ...]:
        conditions = status.get("conditions") or []
        ready = [item["status"] for item in conditions if item["type"] == "Ready"]
        return ready, status.get("phase"), status.get("podIPs")

    # The first status of a new pod, Pending and not ready, tells no one anything new.
    first = not old.get("conditions") and new.get("phase") == "Pending"
    return seen(old)[:2] != seen(new)[:2] and not first


class StatusWriter:
    """set() returns at once; a task per pod then writes until the API has the last status."""

    def __init__(
        self,
        client: Client,
        api_uid: Callable[[Pod], str | None] = pods.uid,
    ) -> None:
        """api_uid: returns the uid of the pod's object in the API, which for a static pod is that
        of its mirror pod; None if it does not exist yet."""
        self._client = client
        self._api_uid = api_uid
        self._wanted: dict[str, tuple[Pod, PodStatus]] = {}
        self._written: dict[str, PodStatus] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hurry: dict[str, asyncio.Event] = {}
        self.requests = 0

    def get(self, uid: str) -> PodStatus | None:
        """The status that was set last, written or not."""
        entry = self._wanted.get(uid)
        return entry[1] if entry else None

    def set(self, pod: Pod, status: PodStatus) -> None:
        uid = pods.uid(pod)
        known = self._written.setdefault(uid, pod.get("status") or {})
        self._wanted[uid] = (pod, status)
        if status_patch(known, status) is None and uid not in self._tasks:
            return
        event = self._hurry.setdefault(uid, asyncio.Event())
        if urgent(known, status):
            event.set()
        if uid not in self._tasks:
            name = f"status {pods.full_name(pod)}"
            self._tasks[uid] = asyncio.create_task(self._run(uid), name=name)

    def saw(self, pod: Pod) -> None:
        """Takes the API's current object; the next status is compared with its status."""
        uid = pods.uid(pod)
        if uid in self._written and uid not in self._tasks:
            self._written[uid] = pod.get("status") or {}

    async def flush(self, uid: str) -> None:
        """Returns when the last status is written, or the pod is gone."""
        if event := self._hurry.get(uid):
            event.set()
        if task := self._tasks.get(uid):
            await asyncio.wait([task])

    def forget(self, uid: str) -> None:
        for table in (self._wanted, self._written, self._hurry):
            table.pop(uid, None)
        if task := self._tasks.pop(uid, None):
            task.cancel()

    async def _run(self, uid: str) -> None:
        try:
            await self._write_until_equal(uid)
        finally:
            # No await lies between this and the last comparison. Otherwise a set() in between would
            # start no task, and its status would never be written.
            if self._tasks.get(uid) is asyncio.current_task():
                del self._tasks[uid]

    async def _write_until_equal(self, uid: str) -> None:
        delay = GrowingDelay(_RETRY_FIRST, _RETRY_LAST)
        while uid in self._wanted:
            try:
                async with asyncio.timeout(SETTLE):
                    await self._hurry[uid].wait()
            except TimeoutError:
                pass
            pod, status = self._wanted[uid]
            patch = status_patch(self._written[uid], status)
            if patch is None:
                return
            self._hurry[uid].clear()
            try:
                await self._write(uid, pod, status, patch)
                delay.reset()
            except ApiError as error:
                if error.status in (404, 409):
                    log.debug("status of %s: %s", pods.full_name(pod), error)
                    return
                log.warning("status of %s: %s", pods.full_name(pod), error)
                await delay.sleep()
            if uid in self._wanted and self._wanted[uid][1] is status:
                return

    async def _write(self, uid: str, pod: Pod, status: PodStatus, patch: Mapping[str, Any]) -> None:
        api_uid = self._api_uid(pod)
        if api_uid is None:
            return
        self.requests += 1
        body = {"metadata": {"uid": api_uid}, "status": patch}
        written = await self._client.patch(
            PODS,
            pods.name(pod),
            body,
            pods.namespace(pod),
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )
        if uid in self._written:
            self._written[uid] = written.get("status") or status
