"""One step of a rollout, as a function of the Deployment, its ReplicaSets and its pods.

The order of decisions is that of upstream's syncDeployment: pause, scale, then the strategy. A
sync takes at most one sizing step, because the next step depends on the statuses that this one
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import (
    Action,
    Create,
    Delete,
    Emit,
    Patch,
    Plan,
    Update,
)
from kubewire.components.controllers.deployment import sizes, status
from kubewire.components.controllers.meta import (
    annotations_of,
    by_age,
    controller_reference,
    is_deleting,
)
from kubewire.components.controllers.pods import is_finished
from kubewire.components.controllers.podtemplate import (
    POD_TEMPLATE_HASH,
    compute_hash,
    equal_ignoring_hash,
)
from kubewire.components.kubeapi.resources import DEPLOYMENTS, REPLICASETS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Deployment,
        DeploymentStatus,
        PartialObjectMetadata,
        Pod,
        ReplicaSet,
    )

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    sizes.DESIRED_REPLICAS,
    sizes.MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
}
_HISTORY_CHARACTERS = 2000


@dataclass(frozen=True)
class Sets:
    """newest is the ReplicaSet of the current template, if there is one; old are all others."""

    newest: ReplicaSet | None
    old: tuple[ReplicaSet, ...]

    @property
    def everything(self) -> tuple[ReplicaSet, ...]:
        return (*self.old, self.newest) if self.newest is not None else self.old


def sort_sets(deployment: Deployment, replicasets: Sequence[ReplicaSet]) -> Sets:
    """Separates the new ReplicaSet, the oldest one with the current template, from the old ones."""
    template = deployment["spec"]["template"]
    oldest_first = by_age(replicasets)
    same = [rs for rs in oldest_first if equal_ignoring_hash(rs["spec"]["template"], template)]
    newest = same[0] if same else None
    return Sets(newest, tuple(item for item in replicasets if item is not newest))


def plan(
    deployment: Deployment,
    replicasets: Sequence[ReplicaSet],
    pods: Sequence[Pod],
    now: datetime,
) -> Plan:
    """Plans the next step.

    pods are all pods of the ReplicaSets; Recreate waits until the old ReplicaSets' pods are gone.
    """
    sets = sort_sets(deployment, replicasets)
    if not (deployment["spec"].get("selector") or {}):
        text = "This deployment is selecting all pods. A non-empty selector is required."
        return Plan((Emit(deployment, "Warning", "SelectingAll", text),))
    if is_deleting(deployment):
        return _finish(deployment, sets, (), now, rolling=False)
    if deployment["spec"].get("paused") or sizes.is_scaling(deployment, sets.everything):
        resized = sizes.proportional_sizes(deployment, sets.old, sets.newest)
        actions = _sync_revision(deployment, sets, now) + _resize(deployment, sets, resized)
        if deployment["spec"].get("paused"):
            actions += _cleanup(deployment, sets)
        return _finish(deployment, sets, actions, now, rolling=False)
    step = _rolling if sizes.is_rolling(deployment) else _recreate
    return _finish(deployment, sets, step(deployment, sets, pods, now), now, rolling=True)


def _rolling(
    deployment: Deployment,
    sets: Sets,
    pods: Sequence[Pod],
    now: datetime,
) -> tuple[Action, ...]:
    if sets.newest is None:
        return _create(deployment, sets)
    actions = _sync_revision(deployment, sets, now)
    desired = sizes.replicas_of(deployment)
    current = sizes.replicas_of(sets.newest)
    wanted = desired
    if current <= desired:
        wanted = sizes.new_size(deployment, sets.everything, sets.newest)
    if current != desired and wanted != current:
        return actions + _resize(deployment, sets, {sizes.name_of(sets.newest): wanted})
    shrunk = sizes.old_sizes(deployment, sets.old, sets.newest)
    if shrunk:
        return actions + _resize(deployment, sets, shrunk)
    return actions + _cleanup_when_complete(deployment, sets)


def _recreate(
    deployment: Deployment,
    sets: Sets,
    pods: Sequence[Pod],
    now: datetime,
) -> tuple[Action, ...]:
    running = {sizes.name_of(item): 0 for item in sets.old if sizes.replicas_of(item) > 0}
    if running:
        return _resize(deployment, sets, running)
    new_uid = sets.newest["metadata"]["uid"] if sets.newest is not None else ""
    if any(_is_owned_by_other(pod, new_uid) and not is_finished(pod) for pod in pods):
        return ()
    if sets.newest is None:
        return _create(deployment, sets)
    desired = sizes.replicas_of(deployment)
    wanted = {}
    if sizes.replicas_of(sets.newest) != desired:
        wanted = {sizes.name_of(sets.newest): desired}
    actions = _sync_revision(deployment, sets, now) + _resize(deployment, sets, wanted)
    return actions + _cleanup_when_complete(deployment, sets)


def _is_owned_by_other(pod: Pod, uid: str) -> bool:
    owners = pod["metadata"].get("ownerReferences") or []
    return not any(owner["uid"] == uid for owner in owners)


def revision_of(obj: PartialObjectMetadata) -> int:
    """The revision annotation; 0 when it is absent or not a number."""
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def _next_revision(sets: Sets) -> int:
    return max((revision_of(item) for item in sets.old), default=0) + 1


def _sizing_annotations(deployment: Deployment) -> dict[str, str]:
    desired = sizes.replicas_of(deployment)
    return {
        sizes.DESIRED_REPLICAS: str(desired),
        sizes.MAX_REPLICAS: str(desired + sizes.max_surge(deployment)),
    }


def _copied_annotations(deployment: Deployment) -> dict[str, str]:
    annotations = annotations_of(deployment)
    return {key: value for key, value in annotations.items() if key not in _NOT_COPIED}


def new_replicaset(deployment: Deployment, sets: Sets) -> ReplicaSet:
    """Builds the ReplicaSet of the current template, named and labelled by the template's hash."""
    spec = deployment["spec"]
    metadata = deployment["metadata"]
    digest = compute_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount"))
    template = spec["template"]
    labels = {**((template.get("metadata") or {}).get("labels") or {}), POD_TEMPLATE_HASH: digest}
    selector = spec["selector"].copy()
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), POD_TEMPLATE_HASH: digest}
    annotations = {
        **_copied_annotations(deployment),
        **_sizing_annotations(deployment),
        REVISION: str(_next_revision(sets)),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {
            "replicas": sizes.new_size(deployment, sets.everything, None),
            "minReadySeconds": int(spec.get("minReadySeconds") or 0),
            "selector": selector,
            "template": {
                **template,
                "metadata": {**(template.get("metadata") or {}), "labels": labels},
            },
        },
    }


