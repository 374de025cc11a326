"""ObjectMeta: what every write sets, keeps and validates, for all kinds (apimachinery's
rest.BeforeCreate, rest.BeforeUpdate and api/validation/objectmeta.go).
"""

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
_SET_BY_SERVER = (
    "resourceVersion",
    "uid",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generation",
)

# As in apiserver/pkg/storage/names: no vowels, so that no suffix spells a word, and at most 63
# characters in all.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_RANDOM_LENGTH = 5
_BASE_LENGTH = 63 - _RANDOM_LENGTH


def timestamp(now: datetime | None = None) -> str:
    """Formats a metav1.Time: RFC 3339 in UTC with whole seconds."""
    return (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def random_suffix() -> str:
    return "".join(random.choices(_ALPHABET, k=_RANDOM_LENGTH))


def generate_name(base: str) -> str:
    return base[:_BASE_LENGTH] + random_suffix()


#: The rule for metadata.name of these resources; names of all others are DNS subdomains.
_NAME_RULES: dict[str, NameRule] = {
    # RelaxedServiceNameValidation is on by default since 1.36 (KEP-5311).
    "services": names.dns1123_label,
    "namespaces": names.dns1123_label,
    # The kind's own validation checks that this is an address.
    "apiservices.apiregistration.k8s.io": names.path_segment,
    "ipaddresses.networking.k8s.io": names.path_segment,
    "roles.rbac.authorization.k8s.io": names.path_segment,
    "clusterroles.rbac.authorization.k8s.io": names.path_segment,
    "rolebindings.rbac.authorization.k8s.io": names.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": names.path_segment,
}


def prepare_create(metadata: dict[str, Any], namespaced: bool, namespace: str) -> None:
    """Sets name, namespace, uid and creationTimestamp, and drops what only the server sets."""
    for key in _SET_BY_SERVER:
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
    """Restores the fields that a client cannot change."""
    metadata.pop("selfLink", None)
    for key in _KEPT:
        if key in old:
            metadata[key] = old[key]
        else:
            metadata.pop(key, None)
    drop_empty(metadata)


def drop_empty(metadata: dict[str, Any]) -> None:
    """Drops nulls and empty collections, as Go's omitempty does."""
    empty = [key for key, value in metadata.items() if value is None or value == {} or value == []]
    for key in empty:
        del metadata[key]


def set_generation(new: KubeObject, old: KubeObject | None, tracked: bool) -> None:
    """Counts the changes of the desired state, which is everything but metadata and status."""
    if not tracked:
        return
    if old is None:
        new["metadata"]["generation"] = 1
        return
    generation = int(old["metadata"].get("generation", 0))
    new["metadata"]["generation"] = generation + (_wanted(new) != _wanted(old))


def _wanted(obj: KubeObject) -> KubeObject:
    other = ("metadata", "status", "apiVersion", "kind")
    return {key: value for key, value in obj.items() if key not in other}


def validate(metadata: dict[str, Any], storage: str) -> list[FieldError]:
    """Validates name, labels, annotations, finalizers and ownerReferences."""
    return [
        *_validate_name(metadata, storage),
        *labels("metadata.labels", metadata.get("labels")),
        *_validate_annotations(metadata.get("annotations") or {}),
        *_validate_finalizers(metadata.get("finalizers") or []),
        *_validate_owners(metadata.get("ownerReferences") or []),
    ]


def validate_update(metadata: dict[str, Any], old: dict[str, Any]) -> list[FieldError]:
    """Forbids new finalizers on an object that is being deleted (ValidateNoNewFinalizers)."""
    extra = sorted(set(metadata.get("finalizers") or []) - set(old.get("finalizers") or []))
    if not extra or not old.get("deletionTimestamp"):
        return []
    listed = ", ".join(f'"{name}"' for name in extra)
    text = "no new finalizers can be added if the object is being deleted"
    text += ", found new finalizers []string{" + listed + "}"
    return [FieldError("Forbidden", "metadata.finalizers", "", text)]


def _validate_name(metadata: dict[str, Any], storage: str) -> list[FieldError]:
    rule = _NAME_RULES.get(storage, names.dns1123_subdomain)
    errors = []
    if prefix := metadata.get("generateName"):
        texts = rule(names.masked_trailing_dash(prefix))
        errors += [invalid("metadata.generateName", prefix, text) for text in texts]
    name = metadata.get("name")
    if not name:
        return [*errors, required("metadata.name", "name or generateName is required")]
    return errors + by_rule(rule, "metadata.name", name)


def _validate_annotations(annotations: dict[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in annotations:
        texts = names.qualified_name(key.lower())
        errors += [invalid("metadata.annotations", key, text) for text in texts]
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > _TOTAL_ANNOTATIONS:
        text = f"may not be more than {_TOTAL_ANNOTATIONS} bytes"
        errors.append(FieldError("TooLong", "metadata.annotations", "", text))
    return errors


def _validate_finalizers(finalizers: list[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in finalizers:
        errors += by_rule(names.qualified_name, "metadata.finalizers", name)
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = 'finalizer "orphan" and "foregroundDeletion" cannot be both set'
        errors.append(FieldError("Invalid", "metadata.finalizers", finalizers, text))
    return errors


def _validate_owners(owners: list[dict[str, Any]]) -> list[FieldError]:
    errors = []
    controllers = []
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        if not owner.get("apiVersion"):
            errors.append(
                FieldError("Invalid", f"{path}.apiVersion", "", "version must not be empty"),
            )
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
