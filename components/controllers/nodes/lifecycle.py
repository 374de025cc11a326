"""Watches the nodes' heartbeats, marks silent nodes, taints them and evicts their pods."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Delete, Emit, Patch
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, condition, is_deleting
from kubewire.components.controllers.nodes import health
from kubewire.components.controllers.nodes.zones import Pace, Zones, zone_of
from kubewire.components.controllers.sharedinformers import node_values
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.informer import wait_synced
from kubewire.components.kubeapi.resources import LEASES, NODES, PODS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node, NodeCondition, Pod, Taint

log = logging.getLogger(__name__)
_LEASE_NAMESPACE = "kube-node-lease"


@dataclass(frozen=True)
class _Probe:
    """The last heartbeat and when it arrived by this process's clock; nodes' clocks may differ."""

    renewed: str
    seen: datetime


class NodeLifecycleController(KeyedController):
    """Sets nodes' taints and evicts their pods; keys are nodes.

    _monitor() turns missing heartbeats into conditions.
    """

    component = "node-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.follow(NODES, self._on_node)
        self.leases = self.follow(LEASES)
        self.pods = self.follow(PODS, self._on_pod)
        self.pods_by_node = self.informers.index(PODS, node_values)
        self.probes: dict[str, _Probe] = {}
        self.pace = Pace()

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self.probes.pop((old or {})["metadata"]["name"], None)
        elif old is None or _health(old) != _health(new):
            self.queue.add(("", new["metadata"]["name"]))

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or not new["spec"].get("nodeName"):
            return
        key = ("", new["metadata"]["namespace"] and new["spec"]["nodeName"])
        node = self.nodes.store.get(key)
        tainted = node is not None and _execute_taints(node)
        moved = old is None or not old["spec"].get("nodeName")
        tolerations = new["spec"].get("tolerations")
        if tainted and (moved or (old or {})["spec"].get("tolerations") != tolerations):
            self.queue.add(key)

    async def run(self) -> None:
        await wait_synced(self.nodes, self.leases, self.pods)
        await asyncio.gather(super().run(), self._monitor())

    async def _monitor(self) -> None:
        while True:
            now = self.context.now()
            for node in list(self.nodes.store.values()):
                try:
                    await self._check(node, now)
                except ApiError as error:
                    name = node["metadata"]["name"]
                    log.debug("cannot update the status of node %s: %s", name, error)
            await asyncio.sleep(self.context.options.node_monitor_period)

    async def _check(self, node: Node, now: datetime) -> None:
        """Marks the node when its heartbeat is overdue.

        A node that has never reported its status gets the longer start-up grace period.
        """
        name = node["metadata"]["name"]
        conditions = (node.get("status") or {}).get("conditions") or []
        ready = next((item for item in conditions if item["type"] == "Ready"), None)
        renewed = self._heartbeat(node, ready)
        probe = self.probes.get(name)
        if probe is None or probe.renewed != renewed:
            if probe is None:
                text = f"Node {name} event: Registered Node {name} in Controller"
                self.events.event(node, "Normal", "RegisteredNode", text)
            probe = self.probes[name] = _Probe(renewed, now)
        options = self.context.options
        grace = options.node_monitor_grace_period if ready else options.node_startup_grace_period
        if now <= probe.seen + timedelta(seconds=grace):
            return
        unknown = health.unknown_conditions(node, now)
        if unknown is None:
            return
        silent = [Patch(NODES, "", name, {"status": {"conditions": unknown}}, "status")]
        await self.apply(("", name), silent)
        if ready and ready["status"] == "True":
            await self._pods_not_ready(node, now)

    def _heartbeat(self, node: Node, ready: NodeCondition | None) -> str:
        lease = self.leases.get(node["metadata"]["name"], _LEASE_NAMESPACE)
        renewed = str(((lease or {}).get("spec") or {}).get("renewTime") or "")
        # This controller itself writes the condition Unknown, so it does not count as a heartbeat.
        reported = ready if ready is not None and ready.get("status") != "Unknown" else None
        posted = str((reported.get("lastHeartbeatTime") if reported is not None else None) or "")
        return f"{renewed} {posted}"

    async def _pods_not_ready(self, node: Node, now: datetime) -> None:
        name = node["metadata"]["name"]
        actions: list[Action] = [
            Emit(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady"),
        ]
        for pod in self.pods_by_node.get(name):
            conditions = health.not_ready_pod_conditions(pod, now)
            if conditions is not None:
                metadata = pod["metadata"]
                patch = {"status": {"conditions": conditions}}
                actions.append(
                    Patch(PODS, metadata["namespace"], metadata["name"], patch, "status"),
                )
                actions.append(Emit(pod, "Warning", "NodeNotReady", "Node is not ready"))
        await self.apply(("", name), actions)

    async def sync(self, key: Key) -> None:
        node = self.nodes.store.get(key)
        if node is None:
            return
        now = self.context.now()
        taints = self._wanted_taints(key, node, now)
        if taints is not None:
            # A patch replaces the whole list of taints, which kubectl taint may write at the same
            # time; the resourceVersion makes the later write fail.
            version = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}}
            await self.apply(
                key,
                [Patch(NODES, "", key[1], version | {"spec": {"taints": taints}})],
            )
            return
        await self._evict(key, node, now)

    def _wanted_taints(self, key: Key, node: Node, now: datetime) -> list[Taint] | None:
        if health.ready_status(node) == "True":
            return health.wanted_taints(node, now, evict=False)
        options = self.context.options
        zones = Zones.of(self.nodes.store.values(), options.unhealthy_zone_threshold)
        if zones.all_fail:
            return health.wanted_taints(node, now, evict=False, lift=True)
        if health.has_execute_taint(node):
            return health.wanted_taints(node, now, evict=True)
        zone = zone_of(node)
        rate = zones.rate(zone, options)
        wait = self.pace.wait(zone, rate, now) if rate else options.node_monitor_period
        if wait > 0:
            self.queue.add_after(key, wait)
        elif condition(node.get("status"), "Ready"):
            self.pace.taken(zone, now)
        return health.wanted_taints(node, now, evict=wait <= 0)

    async def _evict(self, key: Key, node: Node, now: datetime) -> None:
        taints = _execute_taints(node)
        if not taints:
            return
        waits: list[float] = []
        actions: list[Action] = []
        for pod in self.pods_by_node.get(key[1]):
            when = None if is_deleting(pod) else health.eviction_time(pod, taints, now)
            if when is None:
                continue
            if when <= now:
                actions += _eviction(pod, now)
            else:
                waits.append((when - now).total_seconds())
        await self.apply(key, actions, min(waits, default=None))


def _eviction(pod: Pod, now: datetime) -> list[Action]:
    metadata = pod["metadata"]
    namespace = metadata["namespace"]
    name = metadata["name"]
    reason = "DeletionByTaintManager"
    text = "Taint manager: deleting due to NoExecute taint"
    status = {"status": {"conditions": health.disruption_target(pod, reason, text, now)}}
    return [
        Emit(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}"),
        Patch(PODS, namespace, name, status, "status"),
        Delete(PODS, namespace, name, metadata["uid"]),
    ]


def _execute_taints(node: Node) -> list[Taint]:
    taints = (node.get("spec") or {}).get("taints") or []
    return [item for item in taints if item.get("effect") == "NoExecute"]


def _health(node: Node) -> object:
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or []}
    return spec.get("taints") or [], bool(spec.get("unschedulable")), conditions
