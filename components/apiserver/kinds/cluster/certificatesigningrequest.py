"""CertificateSigningRequest (certificates.k8s.io/v1): pkg/apis/certificates.

Approval and the certificate have subresources of their own, so that who may approve and who may
sign can be different from who asks.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.duration import human_duration, since
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    invalid,
    required,
)
from kubewire.components.apiserver.kinds.spec import (
    Column,
    FieldError,
    KindSpec,
    Subresource,
)
from kubewire.components.apiserver.kinds.strategy import empty_status, keep_status
from kubewire.components.kubeapi.resources import CERTIFICATESIGNINGREQUESTS, KubeObject

_SHORTEST_SECONDS = 600
_UNKNOWN_SIGNER = "kubernetes.io/legacy-unknown"
_USAGES = frozenset(
    {
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    }
)
_APPROVALS = ("Approved", "Denied")


def default(obj: KubeObject) -> None:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        condition.setdefault("status", "True")


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _validate_request(spec.get("request") or "")
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            errors.append(invalid(f"spec.usages[{index}]", usage, "not a supported usage"))
        if usage in usages[:index]:
            errors.append(duplicate(f"spec.usages[{index}]", usage))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST_SECONDS:
        text = f"may not specify a duration less than {_SHORTEST_SECONDS} seconds (10 minutes)"
        errors.append(invalid("spec.expirationSeconds", seconds, text))
    signer = spec.get("signerName") or ""
    if signer == _UNKNOWN_SIGNER:
        text = "the legacy signerName is not allowed via this API version"
        errors.append(invalid("spec.signerName", signer, text))
    return errors + _validate_signer(signer)


def _validate_signer(signer: str) -> list[FieldError]:
    if not signer:
        return [required("spec.signerName")]
    domain, slash, path = signer.partition("/")
    if not slash or not path:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid("spec.signerName", signer, text)]
    errors = by_rule(names.dns1123_subdomain, "spec.signerName", domain)
    if "." not in domain:
        text = "should be a domain with at least two segments separated by dots"
        errors.append(invalid("spec.signerName", domain, text))
    return errors


def _validate_request(request: str) -> list[FieldError]:
    """Checks the encoding; the signer reads the request itself."""
    try:
        text = base64.b64decode(request).decode("latin-1")
    except ValueError:
        text = ""
    if re.match(r"\s*-----BEGIN CERTIFICATE REQUEST-----", text):
        return []
    why = "PEM block type must be CERTIFICATE REQUEST"
    return [invalid("spec.request", request, why)]


def prepare_update(new: KubeObject, old: KubeObject) -> None:
    keep_status(new, old)
    new["spec"] = old.get("spec") or {}


def prepare_status(new: KubeObject, old: KubeObject) -> None:
    """A write of the status: the certificate and other conditions, but not approval."""
    new["spec"] = old.get("spec") or {}
    before = [item for item in _conditions(old) if item.get("type") in _APPROVALS]
    fresh = [item for item in _conditions(new) if item.get("type") not in _APPROVALS]
    _set_conditions(new, [*before, *fresh])
    _stamp(new, old)


def prepare_approval(new: KubeObject, old: KubeObject) -> None:
    """A write of approval: conditions only."""
    fresh = _conditions(new)
    new["spec"] = old.get("spec") or {}
    new["status"] = {**(old.get("status") or {})}
    _set_conditions(new, fresh)
    _stamp(new, old)


def _set_conditions(obj: KubeObject, conditions: list[dict[str, Any]]) -> None:
    status = obj.setdefault("status", {})
    if conditions:
        status["conditions"] = conditions
    else:
        status.pop("conditions", None)


def _stamp(new: KubeObject, old: KubeObject) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = {item.get("type"): item for item in _conditions(old)}
    for item in _conditions(new):
        held = before.get(item.get("type"), {})
        if item.get("status") != held.get("status") or not item.get("lastTransitionTime"):
            item["lastTransitionTime"] = held.get("lastTransitionTime") or now
        # A missing time is null by now, as Go's types write it.
        item["lastUpdateTime"] = item.get("lastUpdateTime") or now


def _conditions(obj: KubeObject) -> list[dict[str, Any]]:
    return (obj.get("status") or {}).get("conditions") or []


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    status = new.get("status") or {}
    errors = _validate_conditions(new, old)
    before = (old.get("status") or {}).get("certificate")
    if before and status.get("certificate") != before:
        errors.append(
            forbidden("status.certificate", "update may not modify existing certificate content")
        )
    return errors


def _validate_conditions(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = []
    kinds = [item.get("type") for item in _conditions(new)]
    if {"Approved", "Denied"} <= set(kinds):
        text = "Approved and Denied conditions are mutually exclusive"
        errors.append(invalid("status.conditions", "Denied", text))
    for index, item in enumerate(_conditions(new)):
        at = f"status.conditions[{index}]"
        if not item.get("type"):
            errors.append(required(f"{at}.type"))
        if item.get("type") in (*_APPROVALS, "Failed") and item.get("status") != "True":
            text = "status must be 'True'"
            errors.append(invalid(f"{at}.status", item.get("status"), text))
        if item.get("type") in kinds[:index]:
            errors.append(duplicate(f"{at}.type", item.get("type")))
    for kind in {item.get("type") for item in _conditions(old)} & {*_APPROVALS, "Failed"}:
        if kind not in kinds:
            text = f'updates may not remove a condition of type "{kind}"'
            errors.append(forbidden("status.conditions", text))
    return errors


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    seconds = spec.get("expirationSeconds")
    return [
        cells.name(obj),
        since(obj["metadata"].get("creationTimestamp"), now),
        spec.get("signerName") or cells.NONE,
        spec.get("username", ""),
        cells.NONE if seconds is None else human_duration(float(seconds)),
        _state(obj),
    ]


def _state(obj: KubeObject) -> str:
    kinds = {item.get("type") for item in _conditions(obj)}
    state = next((kind for kind in ("Denied", "Approved") if kind in kinds), "Pending")
    if "Failed" in kinds:
        state += ",Failed"
    return f"{state},Issued" if (obj.get("status") or {}).get("certificate") else state


KIND = KindSpec(
    resource=CERTIFICATESIGNINGREQUESTS,
    singular="certificatesigningrequest",
    short_names=("csr",),
    subresources=("status",),
    more_subresources=(
        Subresource("approval", "CertificateSigningRequest", ("get", "patch", "update")),
    ),
    default=default,
    prepare_create=empty_status,
    prepare_update=prepare_update,
    prepare_status_update=prepare_status,
    prepare_approval=prepare_approval,
    validate_create=validate_create,
    validate_status_update=validate_status_update,
    columns=(
        cells.NAME,
        cells.AGE,
        Column("SignerName", "string", "", "Who is asked to sign."),
        Column("Requestor", "string", "", "Who asks."),
        Column("RequestedDuration", "string", "", "For how long the certificate is asked for."),
        Column("Condition", "string", "", "Pending, Approved or Denied, and Issued."),
    ),
    row=row,
    selectable_fields=lambda obj: {
        "spec.signerName": cells.at(obj, "spec", "signerName") or "",
    },
)
