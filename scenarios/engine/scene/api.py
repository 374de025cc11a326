"""The lab's Kubernetes API for the runner: blocking calls, one kept connection per thread.

The components' client (kubeapi.client) is asyncio and costs 0.2 s to import; a runner waits for one
answer at a time and runs labs in threads, so this is http.client. Semantics are those of
https://kubernetes.io/docs/reference/using-api/api-concepts/; apply is kubectl's client-side apply with a
three-way JSON merge patch (RFC 7386) over kubectl's own last-applied annotation.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from kubewire.components.kubeapi import kubeconfig, resources
from kubewire.components.kubeapi.resources import KubeObject, Resource

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MERGE_PATCH = "application/merge-patch+json"
PATCH_TYPES = {
    "merge": MERGE_PATCH,
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
SHORT_NAMES = {
    "po": "pods",
    "svc": "services",
    "ep": "endpoints",
    "cm": "configmaps",
    "sa": "serviceaccounts",
    "no": "nodes",
    "ns": "namespaces",
    "ev": "events",
    "deploy": "deployments",
    "rs": "replicasets",
    "ds": "daemonsets",
    "sts": "statefulsets",
    "netpol": "networkpolicies",
    "ing": "ingresses",
    "crd": "customresourcedefinitions",
}
BUILT_IN = tuple(item for item in vars(resources).values() if isinstance(item, Resource))


class ApiError(Exception):
    """The API's refusal. status: HTTP code, 0 when there was no answer; reason: upstream's StatusReason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Cluster:
    """One API server. Safe to use from several threads."""

    def __init__(self, credentials: kubeconfig.Credentials) -> None:
        parts = urlsplit(credentials.server)
        self._credentials = credentials
        self._address = (parts.hostname or "", parts.port or 443)
        self._context = credentials.ssl_context() if parts.scheme == "https" else None
        self._local = threading.local()
        self._discovered: list[tuple[Resource[Any], tuple[str, ...]]] | None = None

    @classmethod
    def of(cls, path: Path) -> Cluster:
        """From a kubeconfig file. Raises KubeconfigError."""
        return cls(kubeconfig.load(path))

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = "",
    ) -> Any:
        """Decoded JSON. Raises ApiError, also (status 0) when the server cannot be reached."""
        target = f"{path}?{urlencode(params)}" if params else path
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        if token := self._credentials.bearer_token():
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if body is not None else None
        status, raw = self._exchange(method, target, data, headers)
        answer = json.loads(raw or b"{}")
        if status >= 400:
            raise ApiError(status, answer.get("reason", ""), answer.get("message", f"{method} {path}: {status}"))
        return answer

    def _exchange(self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        for attempt in (1, 2):
            kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
            connection = kept or self._connect()
            try:
                connection.request(method, target, body=data, headers=dict(headers))
                response = connection.getresponse()
                raw = response.read()
                self._local.connection = connection
                return response.status, raw
            except (OSError, http.client.HTTPException, ssl.SSLError) as error:
                connection.close()
                self._local.connection = None
                # A kept connection may have been closed by a restarted server: once more on a new one.
                if attempt == 2 or kept is None:
                    host, port = self._address
                    raise ApiError(0, "Unavailable", f"API server {host}:{port}: {error}") from error
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._context:
            return http.client.HTTPSConnection(host, port, timeout=30, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=30)

    def resource(self, name: str) -> Resource[Any]:
        """By kind, plural, singular or kubectl's short name. Raises LookupError."""
        wanted = name.lower()
        wanted = SHORT_NAMES.get(wanted, wanted)
        for item in BUILT_IN:
            if wanted in (item.plural, item.kind.lower()):
                return item
        for item, names in self._discover():
            if wanted in (item.plural, item.kind.lower(), f"{item.plural}.{item.group}", *names):
                return item
        raise LookupError(f'the server doesn\'t have a resource type "{name}"')

    def _discover(self) -> list[tuple[Resource[Any], tuple[str, ...]]]:
        if self._discovered is None:
            self._discovered = list(self._all_resources())
        return self._discovered

    def _all_resources(self) -> Iterator[tuple[Resource[Any], tuple[str, ...]]]:
        for group in self.request("GET", "/apis").get("groups", ()):
            version = group["preferredVersion"]["version"]
            found = self.request("GET", f"/apis/{group['name']}/{version}")
            for item in found.get("resources", ()):
                if "/" not in item["name"]:
                    yield (
                        Resource(group["name"], version, item["name"], item["kind"], item["namespaced"]),
                        tuple(item.get("shortNames") or ()),
                    )

    def resource_of(self, obj: KubeObject) -> Resource[Any]:
        """The resource of a manifest; a kind just defined by a CRD is looked up anew. Raises LookupError."""
        group, _, version = str(obj["apiVersion"]).rpartition("/")
        for item in BUILT_IN:
            if (item.group, item.version, item.kind) == (group, version, obj["kind"]):
                return item
        for fresh in (False, True):
            if fresh:
                self._discovered = None
            for item, _ in self._discover():
                if (item.group, item.kind) == (group, obj["kind"]):
                    return Resource(group, version, item.plural, item.kind, item.namespaced)
        raise LookupError(f'no matches for kind "{obj["kind"]}" in version "{obj["apiVersion"]}"')

    def get(self, resource: Resource[Any], name: str, namespace: str = "") -> KubeObject:
        """One object. Raises ApiError (404)."""
        found: KubeObject = self.request("GET", resource.path(namespace, name))
        return found

    def find(self, resource: Resource[Any], name: str, namespace: str = "") -> KubeObject | None:
        """One object, None when it is not there."""
        try:
            return self.get(resource, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, resource: Resource[Any], namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[KubeObject]:
        """All that match; namespace "" is all namespaces."""
        params = {"labelSelector": selector, "fieldSelector": fields}
        answer = self.request("GET", resource.path(namespace), params={k: v for k, v in params.items() if v})
        return list(answer.get("items") or ())

    def apply(self, obj: KubeObject, namespace: str) -> KubeObject:
        """Create, or patch to what the manifest says. namespace: for namespaced objects that name none."""
        resource = self.resource_of(obj)
        wanted = _with_last_applied(obj, namespace if resource.namespaced else "")
        where = wanted["metadata"].get("namespace", "")
        try:
            created: KubeObject = self.request("POST", resource.path(where), body=wanted)
            return created
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        name = wanted["metadata"]["name"]
        current = self.get(resource, name, where)
        last = json.loads(current["metadata"].get("annotations", {}).get(LAST_APPLIED, "{}"))
        return self.patch(resource, name, merge_patch(last, wanted), where)

    def patch(
        self,
        resource: Resource[Any],
        name: str,
        patch: Any,
        namespace: str = "",
        kind: str = "merge",
        part: str = "",
    ) -> KubeObject:
        """kind: merge, strategic or json; part: a subresource."""
        path = resource.path(namespace, name, part)
        patched: KubeObject = self.request("PATCH", path, body=patch, kind=PATCH_TYPES[kind])
        return patched

    def delete(self, resource: Resource[Any], name: str, namespace: str = "", grace: int | None = None) -> bool:
        """Whether it was there. grace: seconds."""
        options: dict[str, Any] = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
        }
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self.request("DELETE", resource.path(namespace, name), body=options)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


def _with_last_applied(obj: KubeObject, namespace: str) -> KubeObject:
    metadata = dict(obj.get("metadata", {}))
    if namespace:
        metadata.setdefault("namespace", namespace)
    plain = {**obj, "metadata": metadata}
    annotations = {**metadata.get("annotations", {}), LAST_APPLIED: json.dumps(plain, sort_keys=True)}
    return {**plain, "metadata": {**metadata, "annotations": annotations}}


def merge_patch(last: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386: what is wanted, and null for what was applied last time but is not wanted now."""
    patch: dict[str, Any] = {key: None for key in last if key not in wanted}
    for key, value in wanted.items():
        before = last.get(key)
        if isinstance(value, Mapping):
            patch[key] = merge_patch(before if isinstance(before, Mapping) else {}, value)
        else:
            patch[key] = value
    return patch


class NoCluster(Cluster):
    """Of a lab without Kubernetes: whatever asks for something of it fails and says so."""

    def __init__(self) -> None:
        super().__init__(kubeconfig.Credentials(server=""))

    def request(self, method: str, path: str, **_: Any) -> Any:
        raise ApiError(0, "", f"this lab has no Kubernetes (lab: {{kubernetes: false}}), so no {path}")
