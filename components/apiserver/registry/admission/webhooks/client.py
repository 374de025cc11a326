"""Calls webhooks over HTTPS (apiserver/pkg/util/webhook).

A webhook is a Service of the cluster (serviceaccess.py) or a URL.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from yarl import URL

from kubewire.components.apiserver import bodies, status
from kubewire.components.apiserver.serviceaccess import (
    ClusterResolver,
    Trust,
    Unroutable,
    failure_text,
    whole_body,
)
from kubewire.components.apiserver.store import Store


class CallFailed(Exception):
    """The webhook could not be asked; the text is Go's for the same failure."""


class WebhookClient:
    """Posts reviews; belongs to the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None
        self._trust = Trust()

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
            raise CallFailed(f"{where}: {failure_text(self._store, error, url)}") from error
        except Unroutable as error:
            raise CallFailed(f"{where}: {error}") from error
        except (ssl.SSLError, ValueError) as error:
            text = f"unable to load root certificates: {error}"
            raise CallFailed(text) from error

    async def _answer(self, url: URL, config: Mapping[str, Any], body: Any) -> Any:
        session = self._opened()
        context = self._trust.context(config.get("caBundle") or "")
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        data = orjson.dumps(body)
        async with session.post(url, data=data, headers=headers, ssl=context) as answer:
            sent = await whole_body(answer, bodies.MAX_BYTES)
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

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=ClusterResolver(self._store), use_dns_cache=False, limit=0
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"User-Agent": "kube-apiserver-admission"},
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=True,
                trust_env=False,
            )
        return self._session


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
