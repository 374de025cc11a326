"""NodeRestriction: a kubelet writes only its own Node, its Lease, its pods and their tokens
(plugin/pkg/admission/noderestriction).

The Node authorizer decides from the request alone. What depends on the object is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.access.attributes import quoted
from kubewire.components.apiserver.access.nodes import node_of, pod_references
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.resources import KubeObject

_MIRROR = "kubernetes.io/config.mirror"
_LEASES = "kube-node-lease"
_RESTRICTED = "node-restriction.kubernetes.io"
#: Labels of kubernetes.io and k8s.io that a kubelet may set on its Node.
_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
    }
)
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
#: What a kubelet may write in the status of a claim.
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")


class NodeRestriction(Plugin):
    name = "NodeRestriction"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage in _CHECKS and operation != "CONNECT"

    def admit(self, attributes: Attributes) -> None:
        node = node_of(attributes.user)
        if node is None:
            return
        if not node:
            why = f"could not determine node from user {quoted(attributes.user.name)}"
            raise _forbidden(attributes, why)
        _CHECKS[attributes.served.storage](self, node, attributes)

    def pod(self, node: str, attributes: Attributes) -> None:
        match attributes.subresource, attributes.operation:
            case "", "CREATE":
                self._mirror_pod(node, attributes)
            case "", "DELETE":
                why = f"node {quoted(node)} can only delete pods with spec.nodeName set to itself"
                _require(attributes, _is_on(attributes.old, node), why)
            case "status", "UPDATE":
                _pod_status(node, attributes)
            case "eviction", "CREATE":
                pod = self._pod(attributes, attributes.name)
                why = f"node {node} can only evict pods with spec.nodeName set to itself"
                _require(attributes, _is_on(pod, node), why)
            case "" | "status" | "eviction", operation:
                why = f"unexpected operation {quoted(operation)}"
                if not attributes.subresource:
                    why += f", node {quoted(node)} can only create and delete mirror pods"
                raise _forbidden(attributes, why)
            case subresource, _:
                raise _forbidden(
                    attributes,
                    f"unexpected pod subresource {quoted(subresource)}, only 'status' and "
                    "'eviction' are allowed",
                )

    def _mirror_pod(self, node: str, attributes: Attributes) -> None:
        pod = attributes.obj
        if _MIRROR not in (pod["metadata"].get("annotations") or {}):
            why = f"pod does not have {quoted(_MIRROR)} annotation, node {quoted(node)} "
            raise _forbidden(attributes, why + "can only create mirror pods")
        can_only = f"node {quoted(node)} can only create pods with"
        _require(attributes, _is_on(pod, node), f"{can_only} spec.nodeName set to itself")
        owners = pod["metadata"].get("ownerReferences") or []
        if len(owners) > 1:
            why = f"{can_only} a single owner reference set to itself"
            raise _forbidden(attributes, why)
        if not owners:
            raise _forbidden(attributes, f"{can_only} an owner reference set to itself")
        self._owner(node, owners[0], attributes)
        for problem in _referenced(pod):
            why = f"node {quoted(node)} can not create pods that reference {problem}"
            raise _forbidden(attributes, why)

    def _owner(self, node: str, owner: Mapping[str, Any], attributes: Attributes) -> None:
        can_only = f"node {quoted(node)} can only create pods with"
        itself = (owner.get("apiVersion"), owner.get("kind"), owner.get("name"))
        _require(
            attributes,
            itself == ("v1", "Node", node),
            f"{can_only} an owner reference set to itself",
        )
        _require(
            attributes,
            bool(owner.get("controller")),
            f"{can_only} a controller owner reference set to itself",
        )
        if owner.get("blockOwnerDeletion"):
            why = f"node {quoted(node)} must not set blockOwnerDeletion on an owner reference"
            raise _forbidden(attributes, why)
        stored = self.store.get(Key("nodes", "", node))
        if stored is None:
            raise status.not_found("", "nodes", node)
        uid = stored.obj["metadata"]["uid"]
        if owner.get("uid") != uid:
            why = f"node {node} UID mismatch: expected {owner.get('uid')} got {uid}"
            raise _forbidden(attributes, why)

    def node(self, node: str, attributes: Attributes) -> None:
        name = attributes.name
        if name != node:
            why = f"node {quoted(node)} is not allowed to modify node {quoted(name)}"
            raise _forbidden(attributes, why)
        if attributes.operation == "DELETE":
            return
        new, old = attributes.obj, attributes.old
        changed = _changed_labels(new, old)
        forbidden = sorted(label for label in changed if _is_forbidden(label))
        if not old:
            labels = ", ".join(forbidden)
            why = f"node {quoted(node)} is not allowed to set the following labels: {labels}"
            _require(attributes, not forbidden, why)
            return
        taints = [(item.get("spec") or {}).get("taints") or [] for item in (new, old)]
        why = f"node {quoted(node)} is not allowed to modify taints"
        _require(attributes, taints[0] == taints[1], why)
        why = f"is not allowed to modify labels: {', '.join(forbidden)}"
        _require(attributes, not forbidden, why)

    def claim(self, node: str, attributes: Attributes) -> None:
        if attributes.subresource != "status":
            raise _forbidden(attributes, "may only update PVC status")
        if attributes.operation != "UPDATE":
            operation = quoted(attributes.operation)
            raise _forbidden(attributes, f"unexpected operation {operation}")
        why = f"node {quoted(node)} is not allowed to update fields other than status.capacity and "
        same = _without_status(attributes.obj) == _without_status(attributes.old)
        _require(attributes, same, why + "status.conditions")

    def account(self, node: str, attributes: Attributes) -> None:
        if attributes.operation != "CREATE" or attributes.subresource != "token":
            return
        reference = (attributes.obj.get("spec") or {}).get("boundObjectRef") or {}
        is_pod = (reference.get("apiVersion"), reference.get("kind")) == ("v1", "Pod")
        why = "node requested token not bound to a pod"
        _require(attributes, is_pod and bool(reference.get("name")), why)
        uid = reference.get("uid")
        why = "node requested token with a pod binding without a uid"
        _require(attributes, bool(uid), why)
        pod = self._pod(attributes, reference["name"])
        if uid != pod["metadata"]["uid"]:
            raise _forbidden(
                attributes,
                f"the UID in the bound object reference ({uid}) does not match the UID in record. "
                "The object might have been deleted and then recreated",
            )
        why = "node requested token bound to a pod scheduled on a different node"
        _require(attributes, _is_on(pod, node), why)

    def lease(self, node: str, attributes: Attributes) -> None:
        why = f"can only access leases in the {quoted(_LEASES)} system namespace"
        _require(attributes, attributes.namespace == _LEASES, why)
        self._own(node, attributes, "node lease")

    def csi_node(self, node: str, attributes: Attributes) -> None:
        self._own(node, attributes, "CSINode")

    def _own(self, node: str, attributes: Attributes, what: str) -> None:
        why = f"can only access {what} with the same name as the requesting node"
        _require(attributes, attributes.name == node, why)

    def slice(self, node: str, attributes: Attributes) -> None:
        of = ((attributes.old or attributes.obj).get("spec") or {}).get("nodeName")
        verb = "create" if attributes.operation == "CREATE" else "modify"
        why = f"can only {verb} ResourceSlice with the same NodeName as the requesting node"
        _require(attributes, of == node, why)

    def _pod(self, attributes: Attributes, name: str) -> KubeObject:
        stored = self.store.get(Key("pods", attributes.namespace, name))
        if stored is None:
            raise status.not_found("", "pods", name)
        return stored.obj


_CHECKS: Mapping[str, Callable[[NodeRestriction, str, Attributes], None]] = {
    "pods": NodeRestriction.pod,
    "nodes": NodeRestriction.node,
    "persistentvolumeclaims": NodeRestriction.claim,
    "serviceaccounts": NodeRestriction.account,
    "leases.coordination.k8s.io": NodeRestriction.lease,
    "csinodes.storage.k8s.io": NodeRestriction.csi_node,
    "resourceslices.resource.k8s.io": NodeRestriction.slice,
}


def _forbidden(attributes: Attributes, why: str) -> status.StatusError:
    served = attributes.served
    return status.forbidden(served.group, served.plural, attributes.name, why)


def _require(attributes: Attributes, condition: bool, why: str) -> None:
    if not condition:
        raise _forbidden(attributes, why)


def _is_on(pod: KubeObject, node: str) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName") == node)


def _pod_status(node: str, attributes: Attributes) -> None:
    new, old = attributes.obj, attributes.old
    itself = f"node {quoted(node)}"
    why = f"{itself} can only update pod status for pods with spec.nodeName set to itself"
    _require(attributes, _is_on(old, node), why)
    labels = [item["metadata"].get("labels") or {} for item in (new, old)]
    why = f"{itself} cannot update labels through pod status"
    _require(attributes, labels[0] == labels[1], why)
    claims = [(item.get("status") or {}).get("resourceClaimStatuses") or [] for item in (new, old)]
    why = f"{itself} cannot update resource claim statues"
    _require(attributes, claims[0] == claims[1], why)


def _referenced(pod: KubeObject) -> Iterator[str]:
    """The kinds of objects that a mirror pod must not refer to but does."""
    kinds = {reference.resource for reference in pod_references(pod)}
    if "serviceaccounts" in kinds:
        yield "a service account"
    for kind in ("secrets", "configmaps", "persistentvolumeclaims"):
        if kind in kinds:
            yield kind


def _changed_labels(new: KubeObject, old: KubeObject) -> set[str]:
    labels = new["metadata"].get("labels") or {}
    before = (old.get("metadata") or {}).get("labels") or {}
    return {key for key in labels.keys() | before.keys() if labels.get(key) != before.get(key)}


def _is_forbidden(label: str) -> bool:
    domain, slash, _ = label.partition("/")
    if not slash:
        return False
    if domain == _RESTRICTED or domain.endswith(f".{_RESTRICTED}"):
        return True
    ours = any(domain == one or domain.endswith(f".{one}") for one in ("kubernetes.io", "k8s.io"))
    return ours and not _is_kubelets(label, domain)


def _is_kubelets(label: str, domain: str) -> bool:
    return label in _KUBELET_LABELS or any(
        domain == one or domain.endswith(f".{one}") for one in _KUBELET_NAMESPACES
    )


def _without_status(claim: KubeObject) -> KubeObject:
    metadata = {
        key: value
        for key, value in claim["metadata"].items()
        if key not in ("resourceVersion", "managedFields")
    }
    kept = {
        key: value for key, value in (claim.get("status") or {}).items() if key not in _CLAIM_STATUS
    }
    return claim | {"metadata": metadata, "status": kept}
