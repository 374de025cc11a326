"""What volumes and claims have to do with each other: classes, modes, sizes and nodes.

The volume binder and the scheduler share it, because either of them may choose the volume of a
claim: the scheduler when the class waits for the first consumer
(https://kubernetes.io/docs/concepts/storage/persistent-volumes/,
k8s.io/component-helpers/storage/volume).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.nodeaffinity import term_matches
from kubewire.components.kubeapi.quantity import value
from kubewire.components.kubeapi.selectors import LabelSelector

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Node,
        PersistentVolume,
        PersistentVolumeClaim,
        Pod,
        StorageClass,
        Volume,
    )

#: Set on a claim whose binding is complete.
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
#: Set on the side of a binding that a controller wrote, not a user.
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
#: The provisioner that made a volume.
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
#: The provisioner that is to make a volume for a claim, and its older name, which is also set.
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BETA_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
#: The node for which the scheduler wants a volume made.
SELECTED_NODE = "volume.kubernetes.io/selected-node"
#: The older form of storageClassName.
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
#: The provisioner of classes whose volumes an administrator makes.
NO_PROVISIONER = "kubernetes.io/no-provisioner"
CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"

WAIT_FOR_FIRST_CONSUMER = "WaitForFirstConsumer"


def annotations_of(
    obj: PersistentVolume | PersistentVolumeClaim | StorageClass,
) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def class_of(obj: PersistentVolume | PersistentVolumeClaim) -> str:
    """The name of the storage class; "" for none."""
    if BETA_CLASS in annotations_of(obj):
        return annotations_of(obj)[BETA_CLASS]
    return obj["spec"].get("storageClassName") or ""


def names_class(claim: PersistentVolumeClaim) -> bool:
    """Whether the claim names a class; the empty name asks for a volume of no class."""
    return BETA_CLASS in annotations_of(claim) or claim["spec"].get("storageClassName") is not None


def default_class(classes: Iterable[StorageClass]) -> StorageClass | None:
    """The class of claims that name none: of several default classes the newest, then by name."""
    marked = [
        item
        for item in classes
        if any(annotations_of(item).get(key) == "true" for key in DEFAULT_CLASS)
    ]
    marked.sort(key=lambda item: item["metadata"]["name"])
    # max() keeps the first of equals, and times in RFC 3339 sort like the moments.
    return max(
        marked, key=lambda item: item["metadata"].get("creationTimestamp") or "", default=None
    )


def requested(claim: PersistentVolumeClaim) -> int:
    """The size that the claim asks for, in bytes."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return value(requests.get("storage") or "0")


def capacity(volume: PersistentVolume) -> int:
    return value((volume["spec"].get("capacity") or {}).get("storage") or "0")


def is_bound_to(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether the volume's claimRef names the claim; without a uid it may be bound to it."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return False
    metadata = claim["metadata"]
    if (reference.get("namespace"), reference.get("name")) != (
        metadata["namespace"],
        metadata["name"],
    ):
        return False
    return not reference.get("uid") or reference["uid"] == metadata["uid"]


def admits_node(volume: PersistentVolume, node: Node) -> bool:
    """Whether the volume can be reached from the node; without an affinity from every node."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if not required:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or [])


def mismatch(volume: PersistentVolume, claim: PersistentVolumeClaim) -> str:
    """Why a volume that the claim names cannot be bound to it, or ""
    (checkVolumeSatisfyClaim)."""
    if requested(claim) > capacity(volume):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if _attributes_class(volume) != _attributes_class(claim):
        return "volumeAttributesClassName does not match"
    if not _same_mode(volume, claim):
        return "incompatible volumeMode"
    if not _has_modes(volume, claim):
        return "incompatible accessMode"
    return ""


def _attributes_class(obj: PersistentVolume | PersistentVolumeClaim) -> str:
    return obj["spec"].get("volumeAttributesClassName") or ""


def _same_mode(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    modes = (obj["spec"].get("volumeMode") or "Filesystem" for obj in (volume, claim))
    return len(set(modes)) == 1


def _has_modes(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    offered = volume["spec"].get("accessModes") or ()
    return set(claim["spec"].get("accessModes") or ()) <= set(offered)


def find_volume(
    claim: PersistentVolumeClaim,
    volumes: Iterable[PersistentVolume],
    node: Node | None = None,
    *,
    taken: Collection[str] = (),
    only_reserved: bool = False,
) -> PersistentVolume | None:
    """The volume that fits the claim best, or None (FindMatchingVolume).

    A volume whose claimRef names the claim wins. Of the others that are free and large enough it is
    the one with the fewest access modes beyond those asked for, then the smallest, then the first
    by name. With a node, only volumes that it reaches count, and none of those taken for other
    claims of the pod. only_reserved leaves the choice of any other volume to the scheduler.
    """
    candidates: list[tuple[int, int, str, PersistentVolume]] = []
    selector = claim["spec"].get("selector")
    chosen = LabelSelector.from_object(selector) if selector else None
    for volume in volumes:
        metadata = volume["metadata"]
        if metadata["name"] in taken or metadata.get("deletionTimestamp"):
            continue
        if not _same_mode(volume, claim) or _attributes_class(volume) != _attributes_class(claim):
            continue
        if node is not None and not admits_node(volume, node):
            continue
        if is_bound_to(volume, claim):
            if capacity(volume) >= requested(claim) and _has_modes(volume, claim):
                return volume
            continue
        if only_reserved or volume["spec"].get("claimRef"):
            continue
        if (volume.get("status") or {}).get("phase") != "Available":
            continue
        if chosen is not None and not chosen.matches(metadata.get("labels") or {}):
            continue
        if class_of(volume) != class_of(claim) or not _has_modes(volume, claim):
            continue
        if capacity(volume) >= requested(claim):
            modes = len(volume["spec"].get("accessModes") or ())
            candidates.append((modes, capacity(volume), metadata["name"], volume))
    return min(candidates, key=lambda item: item[:3])[3] if candidates else None


def claim_name(pod: Pod, volume: Volume) -> str | None:
    """The claim of a pod's volume, or None; a generic ephemeral volume has one of its own."""
    if source := volume.get("persistentVolumeClaim"):
        return source["claimName"]
    if "ephemeral" in volume:
        return f"{pod['metadata']['name']}-{volume['name']}"
    return None


def claim_names(pod: Pod) -> list[str]:
    """The claims of all volumes of a pod."""
    names = (claim_name(pod, volume) for volume in pod["spec"].get("volumes") or [])
    return [name for name in names if name is not None]
