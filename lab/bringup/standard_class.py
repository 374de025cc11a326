"""The default StorageClass `standard`, as kind installs it, and the rights of its provisioner.

Its volumes are directories of a node, so a claim waits until the scheduler has chosen the node of
the first pod that uses it. The provisioner runs among the controllers of the lab; kind runs it as a
Deployment from the manifest of rancher/local-path-provisioner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject

_RBAC = "rbac.authorization.k8s.io"
_NAME = "local-path-provisioner"

_CLASS: KubeObject = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "rancher.io/local-path",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}

#: (API group, resources, verbs). The manifest's, and two more: ours marks a claim for another node
#: when a directory could not be made, and a volume as Failed when one could not be removed.
_RULES = (
    ("", "nodes persistentvolumeclaims configmaps pods pods/log", "get list watch"),
    ("", "persistentvolumes", "get list watch create patch update delete"),
    ("", "persistentvolumeclaims persistentvolumes/status", "update"),
    ("", "events", "create patch"),
    ("storage.k8s.io", "storageclasses", "get list watch"),
)
#: In the namespace of its helper pods.
_HELPERS = (("", "pods", "get list watch create patch update delete"),)


def objects() -> Iterator[KubeObject]:
    yield _CLASS
    yield from _granted("ClusterRole", _RULES, {})
    yield from _granted("Role", _HELPERS, {"namespace": "kube-system"})


def _granted(
    kind: str, rules: tuple[tuple[str, str, str], ...], place: Mapping[str, str]
) -> Iterator[KubeObject]:
    """The role and its binding to the provisioner's ServiceAccount."""
    role: dict[str, Any] = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": f"{_NAME}-role", **place},
        "rules": [
            {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}
            for group, resources, verbs in rules
        ],
    }
    account = {"kind": "ServiceAccount", "name": _NAME, "namespace": "kube-system"}
    yield role
    yield {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": f"{_NAME}-bind", **place},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role["metadata"]["name"]},
        "subjects": [account],
    }