def _create(deployment: Deployment, sets: Sets) -> tuple[Action, ...]:
    fresh = new_replicaset(deployment, sets)
    created: tuple[Action, ...] = (Create(REPLICASETS, fresh),)
    size = fresh["spec"]["replicas"]
    if size > 0:
        text = f"Scaled up replica set {fresh['metadata']['name']} from 0 to {size}"
        created += (Emit(deployment, "Normal", "ScalingReplicaSet", text),)
    return created + _sync_deployment_revision(deployment, annotations_of(fresh)[REVISION])


def _sync_deployment_revision(deployment: Deployment, revision: str) -> tuple[Action, ...]:
    if annotations_of(deployment).get(REVISION) == revision:
        return ()
    metadata = deployment["metadata"]
    annotations = {**annotations_of(deployment), REVISION: revision}
    changed: Any = {**deployment, "metadata": {**metadata, "annotations": annotations}}
    # The controller's role allows no patch of a Deployment.
    return (Update(DEPLOYMENTS, changed),)


def _sync_revision(deployment: Deployment, sets: Sets, now: datetime) -> tuple[Action, ...]:
    """Gives the new ReplicaSet the highest revision and the Deployment's annotations.

    A rollback raises the revision of an existing ReplicaSet.
    """
    newest = sets.newest
    if newest is None:
        return ()
    held = annotations_of(newest)
    copied = _copied_annotations(deployment)
    changed = {key: value for key, value in copied.items() if held.get(key) != value}
    revision = max(revision_of(newest), _next_revision(sets))
    if revision != revision_of(newest):
        changed[REVISION] = str(revision)
        if REVISION in held:
            changed[REVISION_HISTORY] = _history(held)
    patch: dict[str, Any] = {"metadata": {"annotations": changed}} if changed else {}
    min_ready = int(deployment["spec"].get("minReadySeconds") or 0)
    if int(newest["spec"].get("minReadySeconds") or 0) != min_ready:
        patch["spec"] = {"minReadySeconds": min_ready}
    metadata = newest["metadata"]
    actions: tuple[Action, ...] = ()
    if patch:
        actions = (Patch(REPLICASETS, metadata["namespace"], metadata["name"], patch),)
    return actions + _sync_deployment_revision(deployment, str(revision))


