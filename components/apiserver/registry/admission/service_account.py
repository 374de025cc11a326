"""ServiceAccount: each pod gets an account and a token to talk to the API server
(plugin/pkg/admission/serviceaccount).
"""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.metadata import random_suffix
from kubewire.components.apiserver.store import Key

_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3607


class ServiceAccount(Plugin):
    name = "ServiceAccount"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage == "pods" and operation == "CREATE" and not subresource

    def admit(self, attributes: Attributes) -> None:
        metadata = attributes.obj["metadata"]
        if "kubernetes.io/config.mirror" in (metadata.get("annotations") or {}):
            return
        spec = attributes.obj["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self.store.get(Key("serviceaccounts", metadata["namespace"], name))
        if account is None:
            place = f"{metadata['namespace']}/{name}"
            why = f'error looking up service account {place}: serviceaccount "{name}" not found'
            raise status.forbidden("", "pods", metadata.get("name", ""), why)
        if account.obj.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(secret) for secret in account.obj["imagePullSecrets"]]
        automount = spec.get(
            "automountServiceAccountToken",
            account.obj.get("automountServiceAccountToken", True),
        )
        if automount is not False:
            _mount_token(spec)


def _mount_token(spec: dict[str, Any]) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    needing = [item for item in containers if not _mounts(item, _TOKEN_MOUNT)]
    if not needing:
        return
    name = f"kube-api-access-{random_suffix()}"
    for container in needing:
        mount = {"name": name, "readOnly": True, "mountPath": _TOKEN_MOUNT}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    spec["volumes"] = [*(spec.get("volumes") or []), _token_volume(name)]


def _mounts(container: dict[str, Any], path: str) -> bool:
    return any(mount.get("mountPath") == path for mount in container.get("volumeMounts") or [])


def _token_volume(name: str) -> dict[str, Any]:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
