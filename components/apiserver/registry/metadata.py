"""ObjectMeta: what every write fills in, keeps and validates, whatever the kind
(apimachinery's rest.BeforeCreate/BeforeUpdate and api/validation/objectmeta.go)."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, invalid, labels, required
from kubewire.components.apiserver.kinds.names import NameRule
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject

_TOTAL_ANNOTATIONS = 256 * 1024

# apiserver/pkg/storage/names: no vowels, so no words; at most 63 characters in all.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_RANDOM_LENGTH = 5
_BASE_LENGTH = 63 - _RANDOM_LENGTH


def timestamp(now: datetime | None = None) -> str:
    """metav1.Time: RFC 3339, whole seconds, UTC."""
    return (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def random_suffix() -> str:
    return "".join(random.choices(_ALPHABET, k=_RANDOM_LENGTH))


def generate_name(base: str) -> str:
    return base[:_BASE_LENGTH] + random_suffix()


#: metadata.name per storage; all others are DNS subdomains.
_NAME_RULES: dict[str, NameRule] = {
    "services": names.dns1123_label,  # RelaxedServiceNameValidation, on by default since 1.36 (KEP-5311)
    "namespaces": names.dns1123_label,
    "ipaddresses.networking.k8s.io": names.path_segment,  # its own validation says that it must be an address
    "roles.rbac.authorization.k8s.io": names.path_segment,
    "clusterroles.rbac.authorization.k8s.io": names.path_segment,
    "rolebindings.rbac.authorization.k8s.io": names.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": names.path_segment,
}


def prepare_create(metadata: dict[str, Any], namespaced: bool, namespace: str) -> None:
    """Name, namespace, uid and creationTimestamp of a new object; what only the server sets is dropped."""
    for key in ("resourceVersion", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(key, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generate_name(metadata["generateName"])
    if namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamp()
    drop_empty(metadata)


_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
    "generation",
)


def prepare_update(metadata: dict[str, Any], old: dict[str, Any]) -> None:
    """What a client cannot change is what it was."""
    metadata.pop("selfLink", None)
    for key in _KEPT:
        if key in old:
            metadata[key] = old[key]
        else:
            metadata.pop(key, None)
    drop_empty(metadata)


def drop_empty(metadata: dict[str, Any]) -> None:
    """Nulls and empty collections are left out, as Go's omitempty does."""
    for key in [key for key, value in metadata.items() if value is None or value == {} or value == []]:
        del metadata[key]


def set_generation(new: KubeObject, old: KubeObject | None, tracked: bool) -> None:
    """metadata.generation counts the changes of what the user wants: all but metadata and status."""
    if not tracked:
        return
    if old is None:
        new["metadata"]["generation"] = 1
        return
    generation = int(old["metadata"].get("generation", 0))
    new["metadata"]["generation"] = generation + (_wanted(new) != _wanted(old))


def _wanted(obj: KubeObject) -> KubeObject:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status", "apiVersion", "kind")}


def validate(metadata: dict[str, Any], storage: str) -> list[FieldError]:
    """Name, labels, annotations, finalizers and ownerReferences of an object about to be written."""
    return [
        *_validate_name(metadata, storage),
        *labels("metadata.labels", metadata.get("labels")),
        *_validate_annotations(metadata.get("annotations") or {}),
        *_validate_finalizers(metadata.get("finalizers") or []),
        *_validate_owners(metadata.get("ownerReferences") or []),
    ]


def validate_update(metadata: dict[str, Any], old: dict[str, Any]) -> list[FieldError]:
    """What an update may not do to metadata (ValidateNoNewFinalizers)."""
    extra = sorted(set(metadata.get("finalizers") or []) - set(old.get("finalizers") or []))
    if not extra or not old.get("deletionTimestamp"):
        return []
    listed = ", ".join(f'"{name}"' for name in extra)
    text = (
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{" + listed + "}"
    )
    return [FieldError("Forbidden", "metadata.finalizers", "", text)]


def _validate_name(metadata: dict[str, Any], storage: str) -> list[FieldError]:
    rule = _NAME_RULES.get(storage, names.dns1123_subdomain)
    errors = []
    if prefix := metadata.get("generateName"):
        errors += [invalid("metadata.generateName", prefix, text) for text in rule(names.masked_trailing_dash(prefix))]
    name = metadata.get("name")
    if not name:
        return [*errors, required("metadata.name", "name or generateName is required")]
    return errors + by_rule(rule, "metadata.name", name)


def _validate_annotations(annotations: dict[str, Any]) -> list[FieldError]:
    errors = [
        invalid("metadata.annotations", key, text) for key in annotations for text in names.qualified_name(key.lower())
    ]
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > _TOTAL_ANNOTATIONS:
        text = f"may not be more than {_TOTAL_ANNOTATIONS} bytes"
        errors.append(FieldError("TooLong", "metadata.annotations", "", text))
    return errors


def _validate_finalizers(finalizers: list[str]) -> list[FieldError]:
    errors = [error for name in finalizers for error in by_rule(names.qualified_name, "metadata.finalizers", name)]
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = 'finalizer "orphan" and "foregroundDeletion" cannot be both set'
        errors.append(FieldError("Invalid", "metadata.finalizers", finalizers, text))
    return errors


def _validate_owners(owners: list[dict[str, Any]]) -> list[FieldError]:
    errors, controllers = [], []
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        if not owner.get("apiVersion"):
            errors.append(FieldError("Invalid", f"{path}.apiVersion", "", "version must not be empty"))
        errors += [
            FieldError("Invalid", f"{path}.{key}", "", "must not be empty")
            for key in ("kind", "name", "uid")
            if not owner.get(key)
        ]
        if owner.get("controller"):
            controllers.append(owner.get("name", ""))
    if len(controllers) > 1:
        text = (
            "Only one reference can have Controller set to true. Found "
            f'"true" in references for {controllers[0]} and {controllers[1]}'
        )
        errors.append(FieldError("Invalid", "metadata.ownerReferences", owners, text))
    return errors
