"""The scheduling loop: takes pending pods, chooses nodes and writes bindings.

A scheduler never starts a pod. It writes spec.nodeName through the pod's binding subresource, and
the kubelet of that node, which watches for pods with its name, does the rest. Scheduling has two
parts, as in upstream's scheduling framework
(https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/):

- The scheduling cycle decides. It runs for one pod at a time, because each decision must see the
  room that the previous one took.
- The binding cycle writes. It takes a round trip to the API server, so many bindings run at once,
  and the next decision does not wait for them.

Between the two the pod is *assumed* on its node: the cluster counts it there although the informer
does not show it yet. The invariant is that a pod counts on exactly one node from the decision on.
The informer's event confirms an assumed pod, and a failed binding removes it and sends it back to
the queue.

A pod that fits nowhere waits in the queue until an event may help it. Replicas of one template
fail alike, so the failure is cached under their signature until Cluster.relief shows that
something improved. Without the cache a Deployment of a thousand pods that do not fit would run the
filters a thousand times for each event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.events import EventRecorder, timestamp
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.resources import (
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICES,
    STATEFULSETS,
    T,
)
from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.components.kubeapi.volumes import claim_names
from kubewire.components.scheduler.binding import VolumeBinder
from kubewire.components.scheduler.cluster import Cluster
from kubewire.components.scheduler.flags import DEFAULT_NAME
from kubewire.components.scheduler.placement import Placed, Unplaced, choose, failure_of_all
from kubewire.components.scheduler.podspec import PodInfo, signature
from kubewire.components.scheduler.queue import SchedulingQueue
from kubewire.components.scheduler.siblings import default_selector, owner_key
from kubewire.components.scheduler.volumes import Choice, ClaimProblem, claims_of, volume_filter

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Namespace,
        Node,
        Pod,
        PodCondition,
        ReplicaSet,
        Service,
        StatefulSet,
    )

log = logging.getLogger(__name__)
_BINDINGS_AT_ONCE = 32
_FLUSH_PERIOD = 30.0
_FINISHED = ("Succeeded", "Failed")


class Scheduler:
    def __init__(
        self,
        client: Client,
        *,
        name: str = DEFAULT_NAME,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.client = client
        self.name = name
        self.now = now
        self.events = EventRecorder(client, name)
        self.cluster = Cluster()
        self.queue = SchedulingQueue()
        self.pods = Informer(client, PODS, handler=self._on_pod, transform=_slim)
        self.nodes = Informer(client, NODES, handler=self._on_node, transform=_slim)
        self.namespaces = Informer(client, NAMESPACES, handler=self._on_namespace, transform=_slim)
        self.services = Informer(client, SERVICES, handler=self._on_service, transform=_slim)
        self.replicasets = Informer(client, REPLICASETS, transform=_slim)
        self.statefulsets = Informer(client, STATEFULSETS, transform=_slim)
        self.volumes = VolumeBinder(client, self._on_storage)
        self._services_of: dict[str, dict[str, Service]] = {}
        self._assumed: dict[tuple[str, str], str] = {}
        self._failures: dict[str, tuple[int, str]] = {}
        self._bindings = asyncio.Semaphore(_BINDINGS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Runs until cancelled."""
        informers: tuple[Informer[Any], ...] = (
            self.nodes,
            self.namespaces,
            self.services,
            self.replicasets,
            self.statefulsets,
            self.pods,
            *self.volumes.informers,
        )
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run())
            group.create_task(self.events.run())
            await wait_synced(*informers)
            group.create_task(self._flush_overdue())
            group.create_task(self._loop())

    async def _flush_overdue(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_PERIOD)
            self.queue.flush_overdue()

    async def _loop(self) -> None:
        while True:
            pod = await self.queue.pop()
            try:
                self._schedule(pod)
            except Exception:  # an error with one pod must not stop the scheduling of the others
                log.exception("scheduling %s/%s", *pod.key)
                self.queue.failed(pod.key)
            # A decision never awaits anything, so bindings and watches get their turn here.
            await asyncio.sleep(0)

    def _schedule(self, pod: PodInfo) -> None:
        key = signature(pod)
        cached = self._failures.get(key)
        has_claims = bool(claim_names(pod.obj))
        if cached is not None and cached[0] == self.cluster.relief and not has_claims:
            # A pod with the same needs failed, and nothing has improved since.
            decision: Placed | Unplaced = Unplaced(cached[1])
        else:
            decision = self._decide(pod)
        if isinstance(decision, Placed):
            self._assumed[pod.key] = decision.node
            self.cluster.place(pod, decision.node)
            choice = self.volumes.reserve(pod, self.cluster.nodes[decision.node].obj)
            self._spawn(self._bind(pod, decision.node, choice))
            return
        if not (pod.affinity or pod.constraints or has_claims):
            if len(self._failures) > 1000:
                self._failures.clear()
            self._failures[key] = (self.cluster.relief, decision.message)
        self.queue.unschedulable(pod.key)
        self._spawn(self._report(pod, decision.message))

    def _decide(self, pod: PodInfo) -> Placed | Unplaced:
        volumes = None
        if claim_names(pod.obj):
            storage = self.volumes.storage()
            try:
                volumes = volume_filter(claims_of(pod, storage), storage)
            except ClaimProblem as problem:
                total = len(self.cluster.nodes)
                return Unplaced(failure_of_all(total, str(problem)))
        return choose(pod, self.cluster, self._siblings(pod), volumes)

    def _siblings(self, pod: PodInfo) -> LabelSelector | None:
        """The selector of the pod's Services and owner, which the default constraints spread."""
        owner = owner_key(pod)
        workload: ReplicaSet | StatefulSet | None = None
        if owner is not None:
            informer = self.replicasets if owner[0] == "ReplicaSet" else self.statefulsets
            workload = informer.get(owner[1], pod.namespace)
        return default_selector(pod, self._services_of.get(pod.namespace, {}).values(), workload)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bind(self, pod: PodInfo, node: str, choice: Choice) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self.volumes.bind(pod, node, choice)
            async with self._bindings:
                await self.client.create(PODS, binding, subresource="binding")
        except ApiError as error:
            self._unassume(pod, error)
            return
        finally:
            self.volumes.release(pod)
        text = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
        self.events.event(_with_kind(pod.obj), "Normal", "Scheduled", text)

    def _unassume(self, pod: PodInfo, error: ApiError) -> None:
        """Takes back an assumed pod after its binding failed; a pod that is gone (404) is
        forgotten.
        """
        log.debug("binding %s/%s: %s", pod.namespace, pod.name, error)
        if self._assumed.pop(pod.key, None) is None:
            return
        self.cluster.remove(pod.key)
        if error.status == 404:
            self.queue.remove(pod.key)
        else:
            self.queue.failed(pod.key)

    async def _report(self, pod: PodInfo, message: str) -> None:
        self.events.event(_with_kind(pod.obj), "Warning", "FailedScheduling", message)
        conditions = (pod.obj.get("status") or {}).get("conditions") or []
        fresh = unschedulable_conditions(conditions, message, self.now())
        if fresh is None:
            return
        try:
            patch = {"metadata": {"uid": pod.uid}, "status": {"conditions": fresh}}
            await self.client.patch(PODS, pod.name, patch, pod.namespace, subresource="status")
        except ApiError as error:
            log.debug("status of %s/%s: %s", pod.namespace, pod.name, error)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        obj = new or old or {}
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if new is None or (new.get("status") or {}).get("phase") in _FINISHED:
            self._gone(key)
        elif new["spec"].get("nodeName"):
            self._arrived(key, new, old)
        elif self._is_ours(new) and key not in self._assumed:
            self.queue.add(PodInfo.of(new))
        elif not self._is_ours(new):
            self.queue.remove(key)

    def _gone(self, key: tuple[str, str]) -> None:
        self._assumed.pop(key, None)
        self.queue.remove(key)
        if self.cluster.node_of(key) is not None:
            self.cluster.remove(key)
            self.queue.move_all()

    def _arrived(self, key: tuple[str, str], pod: Pod, old: Pod | None) -> None:
        node = pod["spec"]["nodeName"]
        self.queue.done(key)
        assumed = self._assumed.pop(key, None)
        labels = pod["metadata"].get("labels")
        unchanged = old is not None and old["metadata"].get("labels") == labels
        if self.cluster.node_of(key) == node and (assumed == node or unchanged):
            return
        self.cluster.place(PodInfo.of(pod), node)
        self.queue.move_all(only_with_affinity=True)

    def _is_ours(self, pod: Pod) -> bool:
        spec = pod["spec"]
        wanted = spec.get("schedulerName") or DEFAULT_NAME
        if wanted != self.name or spec.get("schedulingGates"):
            return False
        return not pod["metadata"].get("deletionTimestamp")

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self.cluster.remove_node((old or {})["metadata"]["name"])
            return
        if old is not None and _schedulable(old) == _schedulable(new):
            return
        self.cluster.set_node(new)
        self.queue.move_all()

    def _on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        metadata = (new or old or {})["metadata"]
        self.cluster.set_namespace(
            metadata["name"],
            (metadata.get("labels") or {}) if new else None,
        )

    def _on_storage(self) -> None:
        self.queue.move_all(only_with_claims=True)

    def _on_service(self, old: Service | None, new: Service | None) -> None:
        metadata = (new or old or {})["metadata"]
        services = self._services_of.setdefault(metadata["namespace"], {})
        if new is None:
            services.pop(metadata["name"], None)
        else:
            services[metadata["name"]] = new


def unschedulable_conditions(
    conditions: list[PodCondition],
    message: str,
    now: datetime,
) -> list[PodCondition] | None:
    """status.conditions with PodScheduled set to False and the reason Unschedulable.

    Returns None when they already say so with this message.
    """
    standing = next((item for item in conditions if item["type"] == "PodScheduled"), None)
    fresh: PodCondition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    if standing and all(standing.get(key) == wanted for key, wanted in fresh.items()):
        return None
    since = timestamp(now)
    if standing is not None and standing["status"] == "False":
        since = standing.get("lastTransitionTime") or since
    rest = [item for item in conditions if item["type"] != "PodScheduled"]
    return [*rest, fresh | {"lastTransitionTime": since}]


def _schedulable(node: Node) -> object:
    """The fields that placement reads; a heartbeat changes none of them."""
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    return (
        node["metadata"].get("labels"),
        spec.get("taints"),
        spec.get("unschedulable"),
        status.get("allocatable"),
        status.get("capacity"),
    )


def _with_kind(pod: Pod) -> Pod:
    return {"kind": "Pod", "apiVersion": "v1", **pod}


def _slim(obj: T) -> T:
    obj["metadata"].pop("managedFields", None)
    return obj
