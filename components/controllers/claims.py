"""Adoption and release of objects by label selector (upstream's ControllerRefManager).

See
https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#non-template-pod-acquisitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic

from kubewire.components.controllers.actions import Patch
from kubewire.components.controllers.meta import (
    AnyObject,
    controller_of,
    controller_reference,
    is_deleting,
    labels_of,
)
from kubewire.components.kubeapi.resources import Resource
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import OwnerReference, PartialObjectMetadata


@dataclass(frozen=True)
class Claim(Generic[AnyObject]):
    """owned are the objects that belong to the owner; changes are the adoptions and releases to
    write.
    """

    owned: tuple[AnyObject, ...]
    changes: tuple[Patch, ...]


def claim(
    owner: PartialObjectMetadata,
    selector: LabelSelector,
    resource: Resource[AnyObject],
    candidates: Iterable[AnyObject],
    *,
    admits: Callable[[AnyObject], bool] = lambda _: True,
    finalizer: str = "",
) -> Claim[AnyObject]:
    """Keeps what the owner controls and selects, releases what it no longer selects, adopts
    orphans.

    An owner that is being deleted adopts and releases nothing. admits is a further condition: a
    StatefulSet checks the pod's name with it. finalizer is the owner's, which a released object
    loses.
    """
    owned: list[AnyObject] = []
    changes: list[Patch] = []
    uid = owner["metadata"]["uid"]
    for obj in candidates:
        reference = controller_of(obj)
        matches = selector.matches(labels_of(obj)) and admits(obj)
        if reference is not None and reference["uid"] != uid:
            continue
        if reference is not None and matches:
            owned.append(obj)
        elif reference is not None and not is_deleting(owner):
            changes.append(_release(obj, resource, uid, finalizer))
        elif reference is None and matches and not is_deleting(owner) and not is_deleting(obj):
            changes.append(_adopt(obj, resource, owner))
    return Claim(tuple(owned), tuple(changes))


def _adopt(
    obj: PartialObjectMetadata, resource: Resource[Any], owner: PartialObjectMetadata
) -> Patch:
    references = [*(obj["metadata"].get("ownerReferences") or []), controller_reference(owner)]
    return _references(obj, resource, references)


def _release(
    obj: PartialObjectMetadata, resource: Resource[Any], uid: str, finalizer: str
) -> Patch:
    references = [item for item in obj["metadata"]["ownerReferences"] if item["uid"] != uid]
    finalizers = obj["metadata"].get("finalizers") or []
    if finalizer not in finalizers:
        return _references(obj, resource, references)
    kept = [item for item in finalizers if item != finalizer]
    return _references(obj, resource, references, {"finalizers": kept or None})


def _references(
    obj: PartialObjectMetadata,
    resource: Resource[Any],
    references: list[OwnerReference],
    change: Mapping[str, Any] = MappingProxyType({}),
) -> Patch:
    metadata = obj["metadata"]
    # resourceVersion lets only one of two owners adopt the same orphan; uid protects a successor
    # of the same name.
    patch = {
        "metadata": {
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "ownerReferences": references,
            **change,
        }
    }
    return Patch(resource, metadata.get("namespace", ""), metadata["name"], patch)
