"""Matches Services with pods, and decides which changes of a pod matter to endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubewire.components.controllers.endpointslice.addresses import pod_addresses
from kubewire.components.controllers.meta import Key, is_deleting, labels_of
from kubewire.components.controllers.pods import is_finished, is_ready
from kubewire.components.controllers.sharedinformers import Index

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, Service


def selects(service: Service, labels: dict[str, str]) -> bool:
    """Whether the Service selects these labels; one without a selector selects nothing."""
    selector = service["spec"].get("selector")
    return selector is not None and bool(selector) and selector.items() <= labels.items()


def selected_pods(service: Service, pods_by_namespace: Index[Pod]) -> list[Pod]:
    pods = pods_by_namespace.get(service["metadata"]["namespace"])
    return [pod for pod in pods if selects(service, labels_of(pod))]


def affected_services(
    old: Pod | None,
    new: Pod | None,
    services_by_namespace: Index[Service],
) -> Iterator[Key]:
    """Yields the Services whose endpoints may change when the pod changes from old to new."""
    if old is not None and new is not None and _visible(old) == _visible(new):
        return
    namespace = (new or old or {})["metadata"]["namespace"]
    for service in services_by_namespace.get(namespace):
        if any(pod is not None and selects(service, labels_of(pod)) for pod in (old, new)):
            yield namespace, service["metadata"]["name"]


def _visible(pod: Pod) -> object:
    """The fields of a pod that its endpoints show."""
    spec = pod["spec"]
    return (
        labels_of(pod),
        pod_addresses(pod),
        spec.get("nodeName"),
        spec.get("hostname"),
        spec.get("subdomain"),
        is_ready(pod),
        is_finished(pod),
        is_deleting(pod),
    )
