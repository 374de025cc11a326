"""Warnings about volumes, claims, storage classes and secrets (pkg/api/persistentvolume,
pkg/api/storage, pkg/registry/core/secret).
"""

from __future__ import annotations

import base64
import binascii

from kubewire.components.apiserver.kinds.warnings.amounts import claim_warnings
from kubewire.components.apiserver.kinds.warnings.nodelabels import DEPRECATED, term_warnings
from kubewire.components.apiserver.kinds.warnings.volumes import REMOVED, SHOWN
from kubewire.components.kubeapi.resources import KubeObject

_CLASS = "volume.beta.kubernetes.io/storage-class"
_USE_CLASS = 'deprecated since v1.8; use "storageClassName" attribute instead'
_OPTIONS = "volume.beta.kubernetes.io/mount-options"
_USE_OPTIONS = 'deprecated since v1.31; use "mountOptions" attribute instead'
_RECYCLE = (
    "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic "
    "provisioning."
)
#: A PersistentVolume cannot have the other volumes of REMOVED, or upstream is silent about them.
_VOLUME_PLUGINS = (
    "cephfs",
    "photonPersistentDisk",
    "scaleIO",
    "storageos",
    "glusterfs",
    "rbd",
)


def volume(obj: KubeObject) -> list[str]:
    spec = obj.get("spec") or {}
    annotations = obj["metadata"].get("annotations") or {}
    deprecated = ((_CLASS, _USE_CLASS), (_OPTIONS, _USE_OPTIONS))
    warnings = [
        f"metadata.annotations[{key}]: {text}" for key, text in deprecated if key in annotations
    ]
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        warnings.append(f"spec.persistentVolumeReclaimPolicy: {_RECYCLE}")
    required = (spec.get("nodeAffinity") or {}).get("required") or {}
    for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
        warnings += term_warnings(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]")
    given = [plugin for plugin in _VOLUME_PLUGINS if spec.get(plugin) is not None]
    return warnings + [f"spec.{SHOWN.get(plugin, plugin)}: {REMOVED[plugin]}" for plugin in given]


def changed_volume(new: KubeObject, old: KubeObject) -> list[str]:
    return volume(new)


def claim(obj: KubeObject) -> list[str]:
    warnings = []
    if _CLASS in (obj["metadata"].get("annotations") or {}):
        warnings.append(f"metadata.annotations[{_CLASS}]: {_USE_CLASS}")
    return warnings + claim_warnings(obj.get("spec") or {}, "spec")


def changed_claim(new: KubeObject, old: KubeObject) -> list[str]:
    return claim(new)


def storage_class(obj: KubeObject) -> list[str]:
    return [
        f"allowedTopologies[{number}].matchLabelExpressions[{index}].key: {DEPRECATED[key]}"
        for number, term in enumerate(obj.get("allowedTopologies") or ())
        for index, expression in enumerate(term.get("matchLabelExpressions") or ())
        if (key := expression.get("key", "")) in DEPRECATED
    ]


def changed_storage_class(new: KubeObject, old: KubeObject) -> list[str]:
    return storage_class(new)


def storage_capacity(obj: KubeObject) -> list[str]:
    topology = obj.get("nodeTopology") or {}
    labels = topology.get("matchLabels") or {}
    warnings = term_warnings(topology, "nodeTopology")
    path = "nodeTopology.matchLabels"
    return warnings + [
        f"{path}.{key}: {DEPRECATED[key]}" for key in sorted(labels) if key in DEPRECATED
    ]


def changed_storage_capacity(new: KubeObject, old: KubeObject) -> list[str]:
    return storage_capacity(new)


def secret(obj: KubeObject) -> list[str]:
    """About a certificate that does not belong to its key, with the text of Go's crypto/tls."""
    if obj.get("type") != "kubernetes.io/tls":
        return []
    data = obj.get("data") or {}
    text = _key_pair_error(_decoded(data.get("tls.crt")), _decoded(data.get("tls.key")))
    return [text] if text else []


def changed_secret(new: KubeObject, old: KubeObject) -> list[str]:
    return secret(new)


def _decoded(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "")
    except (binascii.Error, ValueError):
        return b""


def _key_pair_error(certificate: bytes, key: bytes) -> str:
    # Only the few secrets that hold certificates need the library, which takes long to import.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        if b"PRIVATE KEY-----" in certificate:
            return (
                "tls: failed to find certificate PEM data in certificate input, but did find a "
                "private key; PEM inputs may have been switched"
            )
        return "tls: failed to find any PEM data in certificate input"
    if b"PRIVATE KEY-----" not in key:
        if b"-----BEGIN CERTIFICATE-----" in key:
            return "tls: found a certificate rather than a key in the PEM for the private key"
        return "tls: failed to find any PEM data in key input"
    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "x509: malformed certificate"
    try:
        own = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to parse private key"
    if type(public) is not type(own):
        return "tls: private key type does not match public key type"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != own.public_bytes(*form):
        return "tls: private key does not match public key"
    return ""
