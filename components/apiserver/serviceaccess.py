"""Reaches Services of the cluster from the API server's place, for webhooks and aggregated APIs.

The ClusterIP of a Service is looked up in the store, because the API server does not use the
cluster's DNS, and the connection goes from the API server's node to that address. The certificate
must be valid for NAME.NAMESPACE.svc.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import socket
import ssl

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kubewire.components.apiserver.store import Key, Store

#: The most TLS contexts that are kept, one for each caBundle.
_MOST_CONTEXTS = 30
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 27})
_EXPIRED = frozenset({9, 10})
_WRONG_NAME = frozenset({62, 64})


class Trust:
    """The TLS contexts of clients by whom they trust, with the client certificate of the files
    if there are any."""

    def __init__(self, certificate: str = "", key: str = "") -> None:
        self._own = certificate, key
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def context(self, bundle: str, *, verify: bool = True) -> ssl.SSLContext:
        """The context for a caBundle in base64; without one the system's authorities count.

        Raises ValueError or SSLError for a bundle that is none.
        """
        context = self._contexts.get((bundle, verify))
        if context is None:
            context = self._made(bundle, verify)
            while len(self._contexts) >= _MOST_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[(bundle, verify)] = context
        return context

    def _made(self, bundle: str, verify: bool) -> ssl.SSLContext:
        if verify:
            authorities = base64.b64decode(bundle).decode("ascii") if bundle else None
            context = ssl.create_default_context(cadata=authorities)
            # Go trusts every certificate of the bundle, also one that is not a CA's.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = self._own
        if certificate:
            context.load_cert_chain(certificate, key)
        return context


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


class ClusterResolver(AbstractResolver):
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


async def whole_body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of an answer, of which no more than so many bytes are kept."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece[: most - len(body)]
        if len(body) >= most:
            break
    return bytes(body)


def failure_text(store: Store, error: aiohttp.ClientError, url: URL) -> str:
    """The text of Go's net/http for the same failure of a connection to a Service or a URL."""
    host, port = url.host or "", url.port or 443
    parts = host.split(".")
    if len(parts) == 3 and parts[2] == "svc":
        host = cluster_address(store, parts[1], parts[0], port)
    return _failure_text(error, url, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


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
