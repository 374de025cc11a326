"""Deletes the contents of a namespace that is being deleted, then finalizes it
(https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Update
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.discovery import Discovered, discover
from kubewire.components.controllers.meta import Key, format_time, is_deleting
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import NAMESPACES, PODS, Resource

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Namespace,
        NamespaceCondition,
        PartialObjectMetadata,
    )

_FINALIZER = "kubernetes"
#: Seconds between two looks at a namespace whose pods are shutting down.
_AGAIN = 0.5


@dataclass(frozen=True)
class Outcome:
    """What one pass over a namespace left.

    remaining counts the objects of each resource, finalizers the objects that wait for each
    finalizer. errors lists the failed requests.
    """

    remaining: Mapping[str, int]
    finalizers: Mapping[str, int]
    undiscovered: Sequence[str] = ()
    errors: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        return not self.remaining and not self.undiscovered and not self.errors


def conditions_of(
    outcome: Outcome,
    standing: Sequence[NamespaceCondition],
    now: datetime,
) -> list[NamespaceCondition]:
    """The five conditions that kubectl describe namespace shows."""
    left = sorted(outcome.remaining.items())
    remaining = ", ".join(f"{name} has {count} resource instances" for name, count in left)
    waiting = sorted(outcome.finalizers.items())
    holders = ", ".join(f"{name} in {count} resource instances" for name, count in waiting)
    rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            bool(outcome.undiscovered),
            (
                "DiscoveryFailed",
                "Discovery failed for some groups: " + ", ".join(outcome.undiscovered),
            ),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            False,
            ("", ""),
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            bool(outcome.errors),
            (
                "ContentDeletionFailed",
                "Failed to delete all resource types: " + "; ".join(outcome.errors),
            ),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            bool(outcome.remaining),
            ("SomeResourcesRemain", f"Some resources are remaining: {remaining}"),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            bool(outcome.finalizers),
            (
                "SomeFinalizersRemain",
                f"Some content in the namespace has finalizers remaining: {holders}",
            ),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
    before = {item["type"]: item for item in standing}
    return [_condition(row, before.get(row[0]), now) for row in rows]


def _condition(
    row: tuple[str, bool, tuple[str, str], tuple[str, str]],
    standing: NamespaceCondition | None,
    now: datetime,
) -> NamespaceCondition:
    kind, holds, bad, good = row
    reason, message = bad if holds else good
    status = "True" if holds else "False"
    since = format_time(now)
    if standing is not None and standing["status"] == status:
        since = standing["lastTransitionTime"]
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


class NamespaceController(KeyedController):
    component = "namespace-controller"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.follow(NAMESPACES, self._on_namespace)

    def _on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and is_deleting(new):
            self.queue.add(("", new["metadata"]["name"]))

    async def sync(self, key: Key) -> None:
        namespace = self.namespaces.store.get(key)
        if namespace is None or not is_deleting(namespace):
            return
        finalizers = (namespace.get("spec") or {}).get("finalizers") or []
        if _FINALIZER not in finalizers:
            return
        outcome = await self._empty(key[1])
        standing = (namespace.get("status") or {}).get("conditions") or []
        conditions = conditions_of(outcome, standing, self.context.now())
        if conditions != standing:
            status = {**(namespace.get("status") or {}), "conditions": conditions}
            changed: Any = {**namespace, "status": status}
            # The controller's role allows no patch of a Namespace.
            await self.apply(key, [Update(NAMESPACES, changed, "status")])
        if outcome.is_empty:
            await self._finalize(key[1])
        else:
            self.queue.add_after(key, _AGAIN)

    async def _finalize(self, name: str) -> None:
        fresh = await self.client.get(NAMESPACES, name)
        spec = fresh.get("spec") or {}
        kept = [item for item in spec.get("finalizers") or [] if item != _FINALIZER]
        body = {**fresh, "spec": {**spec, "finalizers": kept}}
        await self.client.request("PUT", NAMESPACES.path(None, name, "finalize"), body=body)

    async def _empty(self, namespace: str) -> Outcome:
        discovered = await discover(self.client)
        remaining: Counter[str] = Counter()
        finalizers: Counter[str] = Counter()
        errors: list[str] = []
        for resource in deletion_order(discovered):
            try:
                left = await self._empty_of(resource, namespace)
            except ApiError as error:
                if error.status not in (404, 405):
                    errors.append(f"{resource.plural}: {error.message}")
                continue
            if left:
                remaining[_title(resource)] += len(left)
            for item in left:
                finalizers.update(item["metadata"].get("finalizers") or [])
            if resource == PODS and left:
                break
        return Outcome(remaining, finalizers, discovered.failed, errors)

    async def _empty_of(
        self, resource: Resource[Any], namespace: str
    ) -> list[PartialObjectMetadata]:
        items = (await self.client.list(resource, namespace)).items
        if not items:
            return []
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            await self.client.request("DELETE", resource.path(namespace), body=options)
        except ApiError as error:
            if error.status != 405:
                raise
            for item in items:
                await self._delete(resource, item)
        return (await self.client.list(resource, namespace)).items

    async def _delete(self, resource: Resource[Any], item: PartialObjectMetadata) -> None:
        metadata = item["metadata"]
        try:
            await self.client.delete(
                resource,
                metadata["name"],
                metadata["namespace"],
                uid=metadata["uid"],
            )
        except ApiError as error:
            if error.status != 404:
                raise


def deletion_order(discovered: Discovered) -> list[Resource[Any]]:
    """The resources to delete. Pods come first, and nothing else goes while one is left, so that no
    pod runs without the policies and secrets that it was made with (OrderedNamespaceDeletion).
    """
    able = [item for item in discovered.having("list", "delete") if item.namespaced]
    return sorted(able, key=lambda item: (item != PODS, item.group, item.plural))


def _title(resource: Resource[Any]) -> str:
    return f"{resource.plural}.{resource.group}"
