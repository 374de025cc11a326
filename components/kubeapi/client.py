"""A Kubernetes API client for asyncio: the verbs, typed errors and watch
(https://kubernetes.io/docs/reference/using-api/api-concepts/)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, overload

import aiohttp
import orjson

from kubewire.components.base import tls
from kubewire.components.kubeapi import kubeconfig
from kubewire.components.kubeapi.resources import KubeObject, Resource, T

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server answered with a Status (metav1.Status). status is the HTTP code, reason
    upstream's StatusReason."""

    def __init__(
        self, status: int, reason: str, message: str, body: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.body = dict(body or {})


class ApiUnavailable(ApiError):
    """There was no answer: refused, reset or timed out. It is unknown whether a write arrived."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unavailable", message)


@dataclass(frozen=True)
class ObjectList(Generic[T]):
    """The objects of a list. kind and apiVersion are filled in, because a list's items come without
    them."""

    items: list[T]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent(Generic[T]):
    """type is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR event is raised as ApiError
    instead."""

    type: str
    object: T


def _error(status: int, raw: bytes) -> ApiError:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = {}
    if not isinstance(body, dict) or body.get("kind") != "Status":
        return ApiError(status, "Unknown", raw.decode(errors="replace")[:1000] or f"HTTP {status}")
    return ApiError(
        body.get("code") or status,
        body.get("reason", ""),
        body.get("message", ""),
        body,
    )


class Client:
    """A connection pool to one API server. Every call raises ApiError, or ApiUnavailable if there
    is no answer."""

    def __init__(
        self, credentials: kubeconfig.Credentials, *, user_agent: str = "kubewire"
    ) -> None:
        self.credentials = credentials
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: str | Path, *, user_agent: str = "kubewire") -> Client:
        return cls(kubeconfig.load(path), user_agent=user_agent)

    @classmethod
    def in_cluster(cls, *, user_agent: str = "kubewire") -> Client:
        return cls(kubeconfig.in_cluster(), user_agent=user_agent)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def session(self) -> aiohttp.ClientSession:
        """The pool, for callers that need more than the verbs (exec streams). Created on first use,
        in the loop."""
        if self._session is None:
            tls.small_buffers()
            context = (
                self.credentials.ssl_context()
                if self.credentials.server.startswith("https")
                else False
            )
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                headers={"User-Agent": self._user_agent, "Accept": "application/json"},
                auto_decompress=True,
            )
        return self._session

    def headers(self) -> dict[str, str]:
        token = self.credentials.bearer_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> bytes:
        """Sends any request and returns the body of a 2xx answer. body is encoded as JSON unless it
        is bytes."""
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        merged = {"Content-Type": "application/json"} if data is not None else {}
        merged |= self.headers() | dict(headers or {})
        try:
            async with self.session().request(
                method,
                self.credentials.server + path,
                params=params,
                data=data,
                headers=merged,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10),
            ) as response:
                raw = await response.read()
                if response.status >= 400:
                    raise _error(response.status, raw)
                return raw
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(
                f"{method} {self.credentials.server}{path}: {error or type(error).__name__}",
            ) from error

    async def _object(self, method: str, path: str, **arguments: Any) -> Any:
        return orjson.loads(await self.request(method, path, **arguments))

    async def get(self, resource: Resource[T], name: str, namespace: str | None = None) -> T:
        found: T = await self._object("GET", resource.path(namespace, name))
        return found

    async def list(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> ObjectList[T]:
        params = _selectors(label_selector, field_selector)
        body = await self._object("GET", resource.path(namespace), params=params)
        items = body.get("items") or []
        for item in items:
            item.setdefault("kind", resource.kind)
            item.setdefault("apiVersion", resource.api_version)
        return ObjectList(items, body["metadata"].get("resourceVersion", ""))

    @overload
    async def create(self, resource: Resource[T], obj: T) -> T: ...
    @overload
    async def create(
        self, resource: Resource[Any], obj: Mapping[str, Any], *, subresource: str
    ) -> Any: ...
    async def create(
        self, resource: Resource[Any], obj: Mapping[str, Any], *, subresource: str = ""
    ) -> Any:
        """POST. With a subresource (binding, eviction, token), whose objects are of another kind,
        the object's name is taken from its metadata."""
        metadata = obj["metadata"]
        name = metadata["name"] if subresource else None
        path = resource.path(metadata.get("namespace"), name, subresource)
        return await self._object("POST", path, body=obj)

    async def update(self, resource: Resource[T], obj: T, *, subresource: str = "") -> T:
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        written: T = await self._object("PUT", path, body=obj)
        return written

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
        content_type: str = MERGE_PATCH,
        params: Mapping[str, str] | None = None,
    ) -> T:
        path = resource.path(namespace, name, subresource)
        written: T = await self._object(
            "PATCH",
            path,
            body=patch,
            headers={"Content-Type": content_type},
            params=params,
        )
        return written

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        uid: str | None = None,
    ) -> KubeObject:
        options: KubeObject = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        answer: KubeObject = await self._object(
            "DELETE", resource.path(namespace, name), body=options
        )
        return answer

    async def watch(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 600,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields events after resource_version until the server ends the stream. Raises ApiError
        410 if it is too old."""
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        url = self.credentials.server + resource.path(namespace)
        try:
            async with self.session().get(url, params=params, headers=self.headers()) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read())
                async for line in _lines(response.content):
                    yield _watch_event(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(f"watch {url}: {error or type(error).__name__}") from error


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # StreamReader's line reader rejects lines longer than its buffer; an object may exceed 1 MiB.
    pending = b""
    async for chunk in content.iter_any():
        *complete, pending = (pending + chunk).split(b"\n")
        for line in complete:
            if line:
                yield line


def _watch_event(line: bytes) -> WatchEvent[Any]:
    event = orjson.loads(line)
    if event["type"] == "ERROR":
        status = event["object"]
        raise ApiError(
            status.get("code", 500),
            status.get("reason", ""),
            status.get("message", ""),
            status,
        )
    return WatchEvent(event["type"], event["object"])
