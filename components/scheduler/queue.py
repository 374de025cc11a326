"""The scheduling queue: pods to try next, pods that back off, and pods that wait for a change.

Active pods are ordered by priority, then by arrival. A pod that no node can run waits until a
change of the cluster may help it, and a pod that was tried before waits for its back-off as well
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-scheduling/scheduler_queues.md).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass

from kubewire.components.kubeapi.volumes import claim_names
from kubewire.components.scheduler.podspec import PodInfo

Key = tuple[str, str]
INITIAL_BACKOFF = 1.0
MAX_BACKOFF = 10.0
#: After this many seconds an unschedulable pod is tried again even though nothing changed.
UNSCHEDULABLE_TIMEOUT = 300.0


@dataclass(eq=False)
class _Waiting:
    pod: PodInfo
    attempts: int = 0
    tried_at: float = 0.0

    def backoff_until(self) -> float:
        if not self.attempts:
            return 0.0
        return self.tried_at + min(INITIAL_BACKOFF * 2.0 ** (self.attempts - 1), MAX_BACKOFF)


class SchedulingQueue:
    """Holds every pending pod. Times are the event loop's, and a single consumer calls pop()."""

    def __init__(self) -> None:
        self._waiting: dict[Key, _Waiting] = {}
        self._active: list[tuple[int, int, Key]] = []
        self._backing_off: list[tuple[float, int, Key]] = []
        self._unschedulable: dict[Key, _Waiting] = {}
        self._in_flight: dict[Key, _Waiting] = {}
        self._sequence = itertools.count()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, pod: PodInfo) -> None:
        """Adds a pending pod or replaces it; a change of its labels or spec ends its wait."""
        standing = self._waiting.get(pod.key)
        if standing is None:
            self._waiting[pod.key] = waiting = _Waiting(pod)
            self._activate(pod.key, waiting)
            return
        changed = standing.pod.uid != pod.uid or _asked(standing.pod) != _asked(pod)
        standing.pod = pod
        if changed and pod.key in self._unschedulable:
            del self._unschedulable[pod.key]
            self._activate(pod.key, standing)

    def remove(self, key: Key) -> None:
        """Forgets a pod that was bound, finished or deleted."""
        self._waiting.pop(key, None)
        self._unschedulable.pop(key, None)
        self._in_flight.pop(key, None)

    async def pop(self) -> PodInfo:
        """Waits for the next pod to try."""
        while True:
            self._end_backoffs()
            while self._active:
                _, _, key = heapq.heappop(self._active)
                waiting = self._waiting.get(key)
                if waiting is None or key in self._unschedulable or key in self._in_flight:
                    continue
                waiting.attempts += 1
                waiting.tried_at = self._now()
                self._in_flight[key] = waiting
                return waiting.pod
            await self._sleep()

    def done(self, key: Key) -> None:
        """The pod is bound."""
        self.remove(key)

    def unschedulable(self, key: Key) -> None:
        """No node can run the pod now: it waits for a change."""
        waiting = self._in_flight.pop(key, None)
        if waiting is not None and self._waiting.get(key) is waiting:
            self._unschedulable[key] = waiting

    def failed(self, key: Key) -> None:
        """Binding failed: the pod is tried again after its back-off."""
        waiting = self._in_flight.pop(key, None) or self._waiting.get(key)
        if waiting is not None:
            self._back_off(key, waiting)

    def move_all(self, *, only_with_affinity: bool = False, only_with_claims: bool = False) -> None:
        """Tries the waiting pods again, because the cluster changed.

        With only_with_affinity the change is a placed pod, which helps only pods with affinity or
        spread constraints; with only_with_claims it is one of volumes.
        """
        for key, waiting in list(self._unschedulable.items()):
            if only_with_affinity and not (waiting.pod.affinity or waiting.pod.constraints):
                continue
            if only_with_claims and not claim_names(waiting.pod.obj):
                continue
            del self._unschedulable[key]
            self._back_off(key, waiting)

    def flush_overdue(self) -> None:
        now = self._now()
        for key, waiting in list(self._unschedulable.items()):
            if now - waiting.tried_at > UNSCHEDULABLE_TIMEOUT:
                del self._unschedulable[key]
                self._back_off(key, waiting)

    def _back_off(self, key: Key, waiting: _Waiting) -> None:
        until = waiting.backoff_until()
        if until <= self._now():
            self._activate(key, waiting)
            return
        heapq.heappush(self._backing_off, (until, next(self._sequence), key))
        self._wake.set()

    def _activate(self, key: Key, waiting: _Waiting) -> None:
        heapq.heappush(self._active, (-waiting.pod.priority, next(self._sequence), key))
        self._wake.set()

    def _end_backoffs(self) -> None:
        now = self._now()
        while self._backing_off and self._backing_off[0][0] <= now:
            _, _, key = heapq.heappop(self._backing_off)
            waiting = self._waiting.get(key)
            if waiting is None or key in self._unschedulable or key in self._in_flight:
                continue
            self._activate(key, waiting)

    async def _sleep(self) -> None:
        self._wake.clear()
        timeout = self._backing_off[0][0] - self._now() if self._backing_off else None
        try:
            async with asyncio.timeout(None if timeout is None else max(timeout, 0.001)):
                await self._wake.wait()
        except TimeoutError:
            pass

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _asked(pod: PodInfo) -> object:
    """What the pod asks for. Labels count because constraints, its own included, select by them."""
    return pod.labels, pod.spec
