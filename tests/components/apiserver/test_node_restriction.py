"""NodeRestriction and role escalation: what a user may write depends on the object, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.client import APPLY_PATCH, MERGE_PATCH, ApiError
from kubewire.components.kubeapi.resources import KubeObject
from tests.components.apiserver.running import RunningApiServer
from tests.components.apiserver.test_access import RBAC, refused, role, send, to

MERGE = {"Content-Type": MERGE_PATCH}
PODS = "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
ITSELF = "spec.nodeName set to itself"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApiServer]:
    tokens = Path(tmp_path_factory.mktemp("tokens"), "tokens.csv")
    tokens.write_text(
        "root,root,u1,system:masters\nnode,system:node:worker-1,u2,system:nodes\ndeployer,deployer,u3\n"
        "binder,binder,u4\nescalator,escalator,u5\n"
    )
    with RunningApiServer("--token-auth-file", str(tokens)) as running:
        send(running, "root", "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        send(running, "node", "POST", "/api/v1/nodes", {"metadata": {"name": "worker-1"}})
        send(running, "root", "POST", "/api/v1/nodes", {"metadata": {"name": "worker-2"}})
        for name, node in (("mine", "worker-1"), ("other", "worker-2")):
            spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
            send(running, "root", "POST", PODS, {"metadata": {"name": name}, "spec": spec})
        grants = {
            "deployer": role("get list", "pods") + role("create update patch", "roles rolebindings clusterroles", group="*"),
            "binder": role("create", "rolebindings", group="*") + role("bind", "clusterroles", "view", group="*"),
            "escalator": role("create escalate", "roles", group="*"),
        }  # fmt: skip
        for name, granted in grants.items():
            metadata = {"metadata": {"name": name}}
            send(running, "root", "POST", f"{RBAC}/clusterroles", metadata | {"rules": granted})
            reference = {"roleRef": {"kind": "ClusterRole", "name": name}, "subjects": to("User", name)}
            send(running, "root", "POST", f"{RBAC}/clusterrolebindings", metadata | reference)
        yield running


def test_a_kubelet_keeps_its_own_node_pods_and_lease(server: RunningApiServer) -> None:
    path = "/api/v1/nodes/worker-1"
    labels = {"topology.kubernetes.io/zone": "a", "example.com/rack": "1", "kubelet.kubernetes.io/x": "y"}
    assert send(server, "node", "PATCH", path, {"metadata": {"labels": labels}}, MERGE)
    assert send(server, "node", "PATCH", f"{path}/status", {"status": {"phase": ""}}, MERGE)
    assert send(server, "node", "PATCH", f"{PODS}/mine/status", {"status": {"phase": "Running"}}, MERGE)
    send(server, "node", "POST", LEASES, {"metadata": {"name": "worker-1"}})
    uid = send(server, "node", "GET", f"{PODS}/mine")["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": uid}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    assert send(server, "node", "POST", path, {"spec": {"boundObjectRef": reference}})["status"]["token"]


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        pytest.param(
            "PATCH",
            "/api/v1/nodes/worker-2",
            {"metadata": {"labels": {"a": "b"}}},
            'nodes "worker-2" is forbidden: node "worker-1" is not allowed to modify node "worker-2"',
            id="another node",
        ),
        pytest.param(
            "PATCH",
            "/api/v1/nodes/worker-1",
            {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}},
            'nodes "worker-1" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/control-plane',
            id="a label of its own role",
        ),
        pytest.param(
            "PATCH",
            "/api/v1/nodes/worker-1",
            {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}},
            'nodes "worker-1" is forbidden: node "worker-1" is not allowed to modify taints',
            id="taints",
        ),
        pytest.param(
            "DELETE",
            f"{PODS}/other",
            None,
            f'pods "other" is forbidden: node "worker-1" can only delete pods with {ITSELF}',
            id="another node's pod",
        ),
        pytest.param(
            "PATCH",
            f"{PODS}/other/status",
            {"status": {"phase": "Failed"}},
            f'pods "other" is forbidden: node "worker-1" can only update pod status for pods with {ITSELF}',
            id="another node's pod's status",
        ),
        pytest.param(
            "POST",
            f"{PODS}/other/eviction",
            {"metadata": {"name": "other"}},
            f'pods "other" is forbidden: node worker-1 can only evict pods with {ITSELF}',
            id="another node's pod's eviction",
        ),
        pytest.param(
            "POST",
            PODS,
            {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            'pods "x" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "worker-1" can only '
            "create mirror pods",
            id="a pod that is no mirror",
        ),
        pytest.param(
            "POST",
            PODS,
            {
                "metadata": {"name": "x", "annotations": {"kubernetes.io/config.mirror": "h"}},
                "spec": {"nodeName": "worker-1", "containers": [{"name": "c", "image": "i"}]},
            },
            'pods "x" is forbidden: node "worker-1" can only create pods with an owner reference set to itself',
            id="a mirror pod without its owner",
        ),
        pytest.param(
            "POST",
            LEASES,
            {"metadata": {"name": "worker-2"}},
            'leases.coordination.k8s.io "worker-2" is forbidden: can only access node lease with the same name as the '
            "requesting node",
            id="another node's Lease",
        ),
        pytest.param(
            "POST",
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            {"spec": {}},
            'serviceaccounts "default" is forbidden: node requested token not bound to a pod',
            id="a token without a pod",
        ),
    ],
)
def test_a_kubelet_leaves_everything_else_alone(
    server: RunningApiServer, method: str, path: str, body: Any, message: str
) -> None:
    error = refused(server, "node", method, path, body, MERGE if method == "PATCH" else None)
    assert (error.status, error.message) == (403, message)


def test_a_mirror_pod_belongs_to_its_node(server: RunningApiServer) -> None:
    node = send(server, "node", "GET", "/api/v1/nodes/worker-1")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "worker-1", "uid": node["metadata"]["uid"], "controller": True}
    metadata = {"name": "mirror", "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": [owner]}
    spec: KubeObject = {"nodeName": "worker-1", "containers": [{"name": "c", "image": "i"}]}
    volume = {"name": "v", "secret": {"secretName": "s"}}
    error = refused(server, "node", "POST", PODS, {"metadata": metadata, "spec": spec | {"volumes": [volume]}})
    assert error.message.endswith('node "worker-1" can not create pods that reference secrets')
    assert send(server, "node", "POST", PODS, {"metadata": metadata, "spec": spec})
    assert send(server, "node", "DELETE", f"{PODS}/mirror")


def granting(rules: list[KubeObject]) -> KubeObject:
    return {"metadata": {"name": "granted"}, "rules": rules}


def binding(name: str) -> KubeObject:
    return {
        "metadata": {"name": "granted"},
        "roleRef": {"kind": "ClusterRole", "name": name},
        "subjects": to("User", "x"),
    }


ROLES = f"{RBAC}/namespaces/default/roles"
BINDINGS = f"{RBAC}/namespaces/default/rolebindings"
ATTEMPT = 'is forbidden: user "deployer" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not '


@pytest.mark.parametrize(
    ("user", "path", "body", "message"),
    [
        pytest.param("deployer", ROLES, granting(role("get", "pods")), None, id="what one has"),
        pytest.param(
            "deployer",
            ROLES,
            granting(role("get delete", "pods secrets")),
            f'roles.rbac.authorization.k8s.io "granted" {ATTEMPT}currently held:\n'
            '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
            '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}',
            id="what one does not have",
        ),
        pytest.param("escalator", ROLES, granting(role("get", "secrets")), None, id="who may escalate"),
        pytest.param(
            "deployer",
            f"{RBAC}/clusterroles",
            granting([]) | {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}},
            'clusterroles.rbac.authorization.k8s.io "granted" is forbidden: must have cluster-admin privileges to use '
            "the aggregationRule",
            id="what others may grant later",
        ),
        pytest.param(
            "deployer",
            BINDINGS,
            binding("system:kube-dns"),
            f'rolebindings.rbac.authorization.k8s.io "granted" {ATTEMPT}currently held:\n'
            '{APIGroups:[""], Resources:["endpoints"], Verbs:["list" "watch"]}\n'
            '{APIGroups:[""], Resources:["services"], Verbs:["list" "watch"]}',
            id="a binding",
        ),
        pytest.param(
            "deployer",
            BINDINGS,
            binding("none"),
            'clusterroles.rbac.authorization.k8s.io "none" not found',
            id="a role that does not exist",
        ),
        pytest.param("binder", BINDINGS, binding("view"), None, id="who may bind"),
        pytest.param("root", BINDINGS, binding("cluster-admin"), None, id="system:masters"),
    ],
)
def test_nobody_gives_rights_that_they_do_not_have(
    server: RunningApiServer, user: str, path: str, body: KubeObject, message: str | None
) -> None:
    dry = f"{path}?dryRun=All"
    if message is None:
        assert send(server, user, "POST", dry, body)
    else:
        assert refused(server, user, "POST", dry, body).message == message


def test_changes_are_checked_as_creations_are(server: RunningApiServer) -> None:
    send(server, "root", "POST", ROLES, {"metadata": {"name": "strong"}, "rules": role("get", "secrets")})
    assert send(server, "deployer", "PATCH", f"{ROLES}/strong", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    more = {"rules": role("get", "secrets nodes")}
    with pytest.raises(ApiError, match="is attempting to grant"):
        send(server, "deployer", "PATCH", f"{ROLES}/strong", more, MERGE)
    applied = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "strong"}, **more}
    with pytest.raises(ApiError, match="is attempting to grant"):
        headers = {"Content-Type": APPLY_PATCH}
        send(server, "deployer", "PATCH", f"{ROLES}/strong?fieldManager=m&force=true", applied, headers)
