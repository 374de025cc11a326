"""Creates the roles and bindings that every cluster has, and repairs them at each start
(upstream's post-start hook rbac/bootstrap-roles).

There are more than a hundred of them, and a server must not serve before they exist. So they are
written without the steps of a request; a test checks that a request would have stored the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.components.apiserver.access import controllerroles, policy
from kubewire.components.apiserver.access.policy import BindingSpec, RoleSpec
from kubewire.components.apiserver.kinds import rules
from kubewire.components.apiserver.registry.metadata import timestamp
from kubewire.components.apiserver.store import Key, Store
from kubewire.components.kubeapi.resources import KubeObject

_GROUP = "rbac.authorization.k8s.io"
_API_VERSION = f"{_GROUP}/v1"
#: An object with this annotation set to "false" is left as it is.
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_CONTROLLERS = "extension-apiserver-authentication-reader"


def reconcile(store: Store) -> None:
    """Creates what is missing, and adds missing rules and subjects to what is there."""
    for obj in objects():
        plural = f"{obj['kind'].lower()}s"
        metadata = obj["metadata"]
        key = Key(f"{plural}.{_GROUP}", metadata.get("namespace", ""), metadata["name"])
        stored = store.get(key)
        if stored is None:
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
            # Most are read at no time again, so only their bytes are kept.
            store.create(key, obj).forget()
        elif (changed := _repaired(stored.copy(), obj)) is not None:
            store.update(key, changed, stored.revision)


def objects() -> Iterator[KubeObject]:
    """The objects without what the server assigns."""
    roles = policy.cluster_roles() | {
        controllerroles.PREFIX + name: role
        for name, role in controllerroles.controller_roles().items()
    }
    for name, role in roles.items():
        yield _cluster_role(name, role)
    for name, binding in policy.cluster_role_bindings().items():
        yield _binding("ClusterRoleBinding", name, "", "ClusterRole", _subjects(binding))
    for name in controllerroles.controller_roles():
        role_name = controllerroles.PREFIX + name
        yield _binding("ClusterRoleBinding", role_name, "", "ClusterRole", [_account(name)])
    yield from _namespaced()


def _namespaced() -> Iterator[KubeObject]:
    """The roles with which components read their configuration and hold their leases
    (namespace_policy.go)."""
    for namespace, name, granted, subjects in _NAMESPACED:
        yield _object("Role", name, namespace, {"rules": [rule.as_object() for rule in granted]})
        if subjects:
            yield _binding("RoleBinding", name, namespace, "Role", subjects)
    reader = "extension-apiserver-authentication-reader"
    users = [_user("system:kube-controller-manager"), _user("system:kube-scheduler")]
    yield _binding(
        "RoleBinding", f"system::{reader}", "kube-system", "Role", users, role_name=reader
    )


def _user(name: str) -> dict[str, str]:
    return {"kind": "User", "apiGroup": _GROUP, "name": name}


def _account(name: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}


def _leader(component: str, verbs: str = "get update") -> tuple[rules.Rule, ...]:
    return (
        policy.rule("watch", policy.CORE, "configmaps"),
        policy.rule(verbs, policy.CORE, "configmaps", component),
    )


_NAMESPACED: tuple[tuple[str, str, tuple[rules.Rule, ...], list[dict[str, str]]], ...] = (
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        (
            policy.rule(
                policy.READ, policy.CORE, "configmaps", "extension-apiserver-authentication"
            ),
        ),
        [],
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        (policy.rule(policy.READ, policy.CORE, "secrets"),),
        [_account("bootstrap-signer")],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        (policy.rule("create get list watch", policy.CORE, "configmaps"),),
        [_account("cloud-provider")],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        (policy.rule("delete get list watch", policy.CORE, "secrets"), policy.events()),
        [_account("token-cleaner")],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        _leader("kube-controller-manager"),
        [_user("system:kube-controller-manager"), _account("kube-controller-manager")],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        _leader("kube-scheduler"),
        [_user("system:kube-scheduler"), _account("kube-scheduler")],
    ),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        (
            policy.rule(policy.READ, policy.CORE, "configmaps"),
            policy.rule("update", policy.CORE, "configmaps", "cluster-info"),
            policy.events(),
        ),
        [_account("bootstrap-signer")],
    ),
)


def _cluster_role(name: str, role: RoleSpec) -> KubeObject:
    body: dict[str, Any] = {"rules": [rule.as_object() for rule in role.rules] or None}
    if role.aggregates:
        selector = {"matchLabels": {role.aggregates: "true"}}
        body["aggregationRule"] = {"clusterRoleSelectors": [selector]}
    return _object("ClusterRole", name, "", body, role.labels)


def _binding(
    kind: str,
    name: str,
    namespace: str,
    role_kind: str,
    subjects: list[dict[str, str]],
    role_name: str = "",
) -> KubeObject:
    reference = {"apiGroup": _GROUP, "kind": role_kind, "name": role_name or name}
    body: dict[str, Any] = {"roleRef": reference}
    if subjects:
        body["subjects"] = subjects
    return _object(kind, name, namespace, body)


def _subjects(binding: BindingSpec) -> list[dict[str, str]]:
    groups = [{"kind": "Group", "apiGroup": _GROUP, "name": name} for name in binding.groups]
    return [*map(_user, binding.users), *groups, *map(_account, binding.accounts)]


def _object(
    kind: str,
    name: str,
    namespace: str,
    body: Mapping[str, Any],
    labels: Mapping[str, str] = {},
) -> KubeObject:
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata |= {"labels": {**_LABELS, **labels}, "annotations": {_AUTOUPDATE: "true"}}
    return {"kind": kind, "apiVersion": _API_VERSION, "metadata": metadata, **body}


def _repaired(stored: KubeObject, wanted: KubeObject) -> KubeObject | None:
    """The stored object with what it lacks; None if it lacks nothing."""
    if (stored["metadata"].get("annotations") or {}).get(_AUTOUPDATE) == "false":
        return None
    changed = False
    if stored.get("rules") == wanted.get("rules"):
        lacking = []
    else:
        lacking = rules.missing(rules.parse(stored), rules.parse(wanted))
    if lacking and not wanted.get("aggregationRule"):
        stored["rules"] = [*(stored.get("rules") or ()), *(rule.as_object() for rule in lacking)]
        changed = True
    has = stored.get("subjects") or []
    absent = [subject for subject in wanted.get("subjects") or () if subject not in has]
    if absent:
        stored["subjects"] = [*has, *absent]
        changed = True
    return stored if changed else None