def _history(held: dict[str, str]) -> str:
    past = [item for item in held.get(REVISION_HISTORY, "").split(",") if item]
    past.append(held[REVISION])
    while len(",".join(past)) > _HISTORY_CHARACTERS:
        past.pop(0)
    return ",".join(past)


def _resize(deployment: Deployment, sets: Sets, wanted: dict[str, int]) -> tuple[Action, ...]:
    annotations = _sizing_annotations(deployment)
    actions: list[Action] = []
    for item in sets.everything:
        size = wanted.get(sizes.name_of(item))
        current = sizes.replicas_of(item)
        stale = not annotations.items() <= annotations_of(item).items()
        if size is None or (size == current and not stale):
            continue
        patch = {"spec": {"replicas": size}, "metadata": {"annotations": annotations}}
        actions.append(
            Patch(REPLICASETS, item["metadata"]["namespace"], sizes.name_of(item), patch),
        )
        if size != current:
            direction = "up" if size > current else "down"
            text = f"Scaled {direction} replica set {sizes.name_of(item)} from {current} to {size}"
            actions.append(Emit(deployment, "Normal", "ScalingReplicaSet", text))
    return tuple(actions)


def _cleanup_when_complete(deployment: Deployment, sets: Sets) -> tuple[Action, ...]:
    complete = status.is_complete(
        deployment,
        status.counts(deployment, sets.everything, sets.newest),
    )
    return _cleanup(deployment, sets) if complete else ()


def _cleanup(deployment: Deployment, sets: Sets) -> tuple[Action, ...]:
    """Deletes old, empty ReplicaSets beyond revisionHistoryLimit, the lowest revision first."""
    limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
    alive = [item for item in sets.old if not is_deleting(item)]
    ordered = sorted(alive, key=revision_of)[: max(len(alive) - limit, 0)]
    return tuple(
        Delete(
            REPLICASETS,
            item["metadata"]["namespace"],
            sizes.name_of(item),
            item["metadata"]["uid"],
        )
        for item in ordered
        if _is_empty(item)
    )


def _is_empty(item: ReplicaSet) -> bool:
    held = item.get("status") or {}
    observed = int(held.get("observedGeneration") or 0)
    settled = int(item["metadata"].get("generation") or 0) <= observed
    return sizes.replicas_of(item) == 0 and not held.get("replicas") and settled


def _finish(
    deployment: Deployment,
    sets: Sets,
    actions: tuple[Action, ...],
    now: datetime,
    *,
    rolling: bool,
) -> Plan:
    held = deployment.get("status") or {}
    fresh = status.counts(deployment, sets.everything, sets.newest)
    conditions = list(held.get("conditions") or [])
    if not is_deleting(deployment):
        conditions = status.with_pause(deployment, conditions, now)
        conditions = _with_new_replicaset(deployment, sets, actions, conditions, now)
    conditions = status.with_available(deployment, conditions, fresh["availableReplicas"], now)
    if rolling:
        conditions = status.with_progress(deployment, conditions, fresh, sets.newest, now)
        conditions = status.with_replica_failure(conditions, sets.everything, sets.newest)
    fresh["conditions"] = conditions
    if _differs(held, fresh):
        actions += (Update(DEPLOYMENTS, {**deployment, "status": fresh}, "status"),)
    complete = status.is_complete(deployment, fresh)
    return Plan(actions, status.until_deadline(deployment, conditions, complete, now))


def _with_new_replicaset(
    deployment: Deployment,
    sets: Sets,
    actions: tuple[Action, ...],
    conditions: status.Conditions,
    now: datetime,
) -> status.Conditions:
    if status.deadline_of(deployment) is None:
        return conditions
    made = next((item for item in actions if isinstance(item, Create)), None)
    if made is not None:
        text = f'Created new replica set "{made.obj["metadata"]["name"]}"'
        return status.with_condition(
            conditions,
            "Progressing",
            "True",
            "NewReplicaSetCreated",
            text,
            now,
        )
    has_progress = any(item["type"] == "Progressing" for item in conditions)
    if sets.newest is not None and not has_progress:
        text = f'Found new replica set "{sizes.name_of(sets.newest)}"'
        return status.with_condition(
            conditions,
            "Progressing",
            "True",
            "FoundNewReplicaSet",
            text,
            now,
        )
    return conditions


def _differs(held: DeploymentStatus, fresh: DeploymentStatus) -> bool:
    numbers = [key for key in fresh if key != "conditions"]
    if any((held.get(key) or 0) != (fresh.get(key) or 0) for key in numbers):
        return True
    return bool((held.get("conditions") or []) != fresh["conditions"])
