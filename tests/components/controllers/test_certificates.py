"""What the signers issue and refuse, and when requests are removed."""

from __future__ import annotations

import base64
import ipaddress
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from kubewire.components.controllers.actions import Update
from kubewire.components.controllers.certificates import (
    Authority,
    approvals,
    plan_approval,
    plan_cleaning,
    plan_signing,
    review,
)
from tests.components.controllers.objects import NOW, at, stamp

NODE = "system:node:worker-1"
SERVING = {"signer": "kubernetes.io/kubelet-serving", "usages": ["digital signature", "server auth"]}
KUBELET = {"signer": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["digital signature", "client auth"]}


def subject(name: str, organization: str) -> x509.Name:
    pairs = [(x509.NameOID.ORGANIZATION_NAME, organization), (x509.NameOID.COMMON_NAME, name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


@pytest.fixture(scope="module")
def authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = subject("kubernetes", "test")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=3650))
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Authority(certificate.public_bytes(pem), private)


def request(name: str = "jane", organization: str = "team", **given: Any) -> Any:
    """signer, usages, address (an IP subjectAltName), approved, user, seconds."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(name, organization))
    if "address" in given:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(given["address"]))])
        builder = builder.add_extension(names, critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    spec = {
        "request": base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": given.get("signer", "kubernetes.io/kube-apiserver-client"),
        "usages": given.get("usages", ["client auth"]),
        "username": given.get("user", name),
    }
    if "seconds" in given:
        spec["expirationSeconds"] = given["seconds"]
    approval = {"type": given.get("approved", "Approved"), "status": "True", "lastUpdateTime": stamp()}
    metadata = {"name": "r", "uid": "u", "resourceVersion": "1", "creationTimestamp": stamp()}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": [approval]}}


def status(asked: Any, authority: Authority) -> Any:
    actions = plan_signing(asked, authority.sign, NOW)
    return actions[0].obj["status"] if actions and isinstance(actions[0], Update) else None


def issued(asked: Any, authority: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(status(asked, authority)["certificate"]))


def test_a_client_gets_what_it_asked_for(authority: Authority) -> None:
    found = issued(request(seconds=600), authority)
    assert found.subject == subject("jane", "team")
    assert found.not_valid_after_utc == at(600)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))


def test_a_kubelet_gets_its_addresses(authority: Authority) -> None:
    found = issued(request(NODE, "system:nodes", address="172.18.0.3", **SERVING), authority)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("172.18.0.3")]
    assert issued(request(NODE, "system:nodes", **KUBELET), authority).subject == subject(NODE, "system:nodes")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(usages=["server auth"]), "usages did not match"),
        (request(NODE, "team", **KUBELET), "subject organization is not system:nodes"),
        (request("jane", "system:nodes", **KUBELET), "subject common name does not begin with system:node:"),
        (request(NODE, "system:nodes", address="10.0.0.1", **KUBELET), "subject alternative names are not allowed"),
        (request(NODE, "system:nodes", **SERVING), "DNS or IP subjectAltName is required"),
        (
            request(NODE, "system:nodes", address="10.0.0.1", user="system:node:other", **SERVING),
            "subject common name is not the user who asks",
        ),
    ],
    ids=["usages", "organization", "name", "a client has no addresses", "a server has", "another node"],
)
def test_what_a_signer_refuses(asked: Any, message: str, authority: Authority) -> None:
    failed = status(asked, authority)["conditions"][-1]
    assert (failed["type"], failed["reason"]) == ("Failed", "SignerValidationFailure")
    assert message in failed["message"]


@pytest.mark.parametrize(
    "asked",
    [request(approved="Denied"), request(approved="Other"), request(signer="example.com/signer")],
    ids=["denied", "pending", "another signer's"],
)
def test_what_is_left_alone(asked: Any, authority: Authority) -> None:
    assert plan_signing(asked, authority.sign, NOW) == ()


@pytest.mark.parametrize(
    ("decided", "seconds", "gone"),
    [(True, 3599, False), (True, 3600, True), (False, 86399, False), (False, 86400, True)],
)
def test_old_requests_are_removed(decided: bool, seconds: int, gone: bool) -> None:
    asked = request()
    if not decided:
        asked["status"] = {}
    assert bool(plan_cleaning(asked, at(seconds))) == gone


@pytest.mark.parametrize(
    ("asked", "subresources"),
    [
        pytest.param(
            request(NODE, "system:nodes", approved="Other", **KUBELET),
            ["selfnodeclient", "nodeclient"],
            id="a node renews",
        ),
        pytest.param(
            request(NODE, "system:nodes", approved="Other", user="joiner", **KUBELET), ["nodeclient"], id="a node joins"
        ),
        pytest.param(request(NODE, "system:nodes", **KUBELET), [], id="approved already"),
        pytest.param(request(NODE, "system:nodes", approved="Denied", **KUBELET), [], id="denied already"),
        pytest.param(request(NODE, "team", approved="Other", **KUBELET), [], id="not a node's subject"),
        pytest.param(
            request(NODE, "system:nodes", approved="Other", address="10.0.0.1", **SERVING),
            [],
            id="serving certificates",
        ),
        pytest.param(request(approved="Other"), [], id="another client"),
    ],
)
def test_which_requests_are_approved_when_the_user_may_ask(asked: Any, subresources: list[str]) -> None:
    assert [name for name, _ in approvals(asked)] == subresources


def test_an_approval_says_why_and_whom_was_asked_about() -> None:
    asked = request(NODE, "system:nodes", approved="Other", **KUBELET)
    asked["status"] = {}
    asked["spec"] |= {"groups": ["system:nodes"], "extra": {"a": ["b"]}}
    (subresource, message), _ = approvals(asked)
    spec = review(asked, subresource)["spec"]
    assert (spec["user"], spec["groups"], spec["extra"]) == (NODE, ["system:nodes"], {"a": ["b"]})
    assert spec["resourceAttributes"]["subresource"] == "selfnodeclient"
    (update,) = plan_approval(asked, message)
    assert isinstance(update, Update) and update.subresource == "approval"
    (condition,) = update.obj["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("Approved", "AutoApproved")
    assert condition["message"] == "Auto approving self kubelet client certificate after SubjectAccessReview."
