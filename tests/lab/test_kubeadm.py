"""What a new cluster tells those who join it, as kubeadm writes it."""

from __future__ import annotations

import base64
from typing import Any

import yaml

from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.lab.bringup import kubeadm

OBJECTS = kubeadm.objects(
    Credentials(server="https://172.18.0.2:6443", ca=b"authority", certificate=b"c", key=b"secret")
)


def named(kind: str, name: str) -> Any:
    (found,) = [item for item in OBJECTS if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def test_cluster_info_has_the_server_and_whom_to_trust_and_no_key() -> None:
    config = named("ConfigMap", "cluster-info")
    assert config["metadata"]["namespace"] == "kube-public"
    assert yaml.safe_load(config["data"]["kubeconfig"]) == {
        "apiVersion": "v1",
        "clusters": [
            {
                "cluster": {
                    "certificate-authority-data": base64.b64encode(b"authority").decode(),
                    "server": "https://172.18.0.2:6443",
                },
                "name": "",
            }
        ],
        "contexts": None,
        "current-context": "",
        "kind": "Config",
        "preferences": {},
        "users": None,
    }


def test_everybody_may_read_cluster_info_and_nothing_else() -> None:
    role = named("Role", "kubeadm:bootstrap-signer-clusterinfo")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}
    ]
    binding = named("RoleBinding", "kubeadm:bootstrap-signer-clusterinfo")
    assert binding["subjects"][0]["name"] == "system:anonymous"
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"] == "kube-public"


def test_nodes_may_have_their_own_requests_approved() -> None:
    granted = {
        item["roleRef"]["name"].rpartition(":")[2]: item["subjects"][0]["name"]
        for item in OBJECTS
        if item["kind"] == "ClusterRoleBinding"
    }
    joining = "system:bootstrappers:kubeadm:default-node-token"
    assert granted == {"node-bootstrapper": joining, "nodeclient": joining, "selfnodeclient": "system:nodes"}
