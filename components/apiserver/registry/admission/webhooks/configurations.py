"""The webhooks of all stored configurations, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubewire.components.apiserver.cel.policies import Condition, conditions
from kubewire.components.apiserver.store import Event, Store
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector


@dataclass(frozen=True)
class Webhook:
    """One webhook of a configuration, with its defaults filled in."""

    configuration: str
    uid: str
    name: str
    client: Mapping[str, Any]
    rules: tuple[Mapping[str, Any], ...]
    namespaces: LabelSelector
    objects: LabelSelector
    match_conditions: tuple[Mapping[str, str], ...]
    match_policy: str
    failure_policy: str
    side_effects: str
    reinvoked: bool
    timeout: int
    versions: tuple[str, ...]

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Compiled by the first request that the webhook's rules are about."""
        return conditions(self.match_conditions)


class Configurations:
    """The webhooks of one kind of configuration.

    They are read when they are first needed after a change.
    """

    def __init__(self, store: Store, storage: str) -> None:
        self._store = store
        self._storage = storage
        self._webhooks: tuple[Webhook, ...] | None = None
        #: Grows with each change, for caches.
        self.serial = 0
        store.subscribe(storage, self._changed)

    def _changed(self, event: Event) -> None:
        self.serial += 1
        self._webhooks = None

    def webhooks(self) -> tuple[Webhook, ...]:
        found = self._webhooks
        if found is None:
            stored = self._store.items(self._storage)
            found = self._webhooks = tuple(
                hook for item in stored for hook in read_webhooks(item.obj)
            )
        return found


def read_webhooks(configuration: KubeObject) -> list[Webhook]:
    """The webhooks of a stored configuration; uid counts those of the same name."""
    name = configuration["metadata"]["name"]
    found: list[Webhook] = []
    seen: dict[str, int] = {}
    for item in configuration.get("webhooks") or ():
        number = seen.get(item["name"], 0)
        seen[item["name"]] = number + 1
        found.append(_webhook(name, f"{name}/{item['name']}/{number}", item))
    return found


def _webhook(configuration: str, uid: str, item: Mapping[str, Any]) -> Webhook:
    return Webhook(
        configuration,
        uid,
        item["name"],
        item.get("clientConfig") or {},
        tuple(item.get("rules") or ()),
        LabelSelector.from_object(item.get("namespaceSelector") or {}),
        LabelSelector.from_object(item.get("objectSelector") or {}),
        tuple(item.get("matchConditions") or ()),
        item.get("matchPolicy") or "Equivalent",
        item.get("failurePolicy") or "Fail",
        item.get("sideEffects") or "",
        item.get("reinvocationPolicy") == "IfNeeded",
        int(item.get("timeoutSeconds") or 10),
        tuple(item.get("admissionReviewVersions") or ()),
    )
