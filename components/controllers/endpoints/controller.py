"""Keeps an Endpoints object for each Service that has a selector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Delete
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.endpoints.plan import plan
from kubewire.components.controllers.endpointslice.selection import affected_services, selected_pods
from kubewire.components.controllers.endpointslice.triggertime import TriggerTimes
from kubewire.components.controllers.meta import Key
from kubewire.components.controllers.sharedinformers import namespace_values
from kubewire.components.kubeapi.resources import ENDPOINTS, PODS, SERVICES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Endpoints, Pod


class EndpointsController(KeyedController):
    component = "endpoint-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.follow(SERVICES, self.enqueue)
        self.services_by_namespace = self.informers.index(SERVICES, namespace_values)
        self.pods_by_namespace = self.informers.index(PODS, namespace_values)
        self.endpoints = self.follow(ENDPOINTS, self.enqueue)
        self.follow(PODS, self._enqueue_on_pod_change)
        self.trigger_times = TriggerTimes()

    def _enqueue_on_pod_change(self, old: Pod | None, new: Pod | None) -> None:
        for key in affected_services(old, new, self.services_by_namespace):
            self.queue.add(key)

    async def sync(self, key: Key) -> None:
        service = self.services.store.get(key)
        existing = self.endpoints.store.get(key)
        if service is None:
            self.trigger_times.forget(key)
            if existing is not None and _is_ours(existing):
                await self.apply(key, [Delete(ENDPOINTS, *key, existing["metadata"]["uid"])])
            return
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return
        pods = selected_pods(service, self.pods_by_namespace)
        await self.apply(
            key,
            plan(service, pods, existing, self.trigger_times.compute(service, pods)),
        )


def _is_ours(endpoints: Endpoints) -> bool:
    # Like upstream, this deletes any Endpoints without a Service except locks of leader election.
    annotations = endpoints["metadata"].get("annotations") or {}
    return "control-plane.alpha.kubernetes.io/leader" not in annotations
