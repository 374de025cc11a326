"""Keeps the EndpointSlices of each Service that has a selector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Emit
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.endpointslice.addresses import address_types, is_headless
from kubewire.components.controllers.endpointslice.desired import ZONE, desired_groups
from kubewire.components.controllers.endpointslice.reconcile import Shape, plan_slices
from kubewire.components.controllers.endpointslice.selection import affected_services, selected_pods
from kubewire.components.controllers.endpointslice.triggertime import TriggerTimes
from kubewire.components.controllers.endpointslice.zonehints import (
    DISABLED,
    SWITCHED_OFF,
    AutoHints,
    cpu_ratios,
    is_auto,
    is_overloaded,
)
from kubewire.components.controllers.meta import Key, controller_reference, labels_of
from kubewire.components.controllers.sharedinformers import namespace_values
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NODES, PODS, SERVICES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import EndpointSlice, Node, Pod, Service

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
_LONGEST_NAME = 63


def service_values(endpointslice: EndpointSlice) -> tuple[str, ...]:
    """Index value: NAMESPACE/SERVICE of the Service a slice belongs to."""
    name = labels_of(endpointslice).get(SERVICE_NAME)
    return (f"{endpointslice['metadata']['namespace']}/{name}",) if name else ()


def generate_name(service: str) -> str:
    """The Service's name and a hyphen, or the name alone if the prefix would become too long."""
    return f"{service}-" if len(service) < _LONGEST_NAME else service


def shape_of(service: Service, max_per_slice: int, trigger_time: str | None) -> Shape:
    """The metadata that all slices of a Service share."""
    metadata = service["metadata"]
    reserved = (SERVICE_NAME, MANAGED_BY, HEADLESS)
    labels = {key: value for key, value in labels_of(service).items() if key not in reserved}
    labels |= {SERVICE_NAME: metadata["name"], MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS] = ""
    return Shape(
        metadata["namespace"],
        generate_name(metadata["name"]),
        labels,
        {},
        controller_reference(service),
        max_per_slice,
        trigger_time,
    )


class EndpointSliceController(KeyedController):
    component = "endpoint-slice-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.follow(SERVICES, self.enqueue)
        self.services_by_namespace = self.informers.index(SERVICES, namespace_values)
        self.pods_by_namespace = self.informers.index(PODS, namespace_values)
        self.slices_by_service = self.informers.index(ENDPOINTSLICES, service_values)
        self.nodes = self.follow(NODES, self._enqueue_on_node_change)
        self.follow(PODS, self._enqueue_on_pod_change)
        self.follow(ENDPOINTSLICES, self._enqueue_service)
        self.trigger_times = TriggerTimes()
        #: Services with hints by CPU share: address type -> zone -> number of endpoints.
        self.allocated: dict[Key, dict[str, dict[str, int]]] = {}

    def _enqueue_on_pod_change(self, old: Pod | None, new: Pod | None) -> None:
        for key in affected_services(old, new, self.services_by_namespace):
            self.queue.add(key)

    def _enqueue_on_node_change(self, old: Node | None, new: Node | None) -> None:
        """Enqueues all Services when a node appears, disappears or changes its zone.

        A change of its CPU or readiness only affects hints by CPU share.
        """
        kept = old is not None and new is not None
        if kept and labels_of(old or {}).get(ZONE) == labels_of(new or {}).get(ZONE):
            self._enqueue_overloaded()
            return
        for key in self.services.store:
            self.queue.add(key)

    def _enqueue_overloaded(self) -> None:
        """Enqueues the Services whose hints no longer fit the zones' CPU."""
        if not self.allocated:
            return
        ratios = cpu_ratios(self.nodes.store.values())
        for key, by_type in self.allocated.items():
            if any(is_overloaded(zones, ratios) for zones in by_type.values()):
                self.queue.add(key)

    def _enqueue_service(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for item in (old, new):
            if item is not None and labels_of(item).get(MANAGED_BY) == MANAGER:
                self.queue.add(
                    (item["metadata"]["namespace"], labels_of(item).get(SERVICE_NAME, "")),
                )

    async def sync(self, key: Key) -> None:
        service = self.services.store.get(key)
        if service is None:
            self.trigger_times.forget(key)
            self.allocated.pop(key, None)
            return
        spec = service["spec"]
        if not spec.get("selector") or spec.get("type") == "ExternalName":
            return
        pods = selected_pods(service, self.pods_by_namespace)
        nodes = {name: node for (_, name), node in self.nodes.store.items()}
        slices = self.slices_by_service.get("/".join(key))
        existing = [item for item in slices if labels_of(item).get(MANAGED_BY) == MANAGER]
        trigger_time = self.trigger_times.compute(service, pods)
        shape = shape_of(service, self.context.options.max_endpoints_per_slice, trigger_time)
        auto: AutoHints | None = None
        if is_auto(service):
            auto = AutoHints(cpu_ratios(nodes.values()), key in self.allocated)
        groups = desired_groups(service, pods, nodes, hints=auto is None)
        actions = plan_slices(shape, existing, groups, address_types(service), auto)
        await self.apply(key, [*actions, *self._hint_events(key, service, auto)])

    def _hint_events(self, key: Key, service: Service, auto: AutoHints | None) -> list[Action]:
        before = self.allocated.pop(key, {})
        if auto is None:
            return [
                Emit(service, "Warning", DISABLED, f"{SWITCHED_OFF}, addressType: {address_type}")
                for address_type in sorted(before)
            ]
        if auto.allocated:
            self.allocated[key] = auto.allocated
        return [Emit(service, kind, reason, message) for kind, reason, message in auto.events]
