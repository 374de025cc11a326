"""Counts what is there (k8s.io/kubernetes/pkg/controller/resourcequota).

Admission adds to status.used when an object is made. What goes away, and what admission has added
for requests that failed, only shows when everything is counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from kubewire.components.controllers.actions import Action, Update
from kubewire.components.kubeapi import quotas
from kubewire.components.kubeapi.amounts import Amount, Amounts, added, shown
from kubewire.components.kubeapi.resources import RESOURCEQUOTAS, KubeObject

Objects = Mapping[str, Iterable[KubeObject]]


def resources_of(quota: KubeObject) -> set[str]:
    """The resources, as plural or plural.group, that the quota bounds."""
    return {quotas.resource_of(name) for name in (quota.get("spec") or {}).get("hard") or ()}


def plan(quota: KubeObject, objects: Objects, now: datetime) -> tuple[Action, ...]:
    """At most one write; objects has those of the namespace by resource."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    status = {"hard": dict(hard), "used": shown(_used(quota, hard, objects, now))}
    if status == quota.get("status"):
        return ()
    return (Update(RESOURCEQUOTAS, {**quota, "status": status}, "status"),)


def _used(quota: KubeObject, hard: Mapping[str, str], objects: Objects, now: datetime) -> Amounts:
    used: Amounts = {name: Amount() for name in hard}
    for resource in resources_of(quota):
        own = [name for name in hard if quotas.resource_of(name) == resource]
        for obj in objects.get(resource, ()):
            if quotas.matches(quota, resource, obj):
                amounts = quotas.usage(resource, obj, now)
                used = added(used, {name: amounts[name] for name in own if name in amounts})
    return used
