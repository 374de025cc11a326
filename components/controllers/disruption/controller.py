"""Follows PodDisruptionBudgets, pods and what determines how many pods there should be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.discovery import discover
from kubewire.components.controllers.disruption.plan import plan, plan_stale
from kubewire.components.controllers.meta import Key, controller_of, labels_of
from kubewire.components.controllers.sharedinformers import namespace_values
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import (
    DEPLOYMENTS,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    KubeObject,
    Resource,
)
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import OwnerReference, Pod

_SCALED: tuple[Resource[Any], ...] = (REPLICATIONCONTROLLERS, REPLICASETS, STATEFULSETS)


class DisruptionController(KeyedController):
    """Keys are budgets; pods with a stale DisruptionTarget have a queue of their own."""

    component = "controllermanager"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.budgets = self.follow(PODDISRUPTIONBUDGETS, self._on_budget)
        self.pods = self.follow(PODS, self._on_pod)
        self.pods_by_namespace = self.informers.index(PODS, namespace_values)
        self.budgets_by_namespace = self.informers.index(PODDISRUPTIONBUDGETS, _namespaces)
        self.owners = {item.kind: self.follow(item) for item in (*_SCALED, DEPLOYMENTS)}
        self.kinds: dict[tuple[str, str], Resource[Any]] = {}
        self.stale = StaleDisruptions(context)

    def _on_budget(self, old: KubeObject | None, new: KubeObject | None) -> None:
        metadata = (new or old or {})["metadata"]
        self.queue.add((metadata["namespace"], metadata["name"]))

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            namespace = pod["metadata"].get("namespace", "")
            for budget in self.budgets_by_namespace.get(namespace):
                if _selector(budget).matches(labels_of(pod)):
                    self.queue.add((namespace, budget["metadata"]["name"]))

    async def run(self) -> None:
        await asyncio.gather(super().run(), self.stale.run())

    async def sync(self, key: Key) -> None:
        budget = self.budgets.store.get(key)
        if budget is None:
            return
        selector = _selector(budget)
        pods = [
            pod for pod in self.pods_by_namespace.get(key[0]) if selector.matches(labels_of(pod))
        ]
        others = await self._other_scales(pods, key[0])
        step = plan(
            budget,
            pods,
            lambda owner: self._scale_of(owner, key[0]) or others.get(owner["uid"]),
            self.context.now(),
            _text(budget["spec"].get("selector")),
        )
        await self.apply(key, step.actions, step.requeue_after)

    def _scale_of(self, owner: OwnerReference, namespace: str) -> tuple[str, int] | None:
        """The scale of a controller; a ReplicaSet's is that of its Deployment."""
        informer = self.owners.get(owner["kind"])
        found: Any = informer.store.get((namespace, owner["name"])) if informer else None
        if found is None or found["metadata"]["uid"] != owner["uid"]:
            return None
        above = controller_of(found)
        if owner["kind"] == "ReplicaSet" and above and above["kind"] == "Deployment":
            return self._scale_of(above, namespace)
        return owner["uid"], int(found["spec"].get("replicas", 1))

    async def _other_scales(
        self, pods: Iterable[Pod], namespace: str
    ) -> dict[str, tuple[str, int]]:
        """The scales of controllers of other kinds, from their subresource, by uid."""
        owners = {owner["uid"]: owner for pod in pods if (owner := controller_of(pod))}
        found = {}
        for uid, owner in owners.items():
            if owner["kind"] in self.owners:
                continue
            scale = await self._read_scale(owner, namespace)
            if scale is not None and scale["metadata"].get("uid") == uid:
                found[uid] = (uid, int((scale.get("spec") or {}).get("replicas") or 0))
        return found

    async def _read_scale(self, owner: OwnerReference, namespace: str) -> KubeObject | None:
        kind = (owner["apiVersion"], owner["kind"])
        if kind not in self.kinds:
            discovered = await discover(self.client)
            self.kinds = {(item.api_version, item.kind): item for item in discovered.verbs}
        resource = self.kinds.get(kind)
        if resource is None:
            return None
        try:
            body = await self.client.request(
                "GET", resource.path(namespace, owner["name"], "scale")
            )
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        scale: KubeObject = json.loads(body)
        return scale


class StaleDisruptions(KeyedController):
    """Clears DisruptionTarget of pods that were not deleted after all; keys are pods."""

    component = "controllermanager"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.follow(PODS, self._on_pod)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        conditions = ((new or {}).get("status") or {}).get("conditions") or ()
        if any(item["type"] == "DisruptionTarget" for item in conditions):
            self.enqueue(old, new)

    async def sync(self, key: Key) -> None:
        pod = self.pods.store.get(key)
        if pod is not None:
            step = plan_stale(pod, self.context.now())
            await self.apply(key, step.actions, step.requeue_after)


def _namespaces(budget: KubeObject) -> tuple[str, ...]:
    return (budget["metadata"].get("namespace", ""),)


def _selector(budget: KubeObject) -> LabelSelector:
    return LabelSelector.from_object((budget.get("spec") or {}).get("selector"))


def _text(selector: KubeObject | None) -> str:
    """As Go prints a metav1.LabelSelector."""
    if selector is None:
        return "nil"
    labels = ",".join(
        f"{key}: {value}" for key, value in sorted((selector.get("matchLabels") or {}).items())
    )
    rows = (
        "{LabelSelectorRequirement{"
        f"{item['key']} {item['operator']} [{' '.join(item.get('values') or ())}]"
        "}"
        for item in selector.get("matchExpressions") or ()
    )
    shown = f"map[string]string{{{labels},}}" if labels else "map[string]string{}"
    return (
        f"&LabelSelector{{MatchLabels:{shown},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{','.join(rows)}}},}}"
    )
