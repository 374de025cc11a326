"""Volumes in a scheduling decision (upstream's VolumeBinding).

Of a claim that is bound, the volume says from which nodes it can be reached. A claim whose class
waits for the first consumer gets its volume with the node: an existing one that the node reaches,
or one that its provisioner makes there. The decision reserves these volumes; binding.py writes it.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubewire.components.kubeapi import volumes as matching
from kubewire.components.scheduler.cluster import NodeState
from kubewire.components.scheduler.filters import Filter, Rejection
from kubewire.components.scheduler.podspec import PodInfo

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Node,
        PersistentVolume,
        PersistentVolumeClaim,
        StorageClass,
        TopologySelectorTerm,
    )

_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
_NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"


@dataclass(frozen=True)
class Storage:
    """What the API server has: claims by namespace and name, volumes and classes by name.

    reserved are the volumes that other pods were given, and whose claims do not show it yet.
    """

    claims: Mapping[tuple[str, str], PersistentVolumeClaim]
    volumes: Mapping[str, PersistentVolume]
    classes: Mapping[str, StorageClass]
    reserved: Collection[str] = ()


@dataclass(frozen=True)
class Choice:
    """The volumes of a pod on one node: claims to bind, and those to be provisioned there."""

    bind: Mapping[str, PersistentVolume] = field(default_factory=dict)
    provision: tuple[str, ...] = ()


@dataclass(frozen=True)
class PodClaims:
    """The claims of a pod: bound ones, and those whose volume comes with the node."""

    bound: tuple[PersistentVolumeClaim, ...] = ()
    delayed: tuple[PersistentVolumeClaim, ...] = ()


class ClaimProblem(Exception):
    """No node can run the pod as long as its claims are as they are."""


def claims_of(pod: PodInfo, storage: Storage) -> PodClaims:
    """Raises ClaimProblem, with upstream's text."""
    bound: list[PersistentVolumeClaim] = []
    delayed: list[PersistentVolumeClaim] = []
    for name in matching.claim_names(pod.obj):
        claim = storage.claims.get((pod.namespace, name))
        if claim is None:
            raise ClaimProblem(f'persistentvolumeclaim "{name}" not found')
        if claim["metadata"].get("deletionTimestamp"):
            raise ClaimProblem(f'persistentvolumeclaim "{name}" is being deleted')
        if (claim.get("status") or {}).get("phase") == "Lost":
            volume = claim["spec"].get("volumeName", "")
            text = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume'
            raise ClaimProblem(f'{text} "{volume}"')
        if is_bound(claim):
            bound.append(claim)
        elif _is_delayed(claim, storage):
            delayed.append(claim)
        else:
            raise ClaimProblem(_IMMEDIATE)
    return PodClaims(tuple(bound), tuple(delayed))


def is_bound(claim: PersistentVolumeClaim) -> bool:
    complete = matching.BIND_COMPLETED in matching.annotations_of(claim)
    return bool(claim["spec"].get("volumeName")) and complete


def _is_delayed(claim: PersistentVolumeClaim, storage: Storage) -> bool:
    if claim["spec"].get("volumeName"):
        return False
    storage_class = storage.classes.get(matching.class_of(claim))
    mode = (storage_class or {}).get("volumeBindingMode")
    return mode == matching.WAIT_FOR_FIRST_CONSUMER


def volume_filter(claims: PodClaims, storage: Storage) -> Filter:
    def accept(_: PodInfo, node: NodeState) -> Rejection | None:
        volumes = [storage.volumes.get(claim["spec"]["volumeName"]) for claim in claims.bound]
        if any(volume is None for volume in volumes):
            return Rejection((_GONE,))
        if not all(volume and matching.admits_node(volume, node.obj) for volume in volumes):
            return Rejection((_CONFLICT,))
        return None if choose(claims, storage, node.obj) is not None else Rejection((_NO_VOLUME,))

    return accept


def choose(claims: PodClaims, storage: Storage, node: Node) -> Choice | None:
    """The volumes of the delayed claims on the node; None if one of them has none there."""
    bind: dict[str, PersistentVolume] = {}
    provision: list[str] = []
    taken = set(storage.reserved)
    for claim in sorted(claims.delayed, key=matching.requested):
        name = claim["metadata"]["name"]
        selected = matching.annotations_of(claim).get(matching.SELECTED_NODE)
        if selected and selected != node["metadata"]["name"]:
            return None
        volume = matching.find_volume(claim, storage.volumes.values(), node, taken=taken)
        if volume is not None:
            bind[name] = volume
            taken.add(volume["metadata"]["name"])
        elif _can_provision(claim, storage, node):
            provision.append(name)
        else:
            return None
    return Choice(bind, tuple(provision))


def _can_provision(claim: PersistentVolumeClaim, storage: Storage, node: Node) -> bool:
    storage_class = storage.classes.get(matching.class_of(claim))
    if storage_class is None or storage_class["provisioner"] == matching.NO_PROVISIONER:
        return False
    topologies = storage_class.get("allowedTopologies") or []
    return not topologies or any(_allows(term, node) for term in topologies)


def _allows(term: TopologySelectorTerm, node: Node) -> bool:
    labels = node["metadata"].get("labels") or {}
    expressions = term.get("matchLabelExpressions") or []
    return all(labels.get(item["key"]) in item["values"] for item in expressions)
