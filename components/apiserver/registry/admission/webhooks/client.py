"""Calls webhooks over HTTPS (apiserver/pkg/util/webhook).

A webhook is a Service of the cluster or a URL. The ClusterIP of a Service is looked up in the
store, because the API server does not use the cluster's DNS, and the connection goes from the API
server's node to that address. The certificate must be valid for NAME.NAMESPACE.svc.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kubewire.components.apiserver import bodies, status
from kubewire.components.apiserver.store import Key, Store

#: The most TLS contexts that are kept, one for each caBundle.
_MOST_CONTEXTS = 30
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 27})
_EXPIRED = frozenset({9, 10})
_WRONG_NAME = frozenset({62, 64})


class CallFailed(Exception):
    """The webhook could not be asked; the text is Go's for the same failure."""


class WebhookClient:
    """Posts reviews; belongs to the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, config: Mapping[str, Any], body: Any, seconds: int) -> Any:
        """Posts to a clientConfig and returns the decoded answer; raises CallFailed."""
        url = endpoint(config, seconds)
        where = f'Post "{_go_url(config, url)}"'
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(url, config, body)
        except TimeoutError as error:
            raise CallFailed(f"{where}: context deadline exceeded") from error
        except aiohttp.ClientError as error:
            raise CallFailed(f"{where}: {self._failure_text(error, url)}") from error
        except Unroutable as error:
            raise CallFailed(f"{where}: {error}") from error
        except (ssl.SSLError, ValueError) as error:
            text = f"unable to load root certificates: {error}"
            raise CallFailed(text) from error

    async def _answer(self, url: URL, config: Mapping[str, Any], body: Any) -> Any:
        session = self._opened()
        context = self._context(config.get("caBundle") or "")
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        data = orjson.dumps(body)
        async with session.post(url, data=data, headers=headers, ssl=context) as answer:
            sent = await answer.content.read(bodies.MAX_BYTES)
            if answer.status >= 400 or answer.status < 200:
                said = sent.decode(errors="replace").strip() or "unknown"
                failure = status.backend_response(answer.status, said, "").body["message"]
                raise CallFailed(failure.removesuffix(" ( )"))
        try:
            return orjson.loads(sent)
        except ValueError as error:
            text = sent.decode(errors="replace")
            raise CallFailed(
                f"couldn't get version/kind; json parse error: {error}: {text[:200]}"
            ) from error

    def _failure_text(self, error: aiohttp.ClientError, url: URL) -> str:
        host, port = url.host or "", url.port or 443
        parts = host.split(".")
        if len(parts) == 3 and parts[2] == "svc":
            host = cluster_address(self._store, parts[1], parts[0], port)
        return _failure_text(error, url, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_ClusterResolver(self._store), use_dns_cache=False, limit=0
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"User-Agent": "kube-apiserver-admission"},
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=True,
                trust_env=False,
            )
        return self._session

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            authorities = base64.b64decode(bundle).decode("ascii") if bundle else None
            context = ssl.create_default_context(cadata=authorities)
            # Go trusts every certificate of the bundle, also one that is not a CA's.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            while len(self._contexts) >= _MOST_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[bundle] = context
        return context


def endpoint(config: Mapping[str, Any], seconds: int) -> URL:
    """The URL of a clientConfig with the query timeout; raises CallFailed."""
    service = config.get("service")
    if service:
        name = f"{service.get('name')}.{service.get('namespace')}.svc"
        path = "/" + (service.get("path") or "").lstrip("/")
        url = URL(f"https://{name}:{service.get('port') or 443}{path}", encoded=True)
        return url.with_query(timeout=f"{seconds}s")
    if not config.get("url"):
        raise CallFailed("webhook configuration must have either service or URL")
    try:
        return URL(config["url"]).with_query(timeout=f"{seconds}s")
    except ValueError as error:
        raise CallFailed(f"Unparsable URL: {error}") from error


def _go_url(config: Mapping[str, Any], url: URL) -> str:
    """The URL in Go's texts, which keep the default port of a Service."""
    host = f"{url.host}:443" if config.get("service") and url.port == 443 else url.authority
    return f"{url.scheme}://{host}{url.raw_path_qs}"


class Unroutable(Exception):
    """A Service that leads nowhere; the text is upstream's."""


def cluster_address(store: Store, namespace: str, name: str, port: int) -> str:
    """The address of a Service (ResolveCluster of apiserver/pkg/util/proxy); raises Unroutable."""
    stored = store.get(Key("services", namespace, name))
    if stored is None:
        raise Unroutable(f'service "{name}" not found')
    spec = stored.obj.get("spec") or {}
    kind = spec.get("type") or "ClusterIP"
    if kind == "ExternalName":
        return str(spec.get("externalName") or "")
    if kind == "ClusterIP" and spec.get("clusterIP") == "None":
        raise Unroutable('cannot route to service with ClusterIP "None"')
    if all(item.get("port") != port for item in spec.get("ports") or ()):
        raise Unroutable(f'no service port {port} found for service "{name}"')
    return str(spec.get("clusterIP") or "")


class _ClusterResolver(AbstractResolver):
    """Resolves NAME.NAMESPACE.svc in the store, and other names as the system does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        name = host
        parts = host.split(".")
        if len(parts) == 3 and parts[2] == "svc":
            name = cluster_address(self._store, parts[1], parts[0], port)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, family=family)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        return None


def _failure_text(error: aiohttp.ClientError, url: URL, dialled: str) -> str:
    """The text of Go's net/http for the same failure; dialled is the address and the port."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "tls: failed to verify certificate: x509: " + _certificate_text(
            error.certificate_error, url
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {url.host}: no such host"
    if "WRONG_VERSION_NUMBER" in str(error):
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"tls: {error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {dialled}: connect: {_go_error(error.os_error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientOSError):
        return f"read tcp {dialled}: {_go_error(error)}"
    return str(error)


def _go_error(error: OSError) -> str:
    if error.errno == errno.EHOSTUNREACH:
        return "no route to host"
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _certificate_text(error: Exception, url: URL) -> str:
    code = getattr(error, "verify_code", 0)
    if code in _EXPIRED:
        return "certificate has expired or is not yet valid"
    if code in _WRONG_NAME:
        return f"certificate is not valid for any names, but wanted to match {url.host}"
    if code in _UNKNOWN_AUTHORITY:
        return "certificate signed by unknown authority"
    return str(getattr(error, "verify_message", error))
