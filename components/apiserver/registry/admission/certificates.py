"""Admission of certificate signing requests: who asks, and for which names."""

from __future__ import annotations

import base64

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served

_REQUESTS = "certificatesigningrequests.certificates.k8s.io"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_MASTERS = "system:masters"


class CertificateRequester(Plugin):
    """Writes the user of the request into it (the strategy of registry/certificates)."""

    name = "CertificateRequester"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == _REQUESTS and operation == "CREATE" and not subresource

    def admit(self, attributes: Attributes) -> None:
        user = attributes.user
        spec = attributes.obj.setdefault("spec", {})
        for key in ("username", "uid", "groups", "extra"):
            spec.pop(key, None)
        spec["username"] = user.name
        if user.uid:
            spec["uid"] = user.uid
        if user.groups:
            spec["groups"] = list(user.groups)
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}


class CertificateSubjectRestriction(Plugin):
    """Refuses a client certificate of system:masters, which RBAC could not take back
    (plugin/pkg/admission/certificates/subjectrestriction)."""

    name = "CertificateSubjectRestriction"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == _REQUESTS and operation == "CREATE" and not subresource

    def validate(self, attributes: Attributes) -> None:
        spec = attributes.obj["spec"]
        if spec.get("signerName") == _CLIENT_SIGNER and _MASTERS in organizations(spec["request"]):
            text = f"use of {_CLIENT_SIGNER} signer with {_MASTERS} group is not allowed"
            plural, _, group = _REQUESTS.partition(".")
            raise status.forbidden(group, plural, attributes.name, text)


def organizations(request: str) -> list[str]:
    """The organizations in the subject of an encoded request; none of one that cannot be read."""
    from cryptography import x509

    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(request))
    except ValueError:
        return []
    found = parsed.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    return [str(attribute.value) for attribute in found]
