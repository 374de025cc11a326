"""ObjectMeta: what every write fills in, keeps and validates, whatever the kind
(apimachinery's rest.BeforeCreate/BeforeUpdate and api/validation/objectmeta.go)."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from components.apiserver.kinds.spec import FieldError
from components.machinery.resources import KubeObject

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_PART_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
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


def dns_subdomain(name: str) -> list[str]:
    errors = ["must be no more than 253 characters"] if len(name) > 253 else []
    return errors if _DNS_SUBDOMAIN.fullmatch(name) else [*errors, _SUBDOMAIN_TEXT]


def dns_label(name: str) -> list[str]:
    errors = ["must be no more than 63 characters"] if len(name) > 63 else []
    return errors if _DNS_LABEL.fullmatch(name) else [*errors, _LABEL_TEXT]


def dns_1035_label(name: str) -> list[str]:
    errors = ["must be no more than 63 characters"] if len(name) > 63 else []
    return errors if _DNS_1035.fullmatch(name) else [*errors, _1035_TEXT]


def path_segment(name: str) -> list[str]:
    """RBAC names: whatever can stand in a URL path."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "services": dns_1035_label,
    "namespaces": dns_label,
    "roles.rbac.authorization.k8s.io": path_segment,
    "clusterroles.rbac.authorization.k8s.io": path_segment,
    "rolebindings.rbac.authorization.k8s.io": path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": path_segment,
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
        *validate_labels(metadata.get("labels"), "metadata.labels"),
        *_validate_annotations(metadata.get("annotations") or {}),
        *_validate_finalizers(metadata.get("finalizers") or []),
        *_validate_owners(metadata.get("ownerReferences") or []),
    ]


def _validate_name(metadata: dict[str, Any], storage: str) -> list[FieldError]:
    name = metadata.get("name")
    if not name:
        return [FieldError("Required", "metadata.name", "", "name or generateName is required")]
    rule = _NAME_RULES.get(storage, dns_subdomain)
    return [FieldError("Invalid", "metadata.name", name, text) for text in rule(str(name))]


def validate_labels(labels: dict[str, Any] | None, field: str) -> list[FieldError]:
    errors = []
    for key, value in (labels or {}).items():
        errors += [FieldError("Invalid", field, key, text) for text in qualified_name(key)]
        errors += [FieldError("Invalid", field, value, text) for text in label_value(value)]
    return errors


def qualified_name(name: str) -> list[str]:
    """A label or annotation key: [prefix/]name."""
    prefix, slash, part = name.rpartition("/")
    if not slash:
        part = name
    elif not prefix:
        return ["prefix part must be non-empty"]
    elif "/" in prefix:
        return [
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
            "an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    errors = [f"prefix part {text}" for text in dns_subdomain(prefix)] if slash else []
    if not part:
        return [*errors, "name part must be non-empty"]
    if len(part) > 63:
        errors.append("name part must be no more than 63 characters")
    return errors if _QUALIFIED_NAME.fullmatch(part) else [*errors, _NAME_PART_TEXT]


def label_value(value: str) -> list[str]:
    errors = ["must be no more than 63 characters"] if len(value) > 63 else []
    if value and not _QUALIFIED_NAME.fullmatch(value):
        errors.append(_LABEL_VALUE_TEXT)
    return errors


def _validate_annotations(annotations: dict[str, Any]) -> list[FieldError]:
    errors = [
        FieldError("Invalid", "metadata.annotations", key, text)
        for key in annotations
        for text in qualified_name(key.lower())
    ]
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > _TOTAL_ANNOTATIONS:
        text = f"may not be more than {_TOTAL_ANNOTATIONS} bytes"
        errors.append(FieldError("TooLong", "metadata.annotations", "", text))
    return errors


def _validate_finalizers(finalizers: list[str]) -> list[FieldError]:
    errors = [
        FieldError("Invalid", "metadata.finalizers", name, text) for name in finalizers for text in qualified_name(name)
    ]
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


_STRINGS = ("name", "generateName", "namespace", "uid", "resourceVersion")


def type_error(metadata: Any) -> str:
    """Why metadata cannot be decoded as ObjectMeta, or "". Go's decoder refuses it before any validation."""
    if not isinstance(metadata, dict):
        return f"json: cannot unmarshal {_go_type(metadata)} into Go struct field .metadata of type v1.ObjectMeta"
    for key in _STRINGS:
        value = metadata.get(key)
        if value is not None and not isinstance(value, str):
            have = _go_type(value)
            return f"json: cannot unmarshal {have} into Go struct field ObjectMeta.metadata.{key} of type string"
    for key in ("labels", "annotations"):
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, dict):
            return (
                f"json: cannot unmarshal {_go_type(value)} into Go struct field ObjectMeta.metadata.{key} "
                "of type map[string]string"
            )
        for item in value.values():
            if not isinstance(item, str):
                return (
                    f"json: cannot unmarshal {_go_type(item)} into Go struct field ObjectMeta.metadata.{key} "
                    "of type string"
                )
    return ""


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
