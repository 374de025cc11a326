"""A client of the lab's Kubernetes API for the runner, with blocking calls and one kept connection
per thread.

The components' client (kubeapi.client) uses asyncio and takes 0.2 s to import. A runner waits for
one answer at a time and runs labs in threads, so http.client is enough here. The semantics are
those of https://kubernetes.io/docs/reference/using-api/api-concepts/.

`apply` works like kubectl's client-side apply. It computes a JSON merge patch (RFC 7386) from three
documents: the new manifest, the object on the server, and the manifest that was applied before,
which kubectl keeps in an annotation. The last one tells a field that the user has removed from the
manifest from a field that a controller has set.
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
    """The API server has refused a request or cannot be reached. status: HTTP status code, 0 if
    there was no answer; reason: upstream's StatusReason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


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
        """The cluster of a kubeconfig file. Raises KubeconfigError."""
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
        """Sends a request and returns the decoded JSON. Raises ApiError, with status 0 if the
        server cannot be reached."""
        target = f"{path}?{urlencode(params)}" if params else path
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        if token := self._credentials.bearer_token():
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if body is not None else None
        status, raw = self._exchange(method, target, data, headers)
        answer = json.loads(raw or b"{}")
        if status >= 400:
            raise ApiError(
                status,
                answer.get("reason", ""),
                answer.get("message", f"{method} {path}: {status}"),
            )
        return answer

    def _exchange(
        self,
        method: str,
        target: str,
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
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
                # A restarted server has closed the kept connection; try once more on a new one.
                if attempt == 2 or kept is None:
                    host, port = self._address
                    message = f"the API server at {host}:{port} does not answer: {error}"
                    raise ApiError(0, "Unavailable", message) from error
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._context:
            return http.client.HTTPSConnection(host, port, timeout=30, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=30)

    def resource(self, name: str) -> Resource[Any]:
        """The resource with this kind, plural, singular or short name of kubectl. Raises
        LookupError."""
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
                    resource: Resource[Any] = Resource(
                        group["name"],
                        version,
                        item["name"],
                        item["kind"],
                        item["namespaced"],
                    )
                    yield resource, tuple(item.get("shortNames") or ())

    def resource_of(self, obj: KubeObject) -> Resource[Any]:
        """The resource of a manifest's kind. Repeats discovery for an unknown kind, because a
        CustomResourceDefinition may have just defined it. Raises LookupError."""
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
        """Reads one object. Raises ApiError (404 if it does not exist)."""
        found: KubeObject = self.request("GET", resource.path(namespace, name))
        return found

    def find(self, resource: Resource[Any], name: str, namespace: str = "") -> KubeObject | None:
        """Reads one object; returns None if it does not exist."""
        try:
            return self.get(resource, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self,
        resource: Resource[Any],
        namespace: str = "",
        selector: str = "",
        fields: str = "",
    ) -> list[KubeObject]:
        """Reads all objects that match. namespace "" means all namespaces."""
        selectors = {"labelSelector": selector, "fieldSelector": fields}
        params = {key: value for key, value in selectors.items() if value}
        answer = self.request("GET", resource.path(namespace), params=params)
        return list(answer.get("items") or ())

    def apply(self, obj: KubeObject, namespace: str) -> KubeObject:
        """Creates an object or patches it to match the manifest. namespace: used for namespaced
        objects whose manifest names none."""
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
        """Patches an object. kind: merge, strategic or json. part: a subresource."""
        path = resource.path(namespace, name, part)
        patched: KubeObject = self.request("PATCH", path, body=patch, kind=PATCH_TYPES[kind])
        return patched

    def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str = "",
        grace: int | None = None,
    ) -> bool:
        """Deletes an object. grace: seconds. Returns whether it existed."""
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
    annotations = {
        **metadata.get("annotations", {}),
        LAST_APPLIED: json.dumps(plain, sort_keys=True),
    }
    return {**plain, "metadata": {**metadata, "annotations": annotations}}


def merge_patch(last: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386): the wanted fields, and null for fields that were applied last
    time and are not wanted now."""
    patch: dict[str, Any] = {key: None for key in last if key not in wanted}
    for key, value in wanted.items():
        before = last.get(key)
        if isinstance(value, Mapping):
            patch[key] = merge_patch(before if isinstance(before, Mapping) else {}, value)
        else:
            patch[key] = value
    return patch


class NoCluster(Cluster):
    """The cluster of a lab without Kubernetes: every request raises ApiError."""

    def __init__(self) -> None:
        super().__init__(kubeconfig.Credentials(server=""))

    def request(self, method: str, path: str, **_: Any) -> Any:
        raise ApiError(
            0,
            "",
            f"cannot read {path}: this lab runs no Kubernetes (lab: {{kubernetes: false}})",
        )
