"""Who may approve and who may sign a CertificateSigningRequest
(plugin/pkg/admission/certificates, approval and signing).

The right to write the subresource is not enough: a user also needs the verb `approve` or `sign` on
the request's signer, which is a virtual resource `signers` in certificates.k8s.io with the signer's
name, or with its domain and `/*`. Otherwise whoever may approve for one signer could give
themselves a certificate of another one, such as one that the API server trusts.
"""

from __future__ import annotations

from kubewire.components.apiserver import status
from kubewire.components.apiserver.access import attributes as access
from kubewire.components.apiserver.access.modes import Union
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Store
from kubewire.components.kubeapi.resources import KubeObject

_GROUP = "certificates.k8s.io"
_REQUESTS = f"certificatesigningrequests.{_GROUP}"


class _SignerPlugin(Plugin):
    """The two plugins differ in the subresource, in the verb, and in what counts as a change."""

    subresource: str
    verb: str

    def __init__(self, store: Store, authorizer: Union) -> None:
        super().__init__(store)
        self._authorizer = authorizer

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        written = served.storage == _REQUESTS and operation == "UPDATE"
        return written and subresource == self.subresource

    def concerns(self, new: KubeObject, old: KubeObject) -> bool:
        """Whether the write does what the verb is for."""
        return True

    def validate(self, attributes: Attributes) -> None:
        if self.concerns(attributes.obj, attributes.old):
            self.store.owner.call(self._check, attributes)

    def _check(self, attributes: Attributes) -> None:
        signer = (attributes.old.get("spec") or {}).get("signerName") or ""
        domain = signer.partition("/")[0]
        if any(self._may(attributes, name) for name in (signer, f"{domain}/*")):
            return
        served = attributes.served
        text = f'user not permitted to {self.verb} requests with signerName "{signer}"'
        raise status.forbidden(served.group, served.plural, attributes.name, text)

    def _may(self, attributes: Attributes, signer: str) -> bool:
        asked = access.Attributes(
            attributes.user, self.verb, _GROUP, "*", "signers", namespace="", name=signer
        )
        return self._authorizer.decide(asked).allowed


class CertificateApproval(_SignerPlugin):
    name = "CertificateApproval"
    subresource = "approval"
    verb = "approve"


class CertificateSigning(_SignerPlugin):
    name = "CertificateSigning"
    subresource = "status"
    verb = "sign"

    def concerns(self, new: KubeObject, old: KubeObject) -> bool:
        """Only the certificate and the conditions are the signer's."""
        fresh, before = new.get("status") or {}, old.get("status") or {}
        return any(fresh.get(key) != before.get(key) for key in ("certificate", "conditions"))
