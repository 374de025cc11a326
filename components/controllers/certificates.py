"""Approves kubelets' requests for client certificates, signs approved requests of the API server's
own signers, and removes old ones (pkg/controller/certificates).

A kubelet's request is approved when who asks may create the virtual subresource nodeclient, or
selfnodeclient if it asks for the certificate that it has already.

A signer issues only what its name promises: kubelet certificates have the node's name and group,
and usages that fit (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Delete, Update
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, condition, created_at, format_time, parse_time
from kubewire.components.kubeapi.resources import (
    CERTIFICATESIGNINGREQUESTS,
    KubeObject,
    Resource,
)

if TYPE_CHECKING:
    from cryptography import x509

    from kubewire.components.kubeapi.types import CertificateSigningRequest

log = logging.getLogger(__name__)
_NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
_CLIENT = "kubernetes.io/kube-apiserver-client"
_KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_KUBELET_SERVING = "kubernetes.io/kubelet-serving"
_SELF = (
    "selfnodeclient",
    "Auto approving self kubelet client certificate after SubjectAccessReview.",
)
_NODE = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
_BASE_USAGES = {"digital signature", "key encipherment"}
#: --cluster-signing-duration.
_LIFE = timedelta(days=365)
#: Tolerance for clocks that are late.
_BACKDATE = timedelta(minutes=5)
#: How long requests are kept: pending ones, and decided or signed ones.
_PENDING_LIFE = timedelta(hours=24)
_DECIDED_LIFE = timedelta(hours=1)

_REVIEWS: Resource[KubeObject] = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)

#: Seconds between two looks at a request.
_SWEEP = 3600.0


class Refusal(Exception):
    """The signer does not issue what is asked for; the message is for the condition Failed."""


def is_approved(request: CertificateSigningRequest) -> bool:
    status = request.get("status")
    return condition(status, "Approved") is not None and condition(status, "Denied") is None


def check(request: CertificateSigningRequest, parsed: x509.CertificateSigningRequest) -> None:
    """Raises Refusal when the request does not fit its signer."""

    spec = request["spec"]
    usages = set(spec.get("usages") or ())
    signer = spec["signerName"]
    if signer == _CLIENT:
        if "client auth" not in usages or not usages <= _BASE_USAGES | {"client auth"}:
            raise Refusal("usages did not match [client auth] and those of a signature")
        return
    _check_kubelet(signer, usages, parsed)
    if signer == _KUBELET_SERVING and _common_name(parsed) != spec.get("username"):
        raise Refusal("subject common name is not the user who asks")


def _check_kubelet(signer: str, usages: set[str], parsed: x509.CertificateSigningRequest) -> None:
    """Raises Refusal when the request does not fit a signer of kubelets, whoever asks."""
    from cryptography import x509

    name = _attribute(parsed, x509.NameOID.COMMON_NAME)
    if _attribute(parsed, x509.NameOID.ORGANIZATION_NAME) != [_NODES]:
        raise Refusal(f"subject organization is not {_NODES}")
    if len(name) != 1 or not name[0].startswith(_NODE_PREFIX):
        raise Refusal(f"subject common name does not begin with {_NODE_PREFIX}")
    alternatives = _alternatives(parsed)
    if signer == _KUBELET_CLIENT:
        if alternatives:
            raise Refusal("subject alternative names are not allowed")
        needed = "client auth"
    else:
        if not alternatives:
            raise Refusal("DNS or IP subjectAltName is required")
        needed = "server auth"
    if not {"digital signature", needed} <= usages <= _BASE_USAGES | {needed}:
        raise Refusal(f"usages did not match digital signature and {needed}")


def _common_name(parsed: x509.CertificateSigningRequest) -> str:
    from cryptography import x509

    return next(iter(_attribute(parsed, x509.NameOID.COMMON_NAME)), "")


def _attribute(parsed: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(item.value) for item in parsed.subject.get_attributes_for_oid(oid)]


def _alternatives(parsed: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    from cryptography import x509

    try:
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(found.value)


@dataclass(frozen=True)
class Authority:
    """The certificate and the private key with which certificates are signed, in PEM."""

    certificate: bytes
    key: bytes

    def sign(self, request: CertificateSigningRequest, now: datetime) -> bytes:
        """The certificate in PEM; raises Refusal."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        parsed = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
        if not parsed.is_signature_valid:
            raise Refusal("the signature of the request is not valid")
        check(request, parsed)
        issuer = x509.load_pem_x509_certificate(self.certificate)
        key: Any = serialization.load_pem_private_key(self.key, None)
        asked = request["spec"].get("expirationSeconds")
        life = _LIFE if asked is None else min(timedelta(seconds=int(asked)), _LIFE)
        builder = (
            x509.CertificateBuilder()
            .subject_name(parsed.subject)
            .issuer_name(issuer.subject)
            .public_key(parsed.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(min(now + life, issuer.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        usages = set(request["spec"].get("usages") or ())
        builder = builder.add_extension(_key_usage(usages), critical=True)
        builder = builder.add_extension(_extended_usage(usages), critical=False)
        if names := _alternatives(parsed):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def _key_usage(usages: set[str]) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature="digital signature" in usages,
        key_encipherment="key encipherment" in usages,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _extended_usage(usages: set[str]) -> x509.ExtendedKeyUsage:
    from cryptography.x509 import ExtendedKeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    known = {
        "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
        "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    }
    return ExtendedKeyUsage([oid for usage, oid in known.items() if usage in usages])


def approvals(request: CertificateSigningRequest) -> tuple[tuple[str, str], ...]:
    """The virtual subresources of which one has to be allowed, and the message for the condition;
    none for a request that is decided or no kubelet's. Raises ValueError if it cannot be read."""
    from cryptography import x509

    status = request.get("status") or {}
    decided = any(condition(status, kind) is not None for kind in ("Approved", "Denied"))
    if decided or status.get("certificate"):
        return ()
    spec = request["spec"]
    if spec["signerName"] != _KUBELET_CLIENT:
        return ()
    parsed = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    try:
        _check_kubelet(_KUBELET_CLIENT, set(spec.get("usages") or ()), parsed)
    except Refusal:
        return ()
    own = _common_name(parsed) == spec.get("username")
    return (*((_SELF,) if own else ()), _NODE)


def plan_approval(request: CertificateSigningRequest, message: str) -> tuple[Action, ...]:
    approved = {
        "type": "Approved",
        "status": "True",
        "reason": "AutoApproved",
        "message": message,
    }
    held = (request.get("status") or {}).get("conditions") or []
    return (_with(request, {"conditions": [*held, approved]}, "approval"),)


def review(request: CertificateSigningRequest, subresource: str) -> KubeObject:
    """Whether who made the request may create the virtual subresource."""
    spec = request["spec"]
    asked: Any = {
        "user": spec.get("username", ""),
        "uid": spec.get("uid", ""),
        "groups": list(spec.get("groups") or ()),
        "extra": dict(spec.get("extra") or {}),
        "resourceAttributes": {
            "group": "certificates.k8s.io",
            "resource": "certificatesigningrequests",
            "verb": "create",
            "subresource": subresource,
        },
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": asked,
    }


Sign = Callable[["CertificateSigningRequest", datetime], bytes]
_SIGNERS = frozenset({_CLIENT, _KUBELET_CLIENT, _KUBELET_SERVING})


def plan_signing(
    request: CertificateSigningRequest,
    sign: Sign,
    now: datetime,
) -> tuple[Action, ...]:
    status = request.get("status") or {}
    if request["spec"]["signerName"] not in _SIGNERS or not is_approved(request):
        return ()
    if status.get("certificate") or condition(status, "Failed") is not None:
        return ()
    try:
        signed = base64.b64encode(sign(request, now)).decode()
        fresh: dict[str, Any] = {"certificate": signed}
    except (Refusal, ValueError) as problem:
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": str(problem),
            "lastUpdateTime": format_time(now),
        }
        fresh = {"conditions": [*(status.get("conditions") or []), failed]}
    return (_with(request, fresh),)


def plan_cleaning(request: CertificateSigningRequest, now: datetime) -> tuple[Action, ...]:
    """Deletes a request that was pending for a day, or decided an hour ago."""
    conditions = (request.get("status") or {}).get("conditions") or []
    decided = [parse_time(item.get("lastUpdateTime")) for item in conditions]
    begin, life = (max(decided), _DECIDED_LIFE) if decided else (created_at(request), _PENDING_LIFE)
    if now - begin < life:
        return ()
    metadata = request["metadata"]
    return (Delete(CERTIFICATESIGNINGREQUESTS, "", metadata["name"], metadata["uid"]),)


def _with(
    request: CertificateSigningRequest, fresh: dict[str, Any], subresource: str = "status"
) -> Update:
    """An update and not a patch: the role of the controller allows no more."""
    status: Any = {**(request.get("status") or {}), **fresh}
    return Update(CERTIFICATESIGNINGREQUESTS, {**request, "status": status}, subresource)


class CertificateApprover(KeyedController):
    component = "certificate-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.follow(CERTIFICATESIGNINGREQUESTS, self.enqueue)

    async def sync(self, key: Key) -> None:
        request = self.requests.store.get(key)
        if request is None:
            return
        try:
            wanted = approvals(request)
        except ValueError as error:
            log.warning("cannot read the certificate request %s: %s", key[1], error)
            return
        for subresource, message in wanted:
            answer = await self.client.create(_REVIEWS, review(request, subresource))
            if (answer.get("status") or {}).get("allowed"):
                await self.apply(key, plan_approval(request, message))
                return


class CertificateSigner(KeyedController):
    """Signs with --cluster-signing-cert-file and --cluster-signing-key-file."""

    component = "certificate-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.follow(CERTIFICATESIGNINGREQUESTS, self.enqueue)
        self._authority: Authority | None = None

    async def sync(self, key: Key) -> None:
        request = self.requests.store.get(key)
        options = self.context.options
        if request is None or not options.signing_certificate or not options.signing_key:
            return
        if self._authority is None:
            certificate, private = options.signing_certificate, options.signing_key
            self._authority = Authority(Path(certificate).read_bytes(), Path(private).read_bytes())
        now = self.context.now().astimezone(UTC)
        await self.apply(key, plan_signing(request, self._authority.sign, now))


class CertificateCleaner(KeyedController):
    component = "certificate-cleaner"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.follow(CERTIFICATESIGNINGREQUESTS, self.enqueue)

    async def sync(self, key: Key) -> None:
        request = self.requests.store.get(key)
        if request is not None:
            await self.apply(key, plan_cleaning(request, self.context.now()), _SWEEP)
