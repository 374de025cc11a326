"""CertificateSigningRequests: who asks is written by the server, and approval is a part of its own."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kubewire.components.apiserver.kinds.cluster.apiservice import APISERVICES
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CERTIFICATESIGNINGREQUESTS, CONFIGMAPS, Resource
from tests.components.apiserver.conftest import Run

SIGNER = "kubernetes.io/kube-apiserver-client"


def request(name: str, organization: str = "team", **spec: Any) -> Any:
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
        ]
    )
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoded = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    body = {"request": encoded, "signerName": SIGNER, "usages": ["client auth"], **spec}
    return {"metadata": {"name": name}, "spec": body}


def condition(kind: str) -> Any:
    return {"type": kind, "status": "True", "reason": "Test", "message": "by a test"}


def test_the_server_says_who_asks(run: Run) -> None:
    made = run(lambda client: client.create(CERTIFICATESIGNINGREQUESTS, request("a", username="somebody else")))
    assert made["spec"]["username"] == "kubernetes-admin"
    assert "system:authenticated" in made["spec"]["groups"]
    assert not made.get("status")


def test_only_approval_approves_and_only_the_status_has_a_certificate(run: Run) -> None:
    async def act(client: Client) -> list[Any]:
        await client.create(CERTIFICATESIGNINGREQUESTS, request("b"))
        seen = []
        for subresource in ("status", "approval"):
            status = {"conditions": [condition("Approved")], "certificate": "eA=="}
            patch = {"status": status}
            seen.append(await client.patch(CERTIFICATESIGNINGREQUESTS, "b", patch, subresource=subresource))
        return seen

    by_status, by_approval = run(act)
    assert "conditions" not in by_status["status"]
    assert by_status["status"]["certificate"] == "eA=="
    (approved,) = by_approval["status"]["conditions"]
    assert approved["type"] == "Approved" and approved["lastTransitionTime"] and approved["lastUpdateTime"]


def test_a_request_is_not_approved_and_denied_and_keeps_its_answer(run: Run) -> None:
    async def act(client: Client, kinds: list[str]) -> Any:
        patch = {"status": {"conditions": [condition(kind) for kind in kinds]}}
        return await client.patch(CERTIFICATESIGNINGREQUESTS, "c", patch, subresource="approval")

    run(lambda client: client.create(CERTIFICATESIGNINGREQUESTS, request("c")))
    with pytest.raises(ApiError, match="Approved and Denied conditions are mutually exclusive"):
        run(lambda client: act(client, ["Approved", "Denied"]))
    run(lambda client: act(client, ["Denied"]))
    with pytest.raises(ApiError, match='updates may not remove a condition of type "Denied"'):
        run(lambda client: act(client, []))


def test_nobody_gets_a_certificate_of_the_masters(run: Run) -> None:
    with pytest.raises(ApiError, match="signer with system:masters group is not allowed"):
        run(lambda client: client.create(CERTIFICATESIGNINGREQUESTS, request("d", "system:masters")))


FLOWSCHEMAS: Resource[Any] = Resource("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "FlowSchema", False)


def test_the_objects_that_every_server_has(run: Run) -> None:
    async def act(client: Client) -> Any:
        schemas = await client.list(FLOWSCHEMAS)
        trust = await client.get(CONFIGMAPS, "extension-apiserver-authentication", "kube-system")
        return (
            schemas.items,
            trust,
            [await client.get(APISERVICES, name) for name in ("v1.", "v1.apps", "v2.autoscaling")],
        )

    schemas, trust, services = run(act)
    assert [item["status"]["conditions"][0]["reason"] for item in services] == ["Local"] * 3
    assert sorted(item["metadata"]["name"] for item in schemas) == ["catch-all", "exempt"]
    assert trust["data"]["client-ca-file"].startswith("-----BEGIN CERTIFICATE-----")
