"""The objects that kubeadm puts into a new cluster for nodes and people who join it: where the API
server is and whom to trust, and which certificate requests of kubelets are approved without asking
(https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.components.kubeapi.resources import KubeObject

_RBAC = "rbac.authorization.k8s.io"
_CLUSTER_INFO = "cluster-info"
_READERS = "kubeadm:bootstrap-signer-clusterinfo"
_REQUESTS = "system:certificates.k8s.io:certificatesigningrequests"
_JOINING = "system:bootstrappers:kubeadm:default-node-token"


def objects(credentials: Credentials) -> list[KubeObject]:
    """The objects; of the credentials only the server's address and authority are used."""
    return [*_cluster_info(credentials), *_approvals()]


def _cluster_info(credentials: Credentials) -> list[KubeObject]:
    """A ConfigMap that everybody may read, without credentials, too."""
    metadata = {"namespace": "kube-public"}
    read = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [_CLUSTER_INFO]}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**metadata, "name": _CLUSTER_INFO},
            "data": {"kubeconfig": _kubeconfig(credentials)},
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": {**metadata, "name": _READERS},
            "rules": [{**read, "verbs": ["get"]}],
        },
        _binding("Role", _READERS, _READERS, "User", "system:anonymous", metadata),
    ]


def _kubeconfig(credentials: Credentials) -> str:
    """A kubeconfig with a cluster and nothing else."""
    authority = base64.b64encode(credentials.ca).decode()
    cluster = {"certificate-authority-data": authority, "server": credentials.server}
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "clusters": [{"cluster": cluster, "name": ""}],
        "contexts": None,
        "current-context": "",
        "kind": "Config",
        "preferences": {},
        "users": None,
    }
    return yaml.safe_dump(config, width=2**20)


def _approvals() -> list[KubeObject]:
    return [
        _binding("ClusterRole", name, role, "Group", group)
        for name, role, group in (
            ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", _JOINING),
            ("kubeadm:node-autoapprove-bootstrap", f"{_REQUESTS}:nodeclient", _JOINING),
            (
                "kubeadm:node-autoapprove-certificate-rotation",
                f"{_REQUESTS}:selfnodeclient",
                "system:nodes",
            ),
        )
    ]


def _binding(
    role_kind: str,
    name: str,
    role: str,
    subject_kind: str,
    subject: str,
    metadata: Mapping[str, Any] = MappingProxyType({}),
) -> KubeObject:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{role_kind}Binding",
        "metadata": {**metadata, "name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": subject_kind, "name": subject}],
    }
