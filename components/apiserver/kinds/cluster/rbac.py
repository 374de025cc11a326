"""Role, ClusterRole and their bindings (rbac.authorization.k8s.io/v1).

Defaults and validation follow pkg/apis/rbac. What the objects allow is decided in access/.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    forbidden,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import KubeObject, Resource

GROUP = "rbac.authorization.k8s.io"
ROLES: Resource[KubeObject] = Resource(GROUP, "v1", "roles", "Role")
CLUSTERROLES: Resource[KubeObject] = Resource(
    GROUP, "v1", "clusterroles", "ClusterRole", namespaced=False
)
ROLEBINDINGS: Resource[KubeObject] = Resource(GROUP, "v1", "rolebindings", "RoleBinding")
CLUSTERROLEBINDINGS: Resource[KubeObject] = Resource(
    GROUP,
    "v1",
    "clusterrolebindings",
    "ClusterRoleBinding",
    namespaced=False,
)

_GROUPS = {"ServiceAccount": "", "User": GROUP, "Group": GROUP}


def _validate_role(namespaced: bool, obj: KubeObject) -> list[FieldError]:
    errors = []
    for index, rule in enumerate(obj.get("rules") or ()):
        errors += _rule(rule, namespaced, f"rules[{index}]")
    return errors


def _rule(rule: Mapping[str, Any], namespaced: bool, path: str) -> list[FieldError]:
    errors = []
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    if rule.get("nonResourceURLs"):
        urls = rule["nonResourceURLs"]
        if namespaced:
            text = "namespaced rules cannot apply to non-resource URLs"
            errors.append(invalid(f"{path}.nonResourceURLs", urls, text))
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            text = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(invalid(f"{path}.nonResourceURLs", urls, text))
        return errors
    for key, noun in (("apiGroups", "api group"), ("resources", "resource")):
        if not rule.get(key):
            errors.append(
                required(f"{path}.{key}", f"resource rules must supply at least one {noun}"),
            )
    return errors


def validate_role(obj: KubeObject) -> list[FieldError]:
    return _validate_role(True, obj)


def validate_cluster_role(obj: KubeObject) -> list[FieldError]:
    return _validate_role(False, obj)


def validate_role_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_role(new)


def validate_cluster_role_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_cluster_role(new)


def default_binding(obj: KubeObject) -> None:
    reference = obj.setdefault("roleRef", {})
    if not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup") and _GROUPS.get(subject.get("kind", "")):
            subject["apiGroup"] = GROUP


def _validate_binding(obj: KubeObject) -> list[FieldError]:
    namespaced = obj.get("kind") == "RoleBinding"
    reference = obj.get("roleRef") or {}
    errors = []
    if reference.get("apiGroup") != GROUP:
        errors.append(not_supported("roleRef.apiGroup", reference.get("apiGroup", ""), (GROUP,)))
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if reference.get("kind") not in kinds:
        errors.append(not_supported("roleRef.kind", reference.get("kind", ""), kinds))
    if not reference.get("name"):
        errors.append(required("roleRef.name"))
    else:
        errors += by_rule(names.path_segment, "roleRef.name", reference["name"])
    for index, subject in enumerate(obj.get("subjects") or ()):
        errors += _subject(subject, namespaced, f"subjects[{index}]")
    return errors


def _subject(subject: Mapping[str, Any], namespaced: bool, path: str) -> list[FieldError]:
    kind = subject.get("kind", "")
    group = subject.get("apiGroup", "")
    errors = [] if subject.get("name") else [required(f"{path}.name")]
    if kind not in _GROUPS:
        return [*errors, not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group"))]
    if group != _GROUPS[kind]:
        errors.append(not_supported(f"{path}.apiGroup", group, (_GROUPS[kind],)))
    if kind == "ServiceAccount":
        if subject.get("name"):
            errors += by_rule(names.dns1123_subdomain, f"{path}.name", subject["name"])
        if not namespaced and not subject.get("namespace"):
            errors.append(required(f"{path}.namespace"))
    elif subject.get("namespace"):
        errors.append(forbidden(f"{path}.namespace", "may not be set"))
    return errors


def validate_binding_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = _validate_binding(new)
    if new.get("roleRef") != old.get("roleRef"):
        errors.append(invalid("roleRef", new.get("roleRef"), "cannot change roleRef"))
    return errors


def role_row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), obj["metadata"].get("creationTimestamp", "")]


ROLE_COLUMNS = (cells.NAME, Column("Created At", "date", "", "The time of its creation."))
BINDING_COLUMNS = (
    cells.NAME,
    Column("Role", "string", "", "The role that the binding grants."),
    cells.AGE,
    Column("Users", "string", "", "Users in the binding", 1),
    Column("Groups", "string", "", "Groups in the binding", 1),
    Column("ServiceAccounts", "string", "", "ServiceAccounts in the binding", 1),
)


def binding_row(obj: KubeObject, now: datetime) -> list[Any]:
    reference = obj.get("roleRef") or {}
    subjects = obj.get("subjects") or []
    accounts = [
        f"{subject.get('namespace', '')}/{subject.get('name', '')}"
        for subject in subjects
        if subject.get("kind") == "ServiceAccount"
    ]
    users = [item.get("name", "") for item in subjects if item.get("kind") == "User"]
    groups = [item.get("name", "") for item in subjects if item.get("kind") == "Group"]
    return [
        cells.name(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        cells.age(obj, now),
        ", ".join(users),
        ", ".join(groups),
        ", ".join(accounts),
    ]


ROLE_KIND = KindSpec(
    resource=ROLES,
    singular="role",
    validate_create=validate_role,
    validate_update=validate_role_update,
    columns=ROLE_COLUMNS,
    row=role_row,
)
CLUSTERROLE_KIND = KindSpec(
    resource=CLUSTERROLES,
    singular="clusterrole",
    validate_create=validate_cluster_role,
    validate_update=validate_cluster_role_update,
    columns=ROLE_COLUMNS,
    row=role_row,
)
ROLEBINDING_KIND = KindSpec(
    resource=ROLEBINDINGS,
    singular="rolebinding",
    default=default_binding,
    validate_create=_validate_binding,
    validate_update=validate_binding_update,
    columns=BINDING_COLUMNS,
    row=binding_row,
)
CLUSTERROLEBINDING_KIND = KindSpec(
    resource=CLUSTERROLEBINDINGS,
    singular="clusterrolebinding",
    default=default_binding,
    validate_create=_validate_binding,
    validate_update=validate_binding_update,
    columns=BINDING_COLUMNS,
    row=binding_row,
)
