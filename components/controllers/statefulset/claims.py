"""The claims of a StatefulSet's pods: one for each volumeClaimTemplate and ordinal.

A claim outlives its pod, so that the pod of the same ordinal finds its data again. The retention
policy makes it a dependent of the StatefulSet (whenDeleted) or, when its pod is being scaled away,
of the pod (whenScaled); the garbage collector then does the rest
(https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Create, Patch, Report
from kubewire.components.controllers.meta import controller_of, controller_reference, is_deleting
from kubewire.components.controllers.pods import phase
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        OwnerReference,
        PersistentVolumeClaim,
        Pod,
        StatefulSet,
        Volume,
    )

Claims = Mapping[str, "PersistentVolumeClaim"]


def templates(statefulset: StatefulSet) -> list[PersistentVolumeClaim]:
    return list(statefulset["spec"].get("volumeClaimTemplates") or [])


def claim_name(statefulset: StatefulSet, template: PersistentVolumeClaim, ordinal: int) -> str:
    return f"{template['metadata']['name']}-{statefulset['metadata']['name']}-{ordinal}"


def names(statefulset: StatefulSet, ordinal: int) -> list[str]:
    return [claim_name(statefulset, item, ordinal) for item in templates(statefulset)]


def volumes(statefulset: StatefulSet, ordinal: int, given: list[Volume]) -> list[Volume]:
    """The pod's volumes: those of the claims, which replace volumes of the same name."""
    made: list[Volume] = [
        {
            "name": template["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": claim_name(statefulset, template, ordinal)},
        }
        for template in templates(statefulset)
    ]
    replaced = {volume["name"] for volume in made}
    return [*made, *(volume for volume in given if volume["name"] not in replaced)]


def are_going(statefulset: StatefulSet, ordinal: int, claims: Claims) -> bool:
    """Whether a claim of the ordinal is being deleted, for which a new pod has to wait."""
    found = (claims.get(name) for name in names(statefulset, ordinal))
    return any(claim is not None and is_deleting(claim) for claim in found)


def plan(
    statefulset: StatefulSet,
    ordinal: int,
    pod: Pod | None,
    claims: Claims,
    *,
    condemned: bool = False,
) -> list[Action]:
    """Creates the claims that a new or waiting pod lacks, and makes owners fit the policy."""
    actions: list[Action] = []
    for template in templates(statefulset):
        name = claim_name(statefulset, template, ordinal)
        held = claims.get(name)
        if held is not None:
            actions += _own(statefulset, held, pod, condemned)
        elif not condemned and (pod is None or phase(pod) == "Pending"):
            actions.append(_create(statefulset, template, ordinal))
    return actions


def _create(statefulset: StatefulSet, template: PersistentVolumeClaim, ordinal: int) -> Create:
    name = claim_name(statefulset, template, ordinal)
    given = template["metadata"]
    labels = (statefulset["spec"].get("selector") or {}).get("matchLabels") or {}
    claim: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": statefulset["metadata"]["namespace"],
            "labels": {**(given.get("labels") or {}), **labels},
            "annotations": dict(given.get("annotations") or {}),
        },
        "spec": copy.deepcopy(template["spec"]),
    }
    if owner := _owner(statefulset, None, condemned=False):
        claim["metadata"]["ownerReferences"] = [owner]
    owner_name = statefulset["metadata"]["name"]
    text = f"Claim {name} Pod {owner_name}-{ordinal} in StatefulSet {owner_name}"
    report = Report(
        statefulset,
        "SuccessfulCreate",
        f"create {text} success",
        "FailedCreate",
        f"create {text} failed error: {{error}}",
    )
    return Create(PERSISTENTVOLUMECLAIMS, claim, report)


def _owner(statefulset: StatefulSet, pod: Pod | None, *, condemned: bool) -> OwnerReference | None:
    policy = statefulset["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if condemned and policy.get("whenScaled") == "Delete":
        return controller_reference(pod) if pod is not None else None
    if policy.get("whenDeleted") == "Delete":
        return controller_reference(statefulset)
    return None


def _own(
    statefulset: StatefulSet,
    claim: PersistentVolumeClaim,
    pod: Pod | None,
    condemned: bool,
) -> list[Action]:
    ours = {statefulset["metadata"]["uid"]}
    if pod is not None:
        ours.add(pod["metadata"]["uid"])
    held = claim["metadata"].get("ownerReferences") or []
    rest = [item for item in held if item["uid"] not in ours]
    stranger = controller_of(claim)
    is_strange = stranger is not None and stranger["uid"] not in ours
    wanted = None if is_strange else _owner(statefulset, pod, condemned=condemned)
    fresh = [*rest, wanted] if wanted else rest
    if [item["uid"] for item in held] == [item["uid"] for item in fresh]:
        return []
    metadata = claim["metadata"]
    patch = {
        "metadata": {
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "ownerReferences": fresh,
        }
    }
    place = (metadata["namespace"], metadata["name"])
    return [Patch(PERSISTENTVOLUMECLAIMS, *place, patch)]
