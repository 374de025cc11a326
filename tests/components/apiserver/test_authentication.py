"""Who may talk to the server, and as whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.components.kubeapi.resources import NAMESPACES, NODES, PODS, SERVICEACCOUNTS, KubeObject
from tests.components.apiserver.running import RunningApiServer

AUTHENTICATION = "/apis/authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApiServer]:
    tokens = Path(tmp_path_factory.mktemp("tokens"), "tokens.csv")
    tokens.write_text('sesame,alice,u1,"devs,ops"\n')
    with RunningApiServer("--token-auth-file", str(tokens)) as running:
        yield running


def call(server: RunningApiServer, token: str, method: str, path: str, body: Any = None) -> Any:
    """As the bearer of a token; "" is nobody."""

    async def act() -> bytes:
        ca = server.authority.certificate.read_bytes()
        async with Client(Credentials(server=server.url, ca=ca, token=token)) as client:
            return await client.request(method, path, body=body)

    raw = asyncio.run(act())
    return orjson.loads(raw) if raw.startswith(b"{") else raw


def admin(server: RunningApiServer, method: str, path: str, body: Any = None) -> Any:
    async def act() -> bytes:
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            return await client.request(method, path, body=body)

    return orjson.loads(asyncio.run(act()))


def whoami(server: RunningApiServer, token: str) -> KubeObject:
    answer: KubeObject = call(server, token, "POST", f"{AUTHENTICATION}/selfsubjectreviews", {})
    return answer["status"]["userInfo"]


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version"])
def test_health_and_version_are_open_to_all(server: RunningApiServer, path: str) -> None:
    assert call(server, "", "GET", path)


@pytest.mark.parametrize(
    ("path", "token"), [("/api/v1/pods", "wrong"), ("/version", "wrong")], ids=["a resource", "what is open to all"]
)
def test_wrong_credentials_are_refused(server: RunningApiServer, path: str, token: str) -> None:
    with pytest.raises(ApiError) as error:
        call(server, token, "GET", path)
    assert (error.value.status, error.value.reason, error.value.message) == (401, "Unauthorized", "Unauthorized")


def test_a_certificate_names_user_and_groups(server: RunningApiServer) -> None:
    answer = admin(server, "POST", f"{AUTHENTICATION}/selfsubjectreviews", {})
    assert answer["status"]["userInfo"] == {
        "username": "kubernetes-admin",
        "groups": ["system:masters", "system:authenticated"],
    }


def test_a_static_token_names_user_and_groups(server: RunningApiServer) -> None:
    info = whoami(server, "sesame")
    assert info == {"username": "alice", "groups": ["devs", "ops", "system:authenticated"], "uid": "u1"}


def token_for(server: RunningApiServer, account: str, **spec: Any) -> KubeObject:
    path = f"/api/v1/namespaces/default/serviceaccounts/{account}/token"
    answer: KubeObject = admin(server, "POST", path, {"spec": spec})
    return answer


def test_a_service_account_token_works_until_its_account_or_pod_is_gone(server: RunningApiServer) -> None:
    accounts, pods = SERVICEACCOUNTS.path("default"), PODS.path("default")
    made = admin(server, "POST", accounts, {"metadata": {"name": "robot"}})
    spec = {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}
    pod = admin(server, "POST", pods, {"metadata": {"name": "bearer"}, "spec": spec})
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "bearer", "uid": pod["metadata"]["uid"]}
    answer = token_for(server, "robot", expirationSeconds=600, boundObjectRef=reference)
    assert answer["kind"] == "TokenRequest"
    assert answer["status"]["expirationTimestamp"].endswith("Z")
    token = answer["status"]["token"]
    info = whoami(server, token)
    assert info["username"] == "system:serviceaccount:default:robot"
    assert info["uid"] == made["metadata"]["uid"]
    assert info["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["bearer"]
    assert "authentication.kubernetes.io/node-name" not in info["extra"]
    unbound = token_for(server, "robot")["status"]["token"]
    admin(server, "DELETE", f"{pods}/bearer")
    with pytest.raises(ApiError):
        whoami(server, token)
    assert whoami(server, unbound)["username"] == "system:serviceaccount:default:robot"
    admin(server, "DELETE", f"{accounts}/robot")
    with pytest.raises(ApiError):
        whoami(server, unbound)


def test_a_token_of_a_pod_on_a_node_names_the_node(server: RunningApiServer) -> None:
    node = admin(server, "POST", NODES.path(""), {"metadata": {"name": "token-node"}})
    admin(server, "POST", SERVICEACCOUNTS.path("default"), {"metadata": {"name": "noder"}})
    spec = {"serviceAccountName": "noder", "nodeName": "token-node", "containers": [{"name": "c", "image": "i"}]}
    pod = admin(server, "POST", PODS.path("default"), {"metadata": {"name": "placed"}, "spec": spec})
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "placed", "uid": pod["metadata"]["uid"]}
    extra = whoami(server, token_for(server, "noder", boundObjectRef=reference)["status"]["token"])["extra"]
    assert extra["authentication.kubernetes.io/node-name"] == ["token-node"]
    assert extra["authentication.kubernetes.io/node-uid"] == [node["metadata"]["uid"]]


@pytest.mark.parametrize(
    ("path", "spec", "message"),
    [
        ("authentication.k8s.io/v1/tokenreviews", {}, "token is required for TokenReview in authentication"),
        (
            "authorization.k8s.io/v1/subjectaccessreviews",
            {"user": "bob"},
            'SubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: '
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (
            "authorization.k8s.io/v1/subjectaccessreviews",
            {"nonResourceAttributes": {"path": "/healthz", "verb": "get"}},
            'SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of '
            "user or group must be specified",
        ),
    ],
    ids=["no token", "nothing asked for", "nobody asked about"],
)
def test_a_review_without_a_question_is_refused(
    server: RunningApiServer, path: str, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiError) as error:
        admin(server, "POST", f"/apis/{path}", {"spec": spec})
    assert error.value.message == message


def test_a_token_for_another_audience_is_not_for_the_server(server: RunningApiServer) -> None:
    admin(server, "POST", SERVICEACCOUNTS.path("default"), {"metadata": {"name": "vault"}})
    token = token_for(server, "vault", audiences=["vault"])["status"]["token"]
    with pytest.raises(ApiError):
        whoami(server, token)
    review = {"spec": {"token": token, "audiences": ["vault"]}}
    answer = admin(server, "POST", f"{AUTHENTICATION}/tokenreviews", review)
    assert answer["status"]["authenticated"]
    assert answer["status"]["audiences"] == ["vault"]
    assert (
        "authenticated"
        not in admin(server, "POST", f"{AUTHENTICATION}/tokenreviews", {"spec": {"token": "x"}})["status"]
    )


def test_a_token_that_was_changed_is_refused(server: RunningApiServer) -> None:
    admin(server, "POST", SERVICEACCOUNTS.path("default"), {"metadata": {"name": "forged"}})
    head, payload, signature = token_for(server, "forged")["status"]["token"].split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(ApiError):
        whoami(server, f"{head}.{payload}.{flipped}")


@pytest.mark.parametrize(("seconds", "text"), [(599, "may not specify a duration less than 10 minutes")])
def test_short_tokens_are_refused(server: RunningApiServer, seconds: int, text: str) -> None:
    admin(server, "POST", SERVICEACCOUNTS.path("kube-public"), {"metadata": {"name": "brief"}})
    with pytest.raises(ApiError) as error:
        admin(server, "POST", "/api/v1/namespaces/kube-public/serviceaccounts/brief/token", {
            "spec": {"expirationSeconds": seconds}})  # fmt: skip
    assert error.value.message.endswith(f"spec.expirationSeconds: Invalid value: {seconds}: {text}")


def test_the_issuer_publishes_its_keys(server: RunningApiServer) -> None:
    admin(server, "POST", SERVICEACCOUNTS.path("default"), {"metadata": {"name": "verifier"}})
    token = token_for(server, "verifier")["status"]["token"]
    assert [key["kty"] for key in call(server, token, "GET", "/openid/v1/jwks")["keys"]] == ["EC"]
    assert call(server, token, "GET", "/.well-known/openid-configuration")["issuer"].startswith("https://")


def test_without_authorization_everyone_may_do_everything_but_nobody(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("sesame,alice,u1")
    with RunningApiServer("--token-auth-file", str(tokens), "--authorization-mode", "AlwaysAllow") as server:
        path = "/apis/authorization.k8s.io/v1"
        attributes = {"verb": "delete", "resource": "nodes"}
        asked = {"spec": {"user": "bob", "resourceAttributes": attributes}}
        answer = call(server, "sesame", "POST", f"{path}/subjectaccessreviews", asked)
        assert answer["status"] == {"allowed": True}
        rules = call(server, "sesame", "POST", f"{path}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
        assert rules["status"]["resourceRules"] == [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        assert call(server, "sesame", "GET", NAMESPACES.path())["kind"] == "NamespaceList"
        with pytest.raises(ApiError) as error:
            call(server, "", "GET", "/healthz")
        assert error.value.status == 401
