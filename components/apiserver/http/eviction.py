"""The subresource pods/eviction: a deletion that a PodDisruptionBudget may forbid
(EvictionREST of core/pod/storage).

The disruption controller counts, and writes into the budget's status how many disruptions are
allowed. The eviction takes one of them, so that two evictions between two looks of the controller
do not both use the last one.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry import deletion, metadata
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import Result, WriteOptions
from kubewire.components.apiserver.store import Stored
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector

_VIOLATION = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not "
    "support."
)
#: Evictions of one budget that its controller may be behind (MaxDisruptedPodSize).
_MOST_DISRUPTED = 2000


def evict(
    registry: Registry,
    served: Served,
    namespace: str,
    name: str,
    body: KubeObject,
    options: WriteOptions,
) -> Result:
    """Deletes the pod; raises 429 when its budget has no disruption left."""
    if name != (body.get("metadata") or {}).get("name"):
        raise status.bad_request("name in URL does not match name in Eviction object")
    dry_run = {"dryRun": "All"} if options.dry_run else {}
    deleting = deletion.DeleteOptions.parse(body.get("deleteOptions") or {}, dry_run)
    _evict(registry, served, registry.get(served, namespace, name), deleting, options)
    answer = status.created()
    return Result(answer, orjson.dumps(answer), 201)


def _evict(
    registry: Registry,
    served: Served,
    pod: Stored,
    deleting: deletion.DeleteOptions,
    options: WriteOptions,
) -> None:
    deletion.check_preconditions(served, pod, deleting)
    if not _needs_no_budget(pod.obj):
        budgets = _budgets(registry, pod)
        if len(budgets) > 1:
            raise status.StatusError(status.status(500, "", _SEVERAL))
        if budgets and not _harmless(pod.obj, budgets[0].obj):
            _spend(registry, budgets[0], pod.key.name, deleting.dry_run)
    options = replace(options, dry_run=deleting.dry_run)
    registry.update(
        served,
        pod.key.namespace,
        pod.key.name,
        _marked,
        options,
        "raw",
        track=False,
        subresource="status",
    )
    # The mark has changed the pod's resourceVersion.
    deleting = replace(deleting, resource_version="")
    deletion.delete(registry, served, pod.key.namespace, pod.key.name, deleting)


def _marked(pod: KubeObject) -> KubeObject:
    state = pod.setdefault("status", {})
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": metadata.timestamp(),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    rest = [item for item in state.get("conditions") or () if item["type"] != "DisruptionTarget"]
    state["conditions"] = [*rest, target]
    return pod


def _needs_no_budget(pod: KubeObject) -> bool:
    """Whether the pod has ended, does not run yet, or is being deleted (canIgnorePDB)."""
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Pending"):
        return True
    return bool(pod["metadata"].get("deletionTimestamp"))


def _budgets(registry: Registry, pod: Stored) -> list[Stored]:
    labels = pod.obj["metadata"].get("labels") or {}
    return [
        stored
        for stored in registry.store.items("poddisruptionbudgets.policy")
        if stored.key.namespace == pod.key.namespace
        and LabelSelector.from_object(stored.obj.get("spec", {}).get("selector")).matches(labels)
    ]


def _harmless(pod: KubeObject, budget: KubeObject) -> bool:
    """Whether the pod is unhealthy, and its budget lets unhealthy pods go without counting them."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    if any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    state = budget.get("status") or {}
    desired = int(state.get("desiredHealthy") or 0)
    return int(state.get("currentHealthy") or 0) >= desired > 0


def _spend(registry: Registry, stored: Stored, pod: str, dry_run: bool) -> None:
    """Takes one disruption from the budget (checkAndDecrement)."""
    budget = stored.copy()
    state = budget.setdefault("status", {})
    name = stored.key.name
    if int(state.get("observedGeneration", 0)) < int(budget["metadata"].get("generation", 0)):
        text = f"The disruption budget {name} is still being processed by the server."
        raise _too_many(text, 10)
    allowed = int(state.get("disruptionsAllowed", 0))
    if allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(state.get("disruptedPods") or ()) > _MOST_DISRUPTED:
        why = "too many evictions not confirmed by PDB controller"
        raise _forbidden(name, f"DisruptedPods map too big - {why}")
    if allowed == 0:
        raise _too_many(_why_none(name, state), 0)
    if dry_run:
        return
    state["disruptionsAllowed"] = allowed - 1
    if allowed == 1:
        _insufficient(state)
    state.setdefault("disruptedPods", {})[pod] = metadata.timestamp()
    registry.store.update(stored.key, budget, stored.revision)


def _why_none(name: str, state: KubeObject) -> str:
    failed = [
        item
        for item in state.get("conditions") or ()
        if item["type"] == "DisruptionAllowed"
        and item["status"] == "False"
        and item.get("reason") == "SyncFailed"
    ]
    if failed:
        why = f"because it failed sync: {failed[0].get('message', '')}"
        return f"The disruption budget {name} does not allow evicting pods currently {why}"
    desired = state.get("desiredHealthy", 0)
    current = state.get("currentHealthy", 0)
    return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"


def _insufficient(state: KubeObject) -> None:
    for item in state.get("conditions") or ():
        if item["type"] == "DisruptionAllowed" and item["status"] != "False":
            item["status"] = "False"
            item["reason"] = "InsufficientPods"
            item["lastTransitionTime"] = metadata.timestamp()


def _too_many(cause: str, retry_after: int) -> status.StatusError:
    causes = [{"reason": "DisruptionBudget", "message": cause}]
    return status.too_many_requests(_VIOLATION, retry_after, causes)


def _forbidden(name: str, why: str) -> status.StatusError:
    return status.forbidden("policy", "poddisruptionbudget", name, why)
