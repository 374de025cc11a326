"""Keeps the Node object and the Lease of this node in step with it
(https://kubernetes.io/docs/concepts/architecture/nodes/#heartbeats)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.resources import LEASES, NODES, KubeObject
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

log = logging.getLogger(__name__)
LEASE_NAMESPACE = "kube-node-lease"
_RETRY_FIRST, _RETRY_LAST = 0.1, 7.0


def lease_object(name: str, duration: int, now: float, node_uid: str) -> KubeObject:
    """Renewed every quarter of its duration."""
    renewed = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": duration, "renewTime": renewed},
    }


class NodeRegistration:
    """run() registers and then writes the status: at once when something changed, else now and then."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        machine: Machine,
        recorder: Recorder,
        network_problem: Callable[[], str],
        images: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        self._client, self._settings, self._machine = client, settings, machine
        self._recorder, self._network_problem, self._images = recorder, network_problem, images
        self._changed = asyncio.Event()
        self._node: KubeObject = {}
        self._written_at = 0.0
        self.registered = asyncio.Event()

    @property
    def node_uid(self) -> str:
        """Known once registered is set."""
        return str(self._node["metadata"].get("uid", ""))

    def changed(self) -> None:
        """Something the status tells of may be different now."""
        self._changed.set()

    def reference(self) -> KubeObject:
        """The node as the object of an event; upstream puts the name in place of the uid."""
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
                log.warning("node status: %s", error)
                if error.status == 404:
                    await self._register()
                await asyncio.sleep(_RETRY_FIRST * 5)
                continue
            try:
                async with asyncio.timeout(self._settings.node_status_update_frequency):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        wanted = node_object(self._settings, self._machine)
        # Registered together with its first status: one request less, and never a Node without conditions.
        wanted["status"] = self._status({})
        delay = _RETRY_FIRST
        while True:
            try:
                self._node = await self._create_or_adopt(wanted)
                return
            except ApiError as error:
                log.info("Unable to register node with API server: %s", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LAST)

    async def _create_or_adopt(self, wanted: KubeObject) -> KubeObject:
        try:
            if not self._settings.register_node:
                return await self._client.get(NODES, self._settings.node_name)
            return await self._client.create(NODES, wanted)
        except ApiError as error:
            if error.status != 409:
                raise
        found = await self._client.get(NODES, self._settings.node_name)
        own = labels(self._settings, self._machine)
        if {**found["metadata"].get("labels", {}), **own} != found["metadata"].get("labels"):
            found = await self._client.patch(NODES, self._settings.node_name, {"metadata": {"labels": own}})
        return found

    def _status(self, old: Mapping[str, Any]) -> dict[str, Any]:
        return node_status(self._settings, self._machine, self._health(), self._images(), old, time.time())

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
        """The heartbeat: every quarter of the lease's duration, for ever."""
        await self.registered.wait()
        name, duration = self._settings.node_name, self._settings.node_lease_duration
        while True:
            uid = self._node["metadata"].get("uid", "")
            lease = lease_object(name, duration, time.time(), uid)
            try:
                await self._write_lease(name, lease)
            except ApiError as error:
                log.warning("Failed to update lease: %s", error)
            # Jittered, so that a hundred nodes do not write in the same instant.
            await asyncio.sleep(duration / 4 * random.uniform(1.0, 1.04))

    async def _write_lease(self, name: str, lease: KubeObject) -> None:
        try:
            await self._client.patch(LEASES, name, {"spec": lease["spec"]}, LEASE_NAMESPACE)
        except ApiError as error:
            if error.status != 404:
                raise
            await self._client.create(LEASES, lease)


def status_patch(status: Mapping[str, Any]) -> dict[str, Any]:
    """As a strategic merge patch. addresses merge by type, which cannot hold two of one type, so the whole list is
    replaced (fixupPatchForNodeStatusAddresses of component-helpers)."""
    return {**status, "addresses": [*status["addresses"], {"$patch": "replace"}]}


def _ready(status: Mapping[str, Any]) -> str:
    return next((item["status"] for item in status.get("conditions") or [] if item["type"] == "Ready"), "")
