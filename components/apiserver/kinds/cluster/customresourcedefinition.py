"""CustomResourceDefinition (apiextensions.k8s.io/v1): defaults and validation.

It follows pkg/apis/apiextensions. crd/customresources.py serves the defined resources and sets the
conditions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kubewire.components.apiserver import jsonpath
from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.cluster import schemas
from kubewire.components.apiserver.kinds.cluster.webhooks import client_config
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    forbidden,
    immutable,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.resources import CUSTOMRESOURCEDEFINITIONS, KubeObject


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    name = spec.setdefault("names", {})
    if not name.get("singular"):
        name["singular"] = name.get("kind", "").lower()
    if not name.get("listKind") and name.get("kind"):
        name["listKind"] = f"{name['kind']}List"
    spec.setdefault("conversion", {"strategy": "None"})
    webhook = cells.at(spec, "conversion", "webhook", "clientConfig", "service")
    if webhook is not None:
        webhook.setdefault("port", 443)


#: The finalizer of a definition whose objects are being deleted.
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def prepare_create(obj: KubeObject) -> None:
    versions = cells.at(obj, "spec", "versions") or ()
    stored = [version.get("name", "") for version in versions if version.get("storage")]
    obj["status"] = {
        "conditions": [],
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored,
    }


def prepare_delete(obj: KubeObject) -> None:
    """Holds the definition until its objects are gone; until it is deleted nothing holds it."""
    finalizers = obj["metadata"].get("finalizers") or []
    if CLEANUP not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, CLEANUP]
    state = obj.setdefault("status", {})
    others = [item for item in state.get("conditions") or [] if item.get("type") != "Terminating"]
    text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    terminating = {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reason": "InstanceDeletionPending",
        "message": text,
    }
    state["conditions"] = [*others, terminating]


def prepare_update(new: KubeObject, old: KubeObject) -> None:
    """Adds the new storage version to the versions that may be in the store."""
    keep_status(new, old)
    status = new.setdefault("status", {})
    known = list(status.get("storedVersions") or ())
    for version in cells.at(new, "spec", "versions") or ():
        name = version.get("name", "")
        if version.get("storage") and name not in known:
            known.append(name)
    new["status"] = {**status, "storedVersions": known}


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    group = spec.get("group") or ""
    name = spec.get("names") or {}
    errors = _name(obj, group, name) + _group(group) + _names(name)
    errors += _versions(spec.get("versions") or [])
    errors += _conversion(spec.get("conversion") or {}, "spec.conversion")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        if not spec.get("scope"):
            errors.append(required("spec.scope"))
        else:
            errors.append(not_supported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
    return errors


def _conversion(conversion: Mapping[str, Any], path: str) -> list[FieldError]:
    strategy = conversion.get("strategy")
    webhook = conversion.get("webhook")
    if strategy not in ("None", "Webhook"):
        if not strategy:
            return [required(f"{path}.strategy")]
        return [not_supported(f"{path}.strategy", strategy, ("None", "Webhook"))]
    if strategy == "None":
        text = "should not be set when strategy is not set to Webhook"
        return [] if webhook is None else [forbidden(f"{path}.webhook", text)]
    if not webhook or webhook.get("clientConfig") is None:
        text = "required when strategy is set to Webhook"
        return [required(f"{path}.webhook.clientConfig", text)]
    listed = webhook.get("conversionReviewVersions") or []
    at = f"{path}.webhook.conversionReviewVersions"
    errors = client_config(webhook["clientConfig"], f"{path}.webhook.clientConfig")
    if not listed:
        errors.append(required(at))
    elif not set(listed) & {"v1", "v1beta1"}:
        errors.append(invalid(at, listed, "must include at least one of v1, v1beta1"))
    return errors


def _name(obj: KubeObject, group: str, name: Mapping[str, Any]) -> list[FieldError]:
    wanted = f"{name.get('plural', '')}.{group}"
    if obj["metadata"].get("name") == wanted:
        return []
    given = obj["metadata"].get("name", "")
    return [invalid("metadata.name", given, 'must be spec.names.plural+"."+spec.group')]


def _group(group: str) -> list[FieldError]:
    if not group:
        return [required("spec.group")]
    errors = by_rule(names.dns1123_subdomain, "spec.group", group)
    if not errors and "." not in group:
        errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    return errors


def _names(name: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    for key in ("plural", "singular", "kind", "listKind"):
        value = name.get(key) or ""
        if not value:
            errors.append(required(f"spec.names.{key}"))
        else:
            texts = names.dns1035_label(value.lower())
            errors += [invalid(f"spec.names.{key}", value, text) for text in texts]
    for key in ("shortNames", "categories"):
        for index, value in enumerate(name.get(key) or ()):
            errors += by_rule(names.dns1035_label, f"spec.names.{key}[{index}]", value)
    if name.get("kind") and name.get("kind") == name.get("listKind"):
        text = "kind and listKind may not be the same"
        errors.append(invalid("spec.names.listKind", name["listKind"], text))
    return errors


def _versions(versions: list[dict[str, Any]]) -> list[FieldError]:
    # What knows expressions is needed only where definitions are written.
    from kubewire.components.apiserver.kinds.cluster import schemarules

    errors = []
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        errors += by_rule(names.dns1035_label, f"{path}.name", version.get("name", ""))
        schema = cells.at(version, "schema", "openAPIV3Schema")
        if schema is None:
            errors.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        elif schema.get("type") != "object":
            at = f"{path}.schema.openAPIV3Schema.type"
            if not schema.get("type"):
                errors.append(required(at, "must not be empty at the root"))
            else:
                errors.append(invalid(at, schema["type"], "must be object at the root"))
        at = f"{path}.schema.openAPIV3Schema"
        errors += schemas.errors(schema or {}, at) or schemarules.errors(schema or {}, at)
        errors += _subresources(version, path) + _paths(version, path)
    if any(count > 1 for count in Counter(version.get("name") for version in versions).values()):
        text = "must contain unique version names"
        errors.append(invalid("spec.versions", [version.get("name") for version in versions], text))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        text = "must have exactly one version marked as storage version"
        errors.append(invalid("spec.versions", versions, text))
    return errors


def _subresources(version: Mapping[str, Any], path: str) -> list[FieldError]:
    scale = cells.at(version, "subresources", "scale")
    if scale is None:
        return []
    at = f"{path}.subresources.scale"
    errors = []
    for key, below in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(key) or ""
        if not value:
            errors.append(required(f"{at}.{key}"))
        elif not value.startswith(below):
            text = f"should be a json path under {below.rstrip('.')}"
            errors.append(invalid(f"{at}.{key}", value, text))
    return errors


def _paths(version: Mapping[str, Any], path: str) -> list[FieldError]:
    """Validates additionalPrinterColumns and selectableFields."""
    errors = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        at = f"{path}.additionalPrinterColumns[{index}]"
        errors += [required(f"{at}.{key}") for key in ("name", "type") if not column.get(key)]
        errors += _json_path(column, f"{at}.jsonPath")
    for index, field in enumerate(version.get("selectableFields") or ()):
        errors += _json_path(field, f"{path}.selectableFields[{index}].jsonPath")
    return errors


def _json_path(owner: Mapping[str, Any], at: str) -> list[FieldError]:
    if not owner.get("jsonPath"):
        return [required(at)]
    try:
        jsonpath.parse(owner["jsonPath"])
    except ValueError as error:
        return [invalid(at, owner["jsonPath"], str(error))]
    return []


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_create(new)
    if not _established(old):
        return errors
    for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
        values = (cells.at(new, "spec", *path), cells.at(old, "spec", *path))
        errors += immutable(".".join(("spec", *path)), *values)
    return errors


def _established(obj: KubeObject) -> bool:
    conditions = cells.at(obj, "status", "conditions") or ()
    established = (item for item in conditions if item.get("type") == "Established")
    return any(item.get("status") == "True" for item in established)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), obj["metadata"].get("creationTimestamp", "")]


KIND = KindSpec(
    resource=CUSTOMRESOURCEDEFINITIONS,
    singular="customresourcedefinition",
    generation=True,
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    prepare_status_update=keep_all_but_status,
    prepare_delete=prepare_delete,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(cells.NAME, Column("Created At", "date", "", "The time of its creation.")),
    row=row,
    unconditional_update=False,
)
