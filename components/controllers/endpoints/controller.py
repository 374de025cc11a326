"""Keeps an Endpoints object for each Service that has a selector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Delete
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.endpoints.plan import MANAGED_BY, MANAGER, plan
from kubewire.components.controllers.endpointslice.selection import affected_services, selected_pods
from kubewire.components.controllers.endpointslice.triggertime import TriggerTimes
from kubewire.components.controllers.meta import Key, key_of, labels_of
from kubewire.components.controllers.sharedinformers import namespace_values
from kubewire.components.kubeapi.resources import ENDPOINTS, PODS, SERVICES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Endpoints, Pod, Service


class EndpointsController(KeyedController):
    component = "endpoint-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.follow(SERVICES, self._on_service)
        self.services_by_namespace = self.informers.index(SERVICES, namespace_values)
        self.pods_by_namespace = self.informers.index(PODS, namespace_values)
        self.endpoints = self.follow(ENDPOINTS, self.enqueue)
        self.follow(PODS, self._enqueue_on_pod_change)
        self.trigger_times = TriggerTimes()
        #: Services that were deleted, until their Endpoints are gone too.
        self.deleted: set[Key] = set()

    def _on_service(self, old: Service | None, new: Service | None) -> None:
        key = key_of(new or old or {})
        if new is None:
            self.deleted.add(key)
        else:
            self.deleted.discard(key)
        self.queue.add(key)

    def _enqueue_on_pod_change(self, old: Pod | None, new: Pod | None) -> None:
        for key in affected_services(old, new, self.services_by_namespace):
            self.queue.add(key)

    async def sync(self, key: Key) -> None:
        service = self.services.store.get(key)
        existing = self.endpoints.store.get(key)
        if service is None:
            self.trigger_times.forget(key)
            if existing is not None and is_left_over(existing, deleted=key in self.deleted):
                await self.apply(key, [Delete(ENDPOINTS, *key, existing["metadata"]["uid"])])
            self.deleted.discard(key)
            return
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return
        pods = selected_pods(service, self.pods_by_namespace)
        await self.apply(
            key,
            plan(service, pods, existing, self.trigger_times.compute(service, pods)),
        )


def is_left_over(endpoints: Endpoints, *, deleted: bool) -> bool:
    """Whether Endpoints without a Service belong to one that is gone.

    Others are written by hand, or are locks of leader election, and stay.
    """
    return deleted or labels_of(endpoints).get(MANAGED_BY) == MANAGER
