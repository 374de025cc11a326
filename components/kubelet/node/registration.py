"""Registers the Node once, and keeps its status and its Lease up to date.

A node has two heartbeats. The Lease is small and is renewed every quarter of its duration; the
node controller declares the node unreachable when that stops. The status is large, so an unchanged
status is only written every `nodeStatusReportFrequency` (KEP-589,
https://kubernetes.io/docs/concepts/architecture/nodes/#heartbeats).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.base.retrying import GrowingDelay
from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.resources import LEASES, NODES
from kubewire.components.kubelet.configuration import Settings
from kubewire.components.kubelet.node.object import (
    Health,
    Machine,
    labels,
    network_not_ready,
    node_object,
    node_status,
    status_changed,
)
from kubewire.components.kubelet.pod.node_services import Recorder

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ContainerImage,
        Lease,
        Node,
        NodeStatus,
        OwnerReference,
    )

log = logging.getLogger(__name__)
LEASE_NAMESPACE = "kube-node-lease"
_RETRY_FIRST = 0.1
_RETRY_LAST = 7.0


def lease_object(name: str, duration: int, now: float, node_uid: str) -> Lease:
    """The node's Lease, renewed now. duration: in seconds."""
    renewed = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    owner: OwnerReference = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": duration, "renewTime": renewed},
    }


class NodeRegistration:
    """run() registers the Node at its start and then writes its status, at once after a change."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        machine: Machine,
        recorder: Recorder,
        network_problem: Callable[[], str],
        images: Callable[[], Sequence[ContainerImage]],
    ) -> None:
        self._client = client
        self._settings = settings
        self._machine = machine
        self._recorder = recorder
        self._network_problem = network_problem
        self._images = images
        self._changed = asyncio.Event()
        self._node: Node = {}
        self._written_at = 0.0
        self.registered = asyncio.Event()

    @property
    def node_uid(self) -> str:
        """The Node's uid, known once `registered` is set."""
        return str(self._node["metadata"].get("uid", ""))

    @property
    def node(self) -> Node:
        """The Node as it was last read or written, known once `registered` is set."""
        return self._node

    async def read(self) -> None:
        """Reads the Node again: others may have changed its labels and taints. Raises ApiError."""
        self._node = await self._client.get(NODES, self._settings.node_name)

    def changed(self) -> None:
        """Makes run() compute the status again, because it may have changed."""
        self._changed.set()

    def reference(self) -> Node:
        """The node as the object of an event; as upstream, its uid is the node's name."""
        name = self._settings.node_name
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}

    def _health(self) -> Health:
        problem = self._network_problem()
        return Health((network_not_ready(problem),) if problem else ())

    async def run(self) -> None:
        await self._register()
        self.registered.set()
        self._recorder.event(self.reference(), "Normal", "Starting", "Starting kubelet.")
        while True:
            self._changed.clear()
            try:
                await self._write_status()
            except ApiError as error:
                log.warning("Error updating node status, will retry: %s", error)
                if error.status != 404:
                    await asyncio.sleep(_RETRY_FIRST * 5)
                    continue
                # A Node that was deleted stays deleted until the kubelet is started again, as
                # upstream's. If somebody else makes it again, it needs the whole status.
                self._node = {**self._node, "status": {}}
            try:
                async with asyncio.timeout(self._settings.node_status_update_frequency):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        wanted = node_object(self._settings, self._machine)
        # Creating the Node together with its status saves a request, and no one sees a Node without
        # conditions.
        wanted["status"] = self._status({})
        delay = GrowingDelay(_RETRY_FIRST, _RETRY_LAST)
        while True:
            try:
                self._node = await self._create_or_adopt(wanted)
                return
            except ApiError as error:
                log.info("Unable to register node with API server: %s", error)
                await delay.sleep()

    async def _create_or_adopt(self, wanted: Node) -> Node:
        try:
            if not self._settings.register_node:
                return await self._client.get(NODES, self._settings.node_name)
            return await self._client.create(NODES, wanted)
        except ApiError as error:
            if error.status != 409:
                raise
        name = self._settings.node_name
        node = await self._client.get(NODES, name)
        own = labels(self._settings, self._machine)
        current = node["metadata"].get("labels")
        if {**(current or {}), **own} != current:
            node = await self._client.patch(NODES, name, {"metadata": {"labels": own}})
        return node

    def _status(self, old: NodeStatus) -> NodeStatus:
        return node_status(
            self._settings,
            self._machine,
            self._health(),
            self._images(),
            old,
            time.time(),
        )

    async def _write_status(self) -> None:
        old = self._node.get("status") or {}
        status = self._status(old)
        now = time.monotonic()
        due = now - self._written_at >= self._settings.node_status_report_frequency
        if not due and self._written_at and not status_changed(old, status):
            return
        before = _ready(old)
        self._node = await self._client.patch(
            NODES,
            self._settings.node_name,
            {"status": status_patch(status)},
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )
        self._written_at = now
        after = _ready(status)
        if before != after:
            reason = "NodeReady" if after == "True" else "NodeNotReady"
            text = f"Node {self._settings.node_name} status is now: {reason}"
            self._recorder.event(self.reference(), "Normal", reason, text)

    async def renew_lease(self) -> None:
        """Renews the lease every quarter of its duration until it is cancelled."""
        await self.registered.wait()
        name = self._settings.node_name
        duration = self._settings.node_lease_duration
        while True:
            uid = self._node["metadata"].get("uid", "")
            lease = lease_object(name, duration, time.time(), uid)
            try:
                await self._write_lease(name, lease)
            except ApiError as error:
                log.warning("Failed to update lease: %s", error)
            # The jitter keeps the nodes of a lab from writing at the same time.
            await asyncio.sleep(duration / 4 * random.uniform(1.0, 1.04))

    async def _write_lease(self, name: str, lease: Lease) -> None:
        try:
            await self._client.patch(LEASES, name, {"spec": lease["spec"]}, LEASE_NAMESPACE)
            return
        except ApiError as error:
            if error.status != 404:
                raise
        # The Lease is collected with its Node, so this may be another Node of the same name, whose
        # status is not the one that was written last.
        node = await self._client.get(NODES, name)
        uid = node["metadata"].get("uid", "")
        if uid != self.node_uid:
            self._node = node
            self.changed()
        spec = lease["spec"]
        await self._client.create(
            LEASES,
            lease_object(name, spec["leaseDurationSeconds"], time.time(), uid),
        )


def status_patch(status: NodeStatus) -> dict[str, Any]:
    """The status as a strategic merge patch.

    The patch merges addresses by type, but a dual-stack node has two addresses of type InternalIP,
    so the whole list is replaced (fixupPatchForNodeStatusAddresses of component-helpers).
    """
    return {**status, "addresses": [*status["addresses"], {"$patch": "replace"}]}


def _ready(status: NodeStatus) -> str:
    conditions = status.get("conditions") or []
    return next((item["status"] for item in conditions if item["type"] == "Ready"), "")
