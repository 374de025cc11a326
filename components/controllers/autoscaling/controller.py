"""Runs a round of each HorizontalPodAutoscaler every 15 seconds, or as a flag says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.autoscaling.limits import History
from kubewire.components.controllers.autoscaling.plan import Target, no_target, plan
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.discovery import discover
from kubewire.components.controllers.meta import Key, labels_of
from kubewire.components.controllers.sharedinformers import namespace_values
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import (
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    KubeObject,
    Resource,
)
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import HorizontalPodAutoscaler

_POD_METRICS: Resource[KubeObject] = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")
_KNOWN: tuple[Resource[Any], ...] = (
    DEPLOYMENTS,
    REPLICASETS,
    STATEFULSETS,
    REPLICATIONCONTROLLERS,
)


class HorizontalPodAutoscalerController(KeyedController):
    component = "horizontal-pod-autoscaler"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.autoscalers = self.follow(HORIZONTALPODAUTOSCALERS, self._on_autoscaler)
        self.follow(PODS)
        self.pods = self.informers.index(PODS, namespace_values)
        self._histories: dict[str, History] = {}

    def _on_autoscaler(
        self,
        old: HorizontalPodAutoscaler | None,
        new: HorizontalPodAutoscaler | None,
    ) -> None:
        if new is None and old is not None:
            self._histories.pop(old["metadata"]["uid"], None)
        elif old is None or new is None or old.get("spec") != new.get("spec"):
            self.enqueue(old, new)

    async def sync(self, key: Key) -> None:
        hpa = self.autoscalers.store.get(key)
        if hpa is None:
            return
        self.queue.add_after(key, self.context.options.autoscaling.period)
        now = self.context.now()
        reference = hpa["spec"]["scaleTargetRef"]
        try:
            resource = await self._resource(reference.get("apiVersion") or "", reference["kind"])
            scale = await self._scale(resource, key[0], reference["name"])
        except (ApiError, LookupError) as error:
            await self.apply(key, no_target(hpa, str(error), now))
            return
        uid = hpa["metadata"]["uid"]
        target = await self._target(key[0], scale)
        flags = self.context.options.autoscaling
        step = plan(hpa, target, self._histories.get(uid, History()), now, flags)
        if step.rescale is not None:
            try:
                scale["spec"] = {**(scale.get("spec") or {}), "replicas": step.rescale}
                await self.client.update(resource, scale, subresource="scale")
            except ApiError as error:
                text = f"New size: {step.rescale}; reason: {step.reason}; error: {error.message}"
                self.events.event(hpa, "Warning", "FailedRescale", text)
                raise
        self._histories[uid] = step.history
        await self.apply(key, step.actions)

    async def _resource(self, api_version: str, kind: str) -> Resource[Any]:
        """Raises LookupError for a kind that is not served."""
        group = api_version.rpartition("/")[0]
        for resource in _KNOWN:
            if (resource.group, resource.kind) == (group, kind):
                return resource
        for resource in (await discover(self.client)).verbs:
            if (resource.group, resource.kind) == (group, kind):
                return resource
        raise LookupError(f'no matches for kind "{kind}" in group "{group}"')

    async def _scale(self, resource: Resource[Any], namespace: str, name: str) -> KubeObject:
        path = resource.path(namespace, name, "scale")
        scale: KubeObject = json.loads(await self.client.request("GET", path))
        return scale

    async def _target(self, namespace: str, scale: KubeObject) -> Target:
        text = (scale.get("status") or {}).get("selector") or ""
        selector = LabelSelector.parse(text)
        pods = [
            pod for pod in self.pods.get(namespace) if text and selector.matches(labels_of(pod))
        ]
        count = int((scale.get("spec") or {}).get("replicas") or 0)
        try:
            listed = await self.client.list(_POD_METRICS, namespace, label_selector=text)
        except ApiError as error:
            return Target(count, pods, None, error.message)
        known = {pod["metadata"]["name"] for pod in pods}
        metrics = [item for item in listed.items if item["metadata"]["name"] in known]
        if not metrics:
            problem = "no metrics returned from resource metrics API"
            return Target(count, pods, None, problem)
        return Target(count, pods, metrics)
