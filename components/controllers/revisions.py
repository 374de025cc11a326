"""ControllerRevisions: the history of DaemonSets and StatefulSets.

kubectl rollout history and undo read them
(https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/controller-revision-v1/).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Create, Delete, Patch
from kubewire.components.controllers.meta import controller_reference
from kubewire.components.controllers.podtemplate import CONTROLLER_REVISION_HASH, compute_hash
from kubewire.components.kubeapi.resources import CONTROLLERREVISIONS, KubeObject

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ControllerRevision, DaemonSet, StatefulSet


@dataclass(frozen=True)
class History:
    """current is the revision of the present template; actions write it if necessary."""

    current: ControllerRevision
    old: tuple[ControllerRevision, ...]
    actions: tuple[Action, ...]


def template_patch(owner: DaemonSet | StatefulSet) -> KubeObject:
    """The strategic merge patch that restores this template; kubectl rollout undo applies it.

    Its keys are sorted, as those of a map in Go's JSON, because the API server keeps its bytes.
    """
    template = {**owner["spec"]["template"], "$patch": "replace"}
    return {"spec": {"template": _sorted(template)}}


def _sorted(value: Any) -> Any:
    """A copy whose maps have their keys in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def apply_revision(owner: StatefulSet, revision: ControllerRevision) -> StatefulSet:
    """The owner with the pod template that the revision recorded."""
    template: Any = dict(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return {**owner, "spec": {**owner["spec"], "template": template}}


def by_revision(revisions: Iterable[ControllerRevision]) -> list[ControllerRevision]:
    return sorted(revisions, key=lambda item: (item.get("revision", 0), item["metadata"]["name"]))


def plan_history(
    owner: DaemonSet | StatefulSet, revisions: Sequence[ControllerRevision]
) -> History:
    """Finds or creates the revision of the present template.

    After a rollback the revision exists already and is renumbered as the newest.
    """
    data = template_patch(owner)
    collisions = (owner.get("status") or {}).get("collisionCount")
    ordered = by_revision(revisions)
    same = [item for item in ordered if item["data"] == data]
    newest = max((int(item["revision"]) for item in ordered), default=0)
    if not same:
        fresh = _revision(owner, data, newest + 1, collisions)
        return History(fresh, tuple(ordered), (Create(CONTROLLERREVISIONS, fresh),))
    current = same[-1]
    old = tuple(item for item in ordered if item is not current)
    if current["revision"] == newest:
        return History(current, old, ())
    metadata = current["metadata"]
    renumbered: ControllerRevision = {**current, "revision": newest + 1}
    change = {"revision": newest + 1}
    patch = Patch(CONTROLLERREVISIONS, metadata["namespace"], metadata["name"], change)
    return History(renumbered, old, (patch,))


def _revision(
    owner: DaemonSet | StatefulSet,
    data: KubeObject,
    number: int,
    collisions: int | None,
) -> ControllerRevision:
    digest = compute_hash(owner["spec"]["template"], collisions)
    metadata = owner["metadata"]
    labels = owner["spec"]["template"].get("metadata", {}).get("labels") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": {**labels, CONTROLLER_REVISION_HASH: digest},
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [controller_reference(owner)],
        },
        "data": data,
        "revision": number,
    }


def revision_hash(revision: ControllerRevision) -> str:
    return str(revision["metadata"].get("labels", {}).get(CONTROLLER_REVISION_HASH, ""))


def plan_truncation(
    owner: DaemonSet | StatefulSet,
    old: Sequence[ControllerRevision],
    live: Iterable[str],
) -> tuple[Delete, ...]:
    """Deletes the oldest unused revisions beyond revisionHistoryLimit.

    live holds the names or hashes of revisions that pods still use.
    """
    limit = int(owner["spec"].get("revisionHistoryLimit", 10))
    used = set(live)
    ordered = by_revision(old)
    idle = [item for item in ordered if not used & {item["metadata"]["name"], revision_hash(item)}]
    return tuple(
        Delete(
            CONTROLLERREVISIONS,
            item["metadata"]["namespace"],
            item["metadata"]["name"],
            item["metadata"].get("uid", ""),
        )
        for item in idle[: max(len(idle) - limit, 0)]
    )
