"""Who may do what: roles, bindings, nodes, impersonation, and the reviews that say it."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from kubewire.components.apiserver.access import modes
from kubewire.components.apiserver.access.attributes import Attributes
from kubewire.components.apiserver.access.nodes import NodeAuthorizer, pod_references
from kubewire.components.apiserver.access.policy import cluster_roles, node_rules
from kubewire.components.apiserver.access.rbac import RbacAuthorizer
from kubewire.components.apiserver.kinds import rules
from kubewire.components.apiserver.kinds.rules import Rule
from kubewire.components.apiserver.registry import bootstrappolicy
from kubewire.components.apiserver.store import Key, Store
from kubewire.components.apiserver.users import User
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.components.kubeapi.resources import KubeObject
from tests.components.apiserver.running import RunningApiServer
from tests.components.apiserver.test_certificate_requests import condition, request

GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{GROUP}/v1"
ACCESS = "/apis/authorization.k8s.io/v1"


@pytest.fixture
def store() -> Iterator[Store]:
    one = Store(":memory:")
    yield one
    one.close()


def put(store: Store, kind: str, name: str, namespace: str = "", **body: Any) -> None:
    """Stores an RBAC object; one that exists is replaced."""
    key = Key(f"{kind.lower()}s.{GROUP}", namespace, name)
    obj = {"kind": kind, "metadata": {"name": name, "namespace": namespace}, **body}
    if (stored := store.get(key)) is None:
        store.create(key, obj)
    else:
        store.update(key, obj, stored.revision)


def role(verbs: str, resources: str, *names: str, group: str = "") -> list[KubeObject]:
    return [Rule(tuple(verbs.split()), (group,), tuple(resources.split()), names).as_object()]


def to(kind: str, name: str, namespace: str = "") -> list[dict[str, str]]:
    return [{"kind": kind, "name": name} | ({"namespace": namespace} if namespace else {})]


ALICE = User("alice", ("devs", "system:authenticated"))
ROBOT = User("system:serviceaccount:apps:robot", ("system:serviceaccounts",))


@pytest.fixture
def rbac(store: Store) -> RbacAuthorizer:
    put(store, "ClusterRole", "reader", rules=role("get list", "pods pods/log */scale"))
    put(store, "ClusterRole", "paths", rules=[{"verbs": ["get"], "nonResourceURLs": ["/logs", "/metrics/*"]}])
    put(store, "Role", "one", "apps", rules=role("update", "configmaps", "settings"))
    put(
        store,
        "ClusterRoleBinding",
        "devs",
        roleRef={"kind": "ClusterRole", "name": "reader"},
        subjects=to("Group", "devs"),
    )
    put(
        store,
        "ClusterRoleBinding",
        "paths",
        roleRef={"kind": "ClusterRole", "name": "paths"},
        subjects=to("User", "alice"),
    )
    put(
        store,
        "RoleBinding",
        "robot",
        "apps",
        roleRef={"kind": "Role", "name": "one"},
        subjects=to("ServiceAccount", "robot"),
    )
    put(
        store,
        "RoleBinding",
        "broken",
        "lost",
        roleRef={"kind": "ClusterRole", "name": "gone"},
        subjects=to("User", "alice"),
    )
    return RbacAuthorizer(store)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        pytest.param(Attributes(ALICE, "list", resource="pods"), True, id="a group's rule, in the cluster"),
        pytest.param(Attributes(ALICE, "list", resource="pods", namespace="x"), True, id="and in each namespace"),
        pytest.param(Attributes(ALICE, "watch", resource="pods"), False, id="another verb"),
        pytest.param(Attributes(ALICE, "get", "apps", resource="pods"), False, id="another API group"),
        pytest.param(
            Attributes(ALICE, "get", resource="pods", subresource="log"), True, id="a subresource that is named"
        ),
        pytest.param(
            Attributes(ALICE, "get", resource="pods", subresource="exec"),
            False,
            id="a resource is not its subresources",
        ),
        pytest.param(
            Attributes(ALICE, "get", resource="replicationcontrollers", subresource="scale"), True, id="*/scale"
        ),
        pytest.param(Attributes(ALICE, "get", path="/logs"), True, id="a path"),
        pytest.param(Attributes(ALICE, "get", path="/logs/x"), False, id="a path below it"),
        pytest.param(Attributes(ALICE, "get", path="/metrics/slis"), True, id="a path of a pattern"),
        pytest.param(
            Attributes(ROBOT, "update", resource="configmaps", namespace="apps", name="settings"),
            True,
            id="an account of the binding's namespace, a name",
        ),
        pytest.param(
            Attributes(ROBOT, "update", resource="configmaps", namespace="apps", name="x"), False, id="another name"
        ),
        pytest.param(
            Attributes(ROBOT, "update", resource="configmaps", namespace="x", name="settings"),
            False,
            id="another namespace",
        ),
    ],
)
def test_bindings_give_the_rules_of_roles(rbac: RbacAuthorizer, asked: Attributes, allowed: bool) -> None:
    assert rbac.decide(asked).allowed is allowed
    assert rbac.explain(asked).allowed is allowed


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            Attributes(ALICE, "list", resource="pods"),
            'RBAC: allowed by ClusterRoleBinding "devs" of ClusterRole "reader" to Group "devs"',
        ),
        (
            Attributes(ROBOT, "update", resource="configmaps", namespace="apps", name="settings"),
            'RBAC: allowed by RoleBinding "robot/apps" of Role "one" to ServiceAccount "robot/apps"',
        ),
        (
            Attributes(ALICE, "delete", resource="pods", namespace="lost"),
            f'RBAC: clusterrole.{GROUP} "gone" not found',
        ),
        (Attributes(ALICE, "delete", resource="pods"), ""),
    ],
    ids=["cluster", "namespace", "a role that does not exist", "nothing to say"],
)
def test_a_decision_names_its_binding(rbac: RbacAuthorizer, asked: Attributes, reason: str) -> None:
    assert rbac.explain(asked).reason == reason
    if not rbac.explain(asked).allowed:
        assert rbac.decide(asked).reason == reason


def test_decisions_follow_roles_and_bindings_at_once(store: Store, rbac: RbacAuthorizer) -> None:
    asked = Attributes(User("bob"), "get", resource="secrets", namespace="apps")
    assert not rbac.decide(asked).allowed
    reference = {"kind": "Role", "name": "late"}
    put(store, "RoleBinding", "late", "apps", roleRef=reference, subjects=to("User", "bob"))
    assert not rbac.decide(asked).allowed
    put(store, "Role", "late", "apps", rules=role("get", "secrets"))
    assert rbac.decide(asked).allowed
    put(store, "RoleBinding", "late", "apps", roleRef=reference, subjects=to("User", "carol"))
    assert not rbac.decide(asked).allowed
    put(store, "RoleBinding", "late", "apps", roleRef=reference, subjects=to("User", "bob"))
    assert rbac.decide(asked).allowed
    stored = store.get(Key(f"roles.{GROUP}", "apps", "late"))
    assert stored is not None
    store.delete(stored.key, stored.copy(), stored.revision)
    assert not rbac.decide(asked).allowed


def test_the_index_and_the_walk_along_the_bindings_agree() -> None:
    """On random roles: decide() uses look-ups, explain() reads every rule."""
    dice = random.Random(11)
    store = Store(":memory:")
    rbac = RbacAuthorizer(store)

    def some(*words: str) -> tuple[str, ...]:
        return tuple(dice.sample(words, dice.randint(1, 2)))

    def rule() -> Rule:
        names = some("a", "b") if dice.random() < 0.3 else ()
        return Rule(
            some("get", "list", "*", "watch"), some("", "apps", "*"), some("pods", "pods/log", "*", "*/log"), names
        )

    for number in range(60):
        name, namespace = f"r{number % 20}", dice.choice(["x", "y"])
        granted = [rule().as_object() for _ in range(dice.randint(0, 2))]
        put(store, "ClusterRole", name, rules=granted)
        put(store, "Role", name, namespace, rules=granted)
        subjects = to(*dice.choice([("User", "alice"), ("Group", "devs"), ("User", "bob")]))
        if dice.random() < 0.2:
            put(store, "ClusterRoleBinding", name, roleRef={"kind": "ClusterRole", "name": name}, subjects=subjects)
        kind = dice.choice(["Role", "ClusterRole"])
        put(store, "RoleBinding", name, namespace, roleRef={"kind": kind, "name": name}, subjects=subjects)
        for _ in range(40):
            asked = Attributes(
                dice.choice([ALICE, User("bob"), User("carol")]),
                dice.choice(["get", "list", "watch"]),
                dice.choice(["", "apps"]),
                resource=dice.choice(["pods", "nodes"]),
                subresource=dice.choice(["", "log"]),
                namespace=dice.choice(["", "x", "y", "z"]),
                name=dice.choice(["", "a", "c"]),
            )
            assert rbac.decide(asked).allowed == rbac.explain(asked).allowed, asked


@pytest.mark.parametrize(
    ("held", "wanted", "lacking"),
    [
        pytest.param([Rule(("*",), ("*",), ("*",))], [Rule(("get",), ("",), ("pods",))], [], id="all"),
        pytest.param(
            [Rule(("get",), ("",), ("pods",)), Rule(("list",), ("",), ("pods",))],
            [Rule(("get", "list"), ("",), ("pods",))],
            [],
            id="two rules together",
        ),
        pytest.param(
            [Rule(("get",), ("",), ("pods",))],
            [Rule(("get", "list", "watch"), ("", "apps"), ("pods",))],
            [
                '{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}',
                '{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "list" "watch"]}',
            ],
            id="a part",
        ),
        pytest.param(
            [Rule(("get",), ("",), ("pods",), ("a",))],
            [Rule(("get",), ("",), ("pods",), ("a", "b"))],
            ['{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}'],
            id="a name",
        ),
        pytest.param(
            [Rule(("get",), ("",), ("pods",), ("a",))],
            [Rule(("get",), ("",), ("pods",))],
            ['{APIGroups:[""], Resources:["pods"], Verbs:["get"]}'],
            id="all names",
        ),
        pytest.param(
            [Rule(("get",), urls=("/a/*",))],
            [Rule(("get",), urls=("/a/b", "/b"))],
            ['{NonResourceURLs:["/b"], Verbs:["get"]}'],
            id="a path",
        ),
        pytest.param([Rule(("get",), ("*",), ("*/scale",))], [Rule(("get",), ("",), ("x/scale",))], [], id="*/scale"),
    ],
)
def test_rules_cover_rules(held: list[Rule], wanted: list[Rule], lacking: list[str]) -> None:
    assert [str(rule) for rule in rules.missing(held, wanted)] == lacking


NODE = User("system:node:worker-1", ("system:nodes", "system:authenticated"))


@pytest.fixture
def nodes(store: Store) -> NodeAuthorizer:
    spec = {
        "nodeName": "worker-1",
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [
            {"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "from"}}]}
        ],
        "volumes": [
            {"name": "v", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        ],
    }
    pod = {"metadata": {"name": "web", "namespace": "apps", "uid": "1"}, "spec": spec}
    store.create(Key("pods", "apps", "web"), pod)
    other = {"metadata": {"name": "other", "namespace": "apps", "uid": "2"}, "spec": {"nodeName": "worker-2"}}
    store.create(Key("pods", "apps", "other"), other)
    claim = {"metadata": {"name": "data", "namespace": "apps"}, "spec": {"volumeName": "pv-1"}}
    store.create(Key("persistentvolumeclaims", "apps", "data"), claim)
    volume = {"claimRef": {"namespace": "apps"}, "csi": {"nodePublishSecretRef": {"name": "csi", "namespace": "vault"}}}
    store.create(Key("persistentvolumes", "", "pv-1"), {"metadata": {"name": "pv-1"}, "spec": volume})
    return NodeAuthorizer(store, node_rules())


UNRELATED = "no relationship found between node 'worker-1' and this object"


def ask(verb: str, resource: str, name: str = "", namespace: str = "", group: str = "", **more: Any) -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(NODE, verb, group, "v1", plural, subresource, namespace, name, **more)


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        *[
            pytest.param(ask("get", kind, name, "apps"), None, id=f"{kind}/{name}")
            for kind, name in (
                ("secrets", "registry"),
                ("secrets", "env"),
                ("configmaps", "from"),
                ("configmaps", "kube-root-ca.crt"),
                ("persistentvolumeclaims", "data"),
                ("pods", "web"),
            )
        ],
        pytest.param(ask("get", "persistentvolumes", "pv-1"), None, id="the claim's volume"),
        pytest.param(ask("get", "secrets", "csi", "vault"), None, id="the volume's secret"),
        pytest.param(ask("create", "serviceaccounts/token", "robot", "apps"), None, id="the pod's token"),
        pytest.param(ask("create", "serviceaccounts/token", "x", "apps"), UNRELATED, id="another account's token"),
        pytest.param(ask("get", "serviceaccounts", "robot", "apps"), None, id="the pod's account"),
        pytest.param(ask("get", "serviceaccounts", "x", "apps"), UNRELATED, id="another account"),
        pytest.param(
            ask("list", "serviceaccounts", "", "apps"),
            "can only create tokens for individual service accounts",
            id="all accounts",
        ),
        pytest.param(ask("get", "secrets", "x", "apps"), UNRELATED, id="another secret"),
        pytest.param(ask("get", "secrets", "env", "x"), UNRELATED, id="of another namespace"),
        pytest.param(ask("get", "pods", "other", "apps"), UNRELATED, id="another node's pod"),
        pytest.param(ask("list", "secrets", "", "apps"), "No Object name found", id="all secrets"),
        pytest.param(ask("delete", "secrets", "env", "apps"), "can only read resources of this type", id="to write"),
        pytest.param(ask("list", "pods", equals=(("spec.nodeName", "worker-1"),)), None, id="its pods"),
        pytest.param(ask("list", "pods"), "can only list/watch pods with spec.nodeName field selector", id="all pods"),
        pytest.param(ask("patch", "pods/status", "web", "apps"), None, id="a pod's status"),
        pytest.param(ask("patch", "pods", "web", "apps"), "", id="a pod"),
        pytest.param(ask("watch", "nodes", "worker-1"), None, id="its Node"),
        pytest.param(ask("list", "nodes"), "node 'worker-1' cannot read all nodes, only its own Node object", id="all"),
        pytest.param(
            ask("get", "nodes", "worker-2"),
            "node 'worker-1' cannot read 'worker-2', only its own Node object",
            id="another",
        ),
        pytest.param(
            ask("update", "leases", "worker-1", "kube-node-lease", "coordination.k8s.io"), None, id="its Lease"
        ),
        pytest.param(
            ask("update", "leases", "worker-2", "kube-node-lease", "coordination.k8s.io"),
            "can only access node lease with the same name as the requesting node",
            id="another's Lease",
        ),
        pytest.param(ask("list", "services"), None, id="Services"),
        pytest.param(ask("delete", "services", "x", "apps"), "", id="no Service to delete"),
        pytest.param(ask("create", "events", "", "apps"), None, id="events"),
        pytest.param(ask("create", "events", "", "apps", "events.k8s.io"), None, id="events of events.k8s.io"),
        pytest.param(
            ask("create", "podcertificaterequests", "x", "apps", "certificates.k8s.io"),
            "",
            id="a beta kind that is off",
        ),
    ],
)
def test_a_kubelet_may_do_what_its_pods_need(nodes: NodeAuthorizer, asked: Attributes, refusal: str | None) -> None:
    decision = nodes.decide(asked)
    assert (decision.allowed, decision.reason) == ((True, "") if refusal is None else (False, refusal))


@pytest.mark.parametrize(
    ("role", "verb", "group", "resource", "allowed"),
    [
        pytest.param("view", "list", "events.k8s.io", "events", True, id="view reads events of both groups"),
        pytest.param("view", "get", "", "events", True, id="view reads events"),
        pytest.param("view", "get", "coordination.k8s.io", "leases", False, id="view reads no Leases"),
        pytest.param("edit", "get", "coordination.k8s.io", "leases", True, id="edit reads Leases"),
        pytest.param("edit", "create", "coordination.k8s.io", "leases", True, id="edit writes Leases"),
        pytest.param("edit", "delete", "events.k8s.io", "events", True, id="edit writes events of both groups"),
        pytest.param("view", "list", "resource.k8s.io", "resourceclaims", True, id="view reads claims of devices"),
        pytest.param("edit", "create", "resource.k8s.io", "resourceclaims", True, id="edit makes claims of devices"),
        pytest.param("edit", "create", "resource.k8s.io", "resourceslices", False, id="edit makes no slices"),
    ],
)
def test_the_roles_of_namespaces(role: str, verb: str, group: str, resource: str, allowed: bool) -> None:
    granted = cluster_roles()[f"system:aggregate-to-{role}"].rules
    assert any(rules.allows(rule, verb, group, resource, "", "") for rule in granted) is allowed


def test_who_monitors_may_read_the_metrics_of_nodes() -> None:
    granted = cluster_roles()["system:monitoring"].rules
    assert any(rules.allows(rule, "get", "", "nodes", "metrics", "worker-1") for rule in granted)


def test_what_a_pod_needed_goes_with_it(store: Store, nodes: NodeAuthorizer) -> None:
    asked = ask("get", "secrets", "env", "apps")
    stored = store.get(Key("pods", "apps", "web"))
    assert stored is not None
    running = store.update(stored.key, stored.copy() | {"status": {"phase": "Running"}}, stored.revision)
    assert nodes.decide(asked).allowed
    store.delete(running.key, running.copy(), running.revision)
    assert not nodes.decide(asked).allowed
    store.create(running.key, running.copy())
    assert nodes.decide(asked).allowed


def test_other_users_are_no_nodes(nodes: NodeAuthorizer) -> None:
    for user in (User("system:node:worker-1"), User("alice", ("system:nodes",))):
        assert not nodes.decide(Attributes(user, "list", resource="services")).allowed


def test_a_pod_refers_to_each_object_once_per_use() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"volumes": [{"name": "s", "ephemeral": {}}]}}
    assert list(pod_references(pod)) == []
    pod["spec"]["volumes"][0]["ephemeral"] = {"volumeClaimTemplate": {}}  # type: ignore[index]
    assert [reference.name for reference in pod_references(pod)] == ["p-s"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApiServer]:
    tokens = Path(tmp_path_factory.mktemp("tokens"), "tokens.csv")
    lines = ['alice,alice,u1,"devs,ops"', "bob,bob,u2", "admin,root,u3,system:masters", "viewer,viewer,u4"]
    tokens.write_text("\n".join(lines))
    with RunningApiServer("--token-auth-file", str(tokens)) as running:
        for name, user in (("view", "viewer"), ("edit", "alice")):
            # Without controllers nobody aggregates the rules of view and edit.
            body = {
                "roleRef": {"kind": "ClusterRole", "name": f"system:aggregate-to-{name}"},
                "subjects": to("User", user),
            }
            metadata = {"name": f"{user}-{name}"}
            send(running, "admin", "POST", f"{RBAC}/namespaces/default/rolebindings", body | {"metadata": metadata})
        yield running


def send(server: RunningApiServer, token: str, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
    async def act() -> bytes:
        ca = server.authority.certificate.read_bytes()
        async with Client(Credentials(server=server.url, ca=ca, token=token)) as client:
            return await client.request(method, path, body=body, headers=headers)

    raw = asyncio.run(act())
    return orjson.loads(raw) if raw.startswith(b"{") else raw


def refused(
    server: RunningApiServer, token: str, method: str, path: str, body: Any = None, headers: Any = None
) -> ApiError:
    with pytest.raises(ApiError) as error:
        send(server, token, method, path, body, headers)
    return error.value


@pytest.mark.parametrize(
    ("token", "method", "path", "message"),
    [
        pytest.param(
            "",
            "GET",
            "/api/v1/namespaces/default/pods",
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace '
            '"default"',
            id="nobody",
        ),
        pytest.param("", "GET", "/api", 'forbidden: User "system:anonymous" cannot get path "/api"', id="a path"),
        pytest.param(
            "bob",
            "GET",
            "/api/v1/nodes/x",
            'nodes "x" is forbidden: User "bob" cannot get resource "nodes" in API group "" at the cluster scope',
            id="one object of the cluster",
        ),
        pytest.param(
            "bob",
            "DELETE",
            "/apis/apps/v1/namespaces/x/deployments/y",
            'deployments.apps "y" is forbidden: User "bob" cannot delete resource "deployments" in API group "apps" in '
            'the namespace "x"',
            id="one object of a group",
        ),
        pytest.param(
            "bob",
            "POST",
            "/api/v1/namespaces/x/pods/y/exec",
            'pods "y" is forbidden: User "bob" cannot create resource "pods/exec" in API group "" in the namespace "x"',
            id="a subresource",
        ),
        pytest.param(
            "bob",
            "GET",
            "/api/v1/namespaces/x",
            'namespaces "x" is forbidden: User "bob" cannot get resource "namespaces" in API group "" in the namespace '
            '"x"',
            id="a Namespace is in itself",
        ),
        pytest.param(
            "bob",
            "GET",
            "/apis/none.example/v1/things",
            'things.none.example is forbidden: User "bob" cannot list resource "things" in API group "none.example" at '
            "the cluster scope",
            id="a kind that is not served",
        ),
        pytest.param("bob", "GET", "/logs/%3Cx%3E", 'forbidden: User "bob" cannot get path "/logs/&lt;x&gt;"', id="markup"),
    ],
)  # fmt: skip
def test_a_refusal_says_who_cannot_do_what(
    server: RunningApiServer, token: str, method: str, path: str, message: str
) -> None:
    error = refused(server, token, method, path)
    assert (error.status, error.reason, error.message) == (403, "Forbidden", message)


def test_wrong_credentials_are_not_nobodys(server: RunningApiServer) -> None:
    assert refused(server, "wrong", "GET", "/version").status == 401


@pytest.mark.parametrize(
    ("headers", "name", "groups"),
    [
        pytest.param({"Impersonate-User": "carol"}, "carol", ["system:authenticated"], id="a user"),
        pytest.param(
            {"Impersonate-User": "carol", "Impersonate-Group": "devs"},
            "carol",
            ["devs", "system:authenticated"],
            id="a group",
        ),
        pytest.param(
            {"Impersonate-User": "system:serviceaccount:x:y"},
            "system:serviceaccount:x:y",
            ["system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated"],
            id="an account",
        ),
        pytest.param(
            {"Impersonate-User": "system:anonymous"}, "system:anonymous", ["system:unauthenticated"], id="nobody"
        ),
    ],
)
def test_an_administrator_may_act_as_others(
    server: RunningApiServer, headers: dict[str, str], name: str, groups: list[str]
) -> None:
    spec = {"resourceAttributes": {"verb": "list", "resource": "nodes"}}
    if "unauthenticated" in str(groups):
        error = refused(server, "admin", "POST", f"{ACCESS}/selfsubjectaccessreviews", {"spec": spec}, headers)
        assert error.message.startswith('selfsubjectaccessreviews.authorization.k8s.io is forbidden: User "system:anon')
        return
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    info = send(server, "admin", "POST", path, {}, headers)["status"]["userInfo"]
    assert (info["username"], info["groups"]) == (name, groups)


def test_uid_and_extra_are_taken_too(server: RunningApiServer) -> None:
    headers = {"Impersonate-User": "carol", "Impersonate-Uid": "7", "Impersonate-Extra-Example.com%2Fscope": "all"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    info = send(server, "admin", "POST", path, {}, headers)["status"]["userInfo"]
    assert (info["uid"], info["extra"]) == ("7", {"example.com/scope": ["all"]})


@pytest.mark.parametrize(
    ("headers", "code", "message"),
    [
        (
            {"Impersonate-User": "carol"},
            403,
            'users "carol" is forbidden: User "alice" cannot impersonate resource "users" in API group "" at the cluster '
            "scope",
        ),
        (
            {"Impersonate-User": "system:serviceaccount:kube-system:x"},
            403,
            'serviceaccounts "x" is forbidden: User "alice" cannot impersonate resource "serviceaccounts" in API group "" '
            'in the namespace "kube-system"',
        ),
        ({"Impersonate-Group": "devs"}, 400, None),
    ],
    ids=["a user", "an account of another namespace", "a group without a user"],
)
def test_others_may_not(server: RunningApiServer, headers: dict[str, str], code: int, message: str | None) -> None:
    error = refused(server, "alice", "GET", "/api/v1/namespaces/default/pods", None, headers)
    assert error.status == code
    assert message is None or error.message == message


def test_who_may_act_as_an_account_gets_its_rights(server: RunningApiServer) -> None:
    headers = {"Impersonate-User": "system:serviceaccount:default:x"}
    error = refused(server, "alice", "GET", "/api/v1/namespaces/default/pods", None, headers)
    assert error.message.startswith('pods is forbidden: User "system:serviceaccount:default:x" cannot list')


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        pytest.param(
            {"user": "viewer", "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}},
            {
                "allowed": True,
                "reason": 'RBAC: allowed by RoleBinding "viewer-view/default" of ClusterRole "system:aggregate-to-view" to User "viewer"',
            },
            id="allowed",
        ),
        pytest.param(
            {"user": "viewer", "resourceAttributes": {"verb": "list", "resource": "secrets", "namespace": "default"}},
            {"allowed": False},
            id="refused",
        ),
        pytest.param(
            {"user": "x", "groups": ["system:masters"], "resourceAttributes": {"verb": "delete", "resource": "nodes"}},
            {"allowed": True},
            id="system:masters",
        ),
        pytest.param(
            {"user": "x", "groups": ["system:authenticated"], "nonResourceAttributes": {"verb": "get", "path": "/api"}},
            {
                "allowed": True,
                "reason": 'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to '
                'Group "system:authenticated"',
            },
            id="a path",
        ),
        pytest.param(
            {
                "user": "system:node:n",
                "groups": ["system:nodes"],
                "resourceAttributes": {"verb": "list", "resource": "nodes"},
            },
            {"allowed": False, "reason": "node 'n' cannot read all nodes, only its own Node object"},
            id="a node",
        ),
    ],
)
def test_a_review_tells_the_decision(server: RunningApiServer, spec: KubeObject, status: KubeObject) -> None:
    assert send(server, "admin", "POST", f"{ACCESS}/subjectaccessreviews", {"spec": spec})["status"] == status


def test_a_local_review_is_about_its_namespace(server: RunningApiServer) -> None:
    spec = {"user": "bob", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "other"}}
    path = f"{ACCESS}/namespaces/default/localsubjectaccessreviews"
    error = refused(server, "admin", "POST", path, {"spec": spec})
    assert (error.status, error.message) == (
        400,
        "spec.resourceAttributes.namespace must match namespace: default",
    )


def test_rules_of_oneself(server: RunningApiServer) -> None:
    review = {"spec": {"namespace": "default"}}
    status = send(server, "bob", "POST", f"{ACCESS}/selfsubjectrulesreviews", review)["status"]
    resources = [rule["resources"] for rule in status["resourceRules"]]
    assert resources == [["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["selfsubjectreviews"]]
    assert status["incomplete"] is False
    error = refused(server, "bob", "POST", f"{ACCESS}/selfsubjectrulesreviews", {"spec": {}})
    assert error.message == "no namespace on request"


Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


def test_kubectl_tells_what_a_user_may_do(server: RunningApiServer, kubectl: Kubectl) -> None:
    as_bob = ("--as", "bob")
    assert kubectl("auth", "can-i", "create", "pods").stdout == "yes\n"
    assert kubectl("auth", "can-i", "create", "pods", *as_bob).stdout == "no\n"
    listed = kubectl("auth", "can-i", "--list", *as_bob).stdout
    assert "selfsubjectreviews.authentication.k8s.io" in listed
    assert "pods" not in listed
    refusal = kubectl("get", "pods", *as_bob)
    assert refusal.returncode == 1
    assert refusal.stderr.startswith('Error from server (Forbidden): pods is forbidden: User "bob" cannot list')


def test_bootstrap_stores_what_a_request_would(server: RunningApiServer) -> None:
    """bootstrappolicy writes past admission, defaults and validation."""
    for obj in bootstrappolicy.objects():
        metadata = obj["metadata"]
        place = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
        path = f"{RBAC}/{place}{obj['kind'].lower()}s"
        stored = send(server, "admin", "GET", f"{path}/{metadata['name']}")
        sent = {"metadata": metadata | {"name": f"{metadata['name']}-copy"}} | {
            key: value for key, value in obj.items() if key != "metadata"
        }
        would = send(server, "admin", "POST", f"{path}?dryRun=All", sent)
        for one in (stored, would):
            for key in ("uid", "creationTimestamp", "resourceVersion", "name"):
                one["metadata"].pop(key, None)
        assert stored == would


def test_a_restart_repairs_the_roles_but_not_protected_ones(store: Store) -> None:
    bootstrappolicy.reconcile(store)
    revision = store.revision
    bootstrappolicy.reconcile(store)
    assert store.revision == revision
    proxier, heapster, basic = (
        Key(f"{kind}.{GROUP}", "", f"system:{name}")
        for kind, name in (
            ("clusterroles", "node-proxier"),
            ("clusterroles", "heapster"),
            ("clusterrolebindings", "basic-user"),
        )
    )
    for key in (proxier, heapster):
        stored = store.get(key)
        assert stored is not None
        changed = stored.copy() | {"rules": []}
        if key == heapster:
            changed["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false"
        store.update(key, changed, stored.revision)
    binding = store.get(basic)
    assert binding is not None
    store.delete(basic, binding.copy(), binding.revision)
    bootstrappolicy.reconcile(store)
    rules_of = {key.name: stored.obj.get("rules") for key in (proxier, heapster) if (stored := store.get(key))}
    assert rules_of["system:node-proxier"]
    assert rules_of["system:heapster"] == []
    assert store.get(basic) is not None


def test_modes_are_asked_in_their_order(store: Store) -> None:
    asked = Attributes(NODE, "list", resource="nodes")
    put(store, "ClusterRole", "r", rules=role("list", "nodes"))
    put(store, "ClusterRoleBinding", "b", roleRef={"kind": "ClusterRole", "name": "r"}, subjects=to("User", NODE.name))
    assert modes.authorizers(("Node", "RBAC"), store).decide(asked).allowed
    assert not modes.authorizers(("Node",), store).decide(asked).allowed
    assert modes.authorizers(("AlwaysAllow",), store).decide(Attributes(ALICE, "x", path="/")).allowed
    assert not modes.authorizers(("AlwaysDeny",), store).decide(asked).allowed


SIGNING = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def may_write_requests_and(server: RunningApiServer, user: str, verb: str, signer: str) -> None:
    """Gives a user the subresources of requests, and a verb on a signer."""
    parts = ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]
    group = ["certificates.k8s.io"]
    rules = [
        {"apiGroups": group, "resources": parts, "verbs": ["get", "patch", "update"]},
        {"apiGroups": group, "resources": ["signers"], "resourceNames": [signer], "verbs": [verb]},
    ]
    name = f"{user}-signs"
    send(server, "admin", "POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    body = {"roleRef": {"kind": "ClusterRole", "name": name}, "subjects": to("User", user)}
    send(server, "admin", "POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": name}, **body})


def test_who_may_write_an_approval_needs_the_right_to_the_signer_too(server: RunningApiServer) -> None:
    for name, signer in (("ours", "example.com/ours"), ("theirs", "kubernetes.io/kube-apiserver-client")):
        send(server, "admin", "POST", SIGNING, request(name, signerName=signer))
    may_write_requests_and(server, "bob", "approve", "example.com/*")
    may_write_requests_and(server, "viewer", "sign", "example.com/ours")
    patch = {"Content-Type": "application/merge-patch+json"}
    approval = {"status": {"conditions": [condition("Approved")]}}
    error = refused(server, "bob", "PATCH", f"{SIGNING}/theirs/approval", approval, patch)
    assert error.status == 403 and str(error).endswith(
        'user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"'
    )
    refused(server, "viewer", "PATCH", f"{SIGNING}/ours/approval", approval, patch)
    send(server, "bob", "PATCH", f"{SIGNING}/ours/approval", approval, patch)
    signed = {"status": {"certificate": "eA=="}}
    error = refused(server, "bob", "PATCH", f"{SIGNING}/ours/status", signed, patch)
    assert str(error).endswith('user not permitted to sign requests with signerName "example.com/ours"')
    labelled = {"metadata": {"labels": {"a": "b"}}}
    send(server, "bob", "PATCH", f"{SIGNING}/ours/status", labelled, patch)
    send(server, "viewer", "PATCH", f"{SIGNING}/ours/status", signed, patch)
