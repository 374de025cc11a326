"""Builds pods from templates, and computes the hash that names a template's revision."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.meta import controller_reference

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ObjectMeta,
        PartialObjectMetadata,
        Pod,
        PodTemplateSpec,
    )

POD_TEMPLATE_HASH = "pod-template-hash"
CONTROLLER_REVISION_HASH = "controller-revision-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def fnv1a_32(data: bytes) -> int:
    """The 32-bit FNV-1a hash (http://www.isthe.com/chongo/tech/comp/fnv/)."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def safe_encode(text: str) -> str:
    """rand.SafeEncodeString: an alphabet without vowels and 0, 1, 3, so that no hash spells a
    word.
    """
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)


def compute_hash(value: Any, collision_count: int | None = None) -> str:
    """Up to ten characters that identify a template, computed from its canonical JSON.

    Keys are sorted, and absent, null and empty values are equal. Upstream hashes Go's dump of the
    struct, so the form is the same and the value is not.
    """
    text = json.dumps(_prune(value), sort_keys=True, separators=(",", ":"))
    suffix = str(collision_count) if collision_count is not None else ""
    return safe_encode(str(fnv1a_32((text + suffix).encode())))


def _prune(value: Any) -> Any:
    if isinstance(value, dict):
        pruned = {key: _prune(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item not in (None, {}, [], "")}
    if isinstance(value, list):
        return [_prune(item) for item in value]
    return value


def equal_ignoring_hash(template: PodTemplateSpec, other: PodTemplateSpec) -> bool:
    """Whether two pod templates are equal except for pod-template-hash (EqualIgnoreHash)."""
    return bool(_without_hash(template) == _without_hash(other))


def _without_hash(template: PodTemplateSpec) -> Any:
    metadata: ObjectMeta = {**(template.get("metadata") or {})}
    labels = metadata.get("labels") or {}
    metadata["labels"] = {key: value for key, value in labels.items() if key != POD_TEMPLATE_HASH}
    return _prune({**template, "metadata": metadata})


def pod_from_template(owner: PartialObjectMetadata, template: PodTemplateSpec) -> Pod:
    """GetPodFromTemplate: a pod that the API server names by generateName and that owner
    controls.
    """
    metadata = template.get("metadata") or {}
    name = owner["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": owner["metadata"].get("namespace", ""),
            "generateName": f"{name}-",
            "labels": dict(metadata.get("labels") or {}),
            "annotations": dict(metadata.get("annotations") or {}),
            "finalizers": list(metadata.get("finalizers") or []),
            "ownerReferences": [controller_reference(owner)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }
