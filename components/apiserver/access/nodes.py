"""The Node authorizer: a kubelet may read what the pods of its node need, and nothing else
(https://kubernetes.io/docs/reference/access-authn-authz/node/).

Upstream walks a graph from the object to the node. Here the references of each node's pods are
counted: an object may be read if a pod of the node refers to it, or if a volume does that a pod's
claim is bound to. What a kubelet may do with its own Node, Lease, pods and tokens follows from the
request alone; NodeRestriction (registry/admission) checks the objects that it writes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kubewire.components.apiserver.access.attributes import Attributes, Decision, Rules, quoted
from kubewire.components.apiserver.kinds import rules
from kubewire.components.apiserver.kinds.rules import Rule
from kubewire.components.apiserver.store import Event, Key, Store, Stored
from kubewire.components.apiserver.users import User
from kubewire.components.kubeapi.resources import KubeObject

GROUP = "system:nodes"
_PREFIX = "system:node:"
_LEASES = "kube-node-lease"
_MIRROR = "kubernetes.io/config.mirror"
_ALLOWED = Decision(True)


class Reference(NamedTuple):
    """An object that a pod refers to."""

    resource: str
    namespace: str
    name: str


def node_of(user: User) -> str | None:
    """The node as which a user authenticates; "" for a node without a name, None for others."""
    if GROUP not in user.groups:
        return None
    return user.name.removeprefix(_PREFIX) if user.name.startswith(_PREFIX) else None


class NodeAuthorizer:
    """Follows the pods of a store. The uniform rules are those of the ClusterRole system:node."""

    def __init__(self, store: Store, uniform: tuple[Rule, ...]) -> None:
        self._store = store
        self._uniform = uniform
        #: By node.
        self._references: defaultdict[str, Counter[Reference]] = defaultdict(Counter)
        for stored in store.items("pods"):
            self._count(stored, 1)
        store.subscribe("pods", self._on_pod)

    def _on_pod(self, event: Event) -> None:
        before = event.previous
        if event.type == "MODIFIED" and before is not None and _same_place(before, event.stored):
            return
        if before is not None:
            self._count(before, -1)
        if event.type != "DELETED":
            self._count(event.stored, 1)

    def _count(self, stored: Stored, change: int) -> None:
        node = _node_name(stored)
        if not node or _MIRROR in (stored.obj["metadata"].get("annotations") or {}):
            return
        counted = self._references[node]
        for reference in set(pod_references(stored.obj)):
            counted[reference] += change
            if not counted[reference]:
                del counted[reference]
        if not counted:
            del self._references[node]

    def rules_for(self, user: User, namespace: str) -> Rules:
        if node_of(user) is None:
            return Rules()
        return Rules(
            problems=("node authorizer does not support user rule resolution",), incomplete=True
        )

    def decide(self, attributes: Attributes) -> Decision:
        node = node_of(attributes.user)
        if node is None:
            return Decision(False)
        if not node:
            return Decision(False, f"unknown node for user {quoted(attributes.user.name)}")
        if attributes.path:
            allowed = any(
                rules.allows_path(rule, attributes.verb, attributes.path) for rule in self._uniform
            )
            return Decision(allowed)
        return self._resource(node, attributes)

    def _resource(self, node: str, asked: Attributes) -> Decision:
        match asked.group, asked.resource:
            case "", "secrets" | "configmaps":
                return self._read(node, asked)
            case "", "persistentvolumeclaims" if asked.subresource == "status":
                if asked.verb not in ("update", "patch"):
                    return Decision(False, "can only get/update/patch this type")
                return self._related(node, asked)
            case (
                ("", "persistentvolumeclaims" | "persistentvolumes")
                | (
                    "resource.k8s.io",
                    "resourceclaims",
                )
                | ("storage.k8s.io", "volumeattachments")
            ):
                return self._get(node, asked)
            case "", "serviceaccounts":
                return self._account(node, asked)
            case "coordination.k8s.io", "leases":
                return _own_lease(node, asked)
            case "storage.k8s.io", "csinodes":
                return _own_csi_node(node, asked)
            case "resource.k8s.io", "resourceslices":
                return self._slice(node, asked)
            case "", "nodes":
                return _own_node(node, asked)
            case "", "pods":
                return self._pod(node, asked)
        return Decision(
            any(
                rules.allows(
                    rule, asked.verb, asked.group, asked.resource, asked.subresource, asked.name
                )
                for rule in self._uniform
            )
        )

    def _read(self, node: str, asked: Attributes) -> Decision:
        if asked.verb not in ("get", "list", "watch"):
            return Decision(False, "can only read resources of this type")
        if asked.subresource:
            return Decision(False, "cannot read subresource")
        if not asked.namespace:
            return Decision(False, "can only read namespaced object of this type")
        return self._related(node, asked)

    def _get(self, node: str, asked: Attributes) -> Decision:
        if asked.verb != "get":
            return Decision(False, "can only get individual resources of this type")
        if asked.subresource:
            return Decision(False, "cannot get subresource")
        return self._related(node, asked)

    def _account(self, node: str, asked: Attributes) -> Decision:
        if asked.verb == "get" and not asked.subresource:
            return self._read(node, asked)
        if asked.verb != "create" or not asked.name:
            return Decision(False, "can only create tokens for individual service accounts")
        if asked.subresource != "token":
            return Decision(False, "can only create token subresource of serviceaccount")
        return self._related(node, asked)

    def _pod(self, node: str, asked: Attributes) -> Decision:
        match asked.subresource, asked.verb:
            case "", "get":
                return self._get(node, asked)
            case "", "list" | "watch":
                if ("spec.nodeName", node) in asked.equals:
                    return _ALLOWED
                if asked.name:
                    return self._related(node, asked)
                why = "can only list/watch pods with spec.nodeName field selector"
                return Decision(False, why)
            case (
                ("", "create" | "delete")
                | ("status", "update" | "patch")
                | (
                    "eviction",
                    "create",
                )
            ):
                return _ALLOWED
        return Decision(False)

    def _slice(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource:
            return Decision(False, "cannot authorize ResourceSlice subresources")
        match asked.verb:
            case "create":
                return _ALLOWED
            case "get" | "update" | "patch" | "delete":
                return self._related(node, asked)
            case "watch" | "list" | "deletecollection" if ("nodeName", node) in asked.equals:
                return _ALLOWED
            case "watch" | "list" | "deletecollection":
                return Decision(
                    False,
                    "can only list/watch/deletecollection resourceslices with nodeName field "
                    "selector",
                )
        return Decision(
            False,
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, "
            "update, patch, delete, deletecollection",
        )

    def _related(self, node: str, asked: Attributes) -> Decision:
        if not asked.name:
            return Decision(False, "No Object name found")
        wanted = Reference(asked.resource, asked.namespace, asked.name)
        if self._is_related(node, wanted):
            return _ALLOWED
        why = f"no relationship found between node '{node}' and this object"
        return Decision(False, why)

    def _is_related(self, node: str, wanted: Reference) -> bool:
        counted = self._references.get(node, Counter())
        if wanted in counted:
            return True
        match wanted.resource:
            case "pods":
                stored = self._store.get(Key("pods", wanted.namespace, wanted.name))
                return stored is not None and _node_name(stored) == node
            case "persistentvolumes":
                return any(volume["metadata"]["name"] == wanted.name for volume in self._of(node))
            case "secrets":
                return any(
                    wanted in _volume_secrets(volume["spec"], _claim_namespace(volume))
                    for volume in self._of(node)
                )
            case "volumeattachments" | "resourceslices":
                group = "storage" if wanted.resource == "volumeattachments" else "resource"
                stored = self._store.get(Key(f"{wanted.resource}.{group}.k8s.io", "", wanted.name))
                return stored is not None and stored.obj["spec"].get("nodeName") == node
        return False

    def _of(self, node: str) -> Iterator[KubeObject]:
        """The volumes to which claims of the node's pods are bound."""
        for reference in self._references.get(node, ()):
            if reference.resource != "persistentvolumeclaims":
                continue
            claim = self._store.get(Key(*reference))
            volume = (claim.obj.get("spec") or {}).get("volumeName") if claim else None
            stored = self._store.get(Key("persistentvolumes", "", volume)) if volume else None
            if stored is not None:
                yield stored.obj


def _own_lease(node: str, asked: Attributes) -> Decision:
    if asked.verb not in ("get", "create", "update", "patch", "delete"):
        return Decision(False, "can only get, create, update, patch, or delete a node lease")
    if asked.namespace != _LEASES:
        return Decision(False, f"can only access leases in the {quoted(_LEASES)} system namespace")
    if asked.verb != "create" and asked.name != node:
        return Decision(
            False, "can only access node lease with the same name as the requesting node"
        )
    return _ALLOWED


def _own_csi_node(node: str, asked: Attributes) -> Decision:
    if asked.verb not in ("get", "create", "update", "patch", "delete"):
        return Decision(False, "can only get, create, update, patch, or delete a CSINode")
    if asked.subresource:
        return Decision(False, "cannot authorize CSINode subresources")
    if asked.verb != "create" and asked.name != node:
        return Decision(False, "can only access CSINode with the same name as the requesting node")
    return _ALLOWED


def _own_node(node: str, asked: Attributes) -> Decision:
    match asked.subresource, asked.verb:
        case ("", "create" | "update" | "patch") | ("status", "update" | "patch"):
            return _ALLOWED
        case "", "get" | "list" | "watch":
            if asked.name == node:
                return _ALLOWED
            what = f"'{asked.name}'" if asked.name else "all nodes"
            return Decision(False, f"node '{node}' cannot read {what}, only its own Node object")
    return Decision(False)


