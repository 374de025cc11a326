"""The httpGet probe (upstream: pkg/probe/http): from the node's network namespace, without keep-alive,
certificates not checked, redirects followed on the same host only."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

USER_AGENT = "kube-probe/1.36"
_MAX_REDIRECTS = 10
_MAX_BODY = 10 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class ProbeResult:
    """warning: a success with something to say (event ProbeWarning)."""

    success: bool
    output: str = ""
    warning: bool = False


@dataclass(frozen=True)
class HttpTarget:
    url: str
    headers: Mapping[str, str]


def target(action: Mapping[str, Any], pod_ip: str, port: int) -> HttpTarget:
    """The request of an HTTPGetAction; its own Host header wins over the URL's."""
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    bracketed = f"[{host}]" if ":" in host else host
    path = action.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    for entry in action.get("httpHeaders") or []:
        name = "-".join(part.capitalize() for part in entry["name"].split("-"))
        headers[name] = entry.get("value") or ""
    return HttpTarget(f"{scheme}://{bracketed}:{port}{path}", {k: v for k, v in headers.items() if v})


async def probe(session: aiohttp.ClientSession, wanted: HttpTarget, timeout: float) -> ProbeResult:
    """200 to 399 is success. The texts are net/http's, as upstream's events show them."""
    try:
        async with asyncio.timeout(timeout):
            return await _get(session, wanted)
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return ProbeResult(False, f'Get "{wanted.url}": {why}')
    except aiohttp.ClientConnectorError as error:
        return ProbeResult(False, f'Get "{wanted.url}": {dial_error(wanted.url, error.os_error)}')
    except aiohttp.ServerDisconnectedError:
        return ProbeResult(False, f'Get "{wanted.url}": EOF')
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return ProbeResult(False, f'Get "{wanted.url}": {error}')


_CONNECT_TEXTS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ECONNRESET: "connection reset by peer",
}


def dial_error(url: str, error: OSError) -> str:
    """dial tcp HOST:PORT: connect: connection refused."""
    place = urlsplit(url).netloc
    return f"dial tcp {place}: connect: {_CONNECT_TEXTS.get(error.errno or 0, error.strerror or str(error))}"


async def _get(session: aiohttp.ClientSession, wanted: HttpTarget) -> ProbeResult:
    url, first_host = wanted.url, urlsplit(wanted.url).hostname
    for _ in range(_MAX_REDIRECTS + 1):
        async with session.get(url, headers=wanted.headers, allow_redirects=False, ssl=False) as response:
            body = (await response.content.read(_MAX_BODY)).decode(errors="replace")
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return _judge(response.status, body)
            url = urljoin(url, location)
            if urlsplit(url).hostname != first_host:
                return ProbeResult(True, f"Probe terminated redirects, Response body: {body}", warning=True)
    return ProbeResult(False, f'Get "{url}": stopped after {_MAX_REDIRECTS} redirects')


def _judge(status: int, body: str) -> ProbeResult:
    if 200 <= status < 400:
        return ProbeResult(True, body)
    return ProbeResult(False, f"HTTP probe failed with statuscode: {status}")