def _node_name(stored: Stored) -> str:
    return str((stored.obj.get("spec") or {}).get("nodeName") or "")


def _same_place(before: Stored, after: Stored) -> bool:
    """Whether a pod still refers to the same objects: what it uses is fixed when it is created,
    except for its node and the claims that are made for it."""
    old, new = before.obj, after.obj
    return bool(
        old["metadata"]["uid"] == new["metadata"]["uid"]
        and _node_name(before) == _node_name(after)
        and (old.get("status") or {}).get("resourceClaimStatuses")
        == (new.get("status") or {}).get("resourceClaimStatuses")
    )


def pod_references(pod: KubeObject) -> Iterator[Reference]:
    """The Secrets, ConfigMaps, claims and the ServiceAccount that a pod uses."""
    spec = pod.get("spec") or {}
    namespace = pod["metadata"].get("namespace", "")
    if account := spec.get("serviceAccountName"):
        yield Reference("serviceaccounts", namespace, account)
    for secret in spec.get("imagePullSecrets") or ():
        yield Reference("secrets", namespace, secret.get("name", ""))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _environment(container, namespace)
    for volume in spec.get("volumes") or ():
        yield from _volume(volume, namespace, pod["metadata"].get("name", ""))
    for claim in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        yield Reference("resourceclaims", namespace, claim.get("resourceClaimName", ""))
    for claim in spec.get("resourceClaims") or ():
        if name := claim.get("resourceClaimName"):
            yield Reference("resourceclaims", namespace, name)


def _environment(container: Mapping[str, Any], namespace: str) -> Iterator[Reference]:
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if reference := source.get("secretKeyRef"):
            yield Reference("secrets", namespace, reference.get("name", ""))
        if reference := source.get("configMapKeyRef"):
            yield Reference("configmaps", namespace, reference.get("name", ""))
    for source in container.get("envFrom") or ():
        if reference := source.get("secretRef"):
            yield Reference("secrets", namespace, reference.get("name", ""))
        if reference := source.get("configMapRef"):
            yield Reference("configmaps", namespace, reference.get("name", ""))


def _volume(volume: Mapping[str, Any], namespace: str, pod: str) -> Iterator[Reference]:
    if secret := volume.get("secret"):
        yield Reference("secrets", namespace, secret.get("secretName", ""))
    if config := volume.get("configMap"):
        yield Reference("configmaps", namespace, config.get("name", ""))
    if claim := volume.get("persistentVolumeClaim"):
        yield Reference("persistentvolumeclaims", namespace, claim.get("claimName", ""))
    if volume.get("ephemeral"):
        yield Reference("persistentvolumeclaims", namespace, f"{pod}-{volume.get('name', '')}")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if secret := source.get("secret"):
            yield Reference("secrets", namespace, secret.get("name", ""))
        if config := source.get("configMap"):
            yield Reference("configmaps", namespace, config.get("name", ""))
    yield from _volume_secrets(volume, namespace)


#: The volume plugins that name a Secret, and the field that names it.
_SECRET_FIELDS = {
    "azureFile": "secretName",
    "cephfs": "secretRef",
    "csi": "nodePublishSecretRef",
    "flexVolume": "secretRef",
    "iscsi": "secretRef",
    "rbd": "secretRef",
    "scaleIO": "secretRef",
    "storageos": "secretRef",
}


def _volume_secrets(source: Mapping[str, Any], namespace: str) -> Iterator[Reference]:
    """The Secret of a volume, or of a PersistentVolume, which may name its namespace."""
    for plugin, field in _SECRET_FIELDS.items():
        reference = (source.get(plugin) or {}).get(field)
        if isinstance(reference, str):
            place = source[plugin].get("secretNamespace") or namespace
            yield Reference("secrets", place, reference)
        elif reference:
            yield Reference(
                "secrets", reference.get("namespace") or namespace, reference.get("name", "")
            )


def _claim_namespace(volume: KubeObject) -> str:
    return str((volume["spec"].get("claimRef") or {}).get("namespace", ""))
