"""The httpGet probe (upstream: pkg/probe/http).

The request leaves from the node's network namespace. Each probe opens a connection of its own,
certificates are not verified, and redirects are followed only on the same host.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import aiohttp

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import HTTPGetAction

USER_AGENT = "kube-probe/1.36"
_MAX_REDIRECTS = 10
_MAX_BODY = 10 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe. warning: a success whose output becomes an event ProbeWarning."""

    success: bool
    output: str = ""
    warning: bool = False


@dataclass(frozen=True)
class HttpTarget:
    """The request of an httpGet probe or hook."""

    url: str
    headers: Mapping[str, str]


def target(action: HTTPGetAction, pod_ip: str, port: int) -> HttpTarget:
    """The request of an HTTPGetAction; its Host header overrides the one of the URL."""
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    bracketed = f"[{host}]" if ":" in host else host
    path = action.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    for entry in action.get("httpHeaders") or []:
        name = "-".join(part.capitalize() for part in entry["name"].split("-"))
        headers[name] = entry.get("value") or ""
    given = {name: value for name, value in headers.items() if value}
    return HttpTarget(f"{scheme}://{bracketed}:{port}{path}", given)


async def probe(session: aiohttp.ClientSession, wanted: HttpTarget, timeout: float) -> ProbeResult:
    """Sends the request; succeeds with a status from 200 to 399. The texts are net/http's."""
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
    """Go's text for a failed connection, for example
    dial tcp HOST:PORT: connect: connection refused."""
    place = urlsplit(url).netloc
    why = _CONNECT_TEXTS.get(error.errno or 0, error.strerror or str(error))
    return f"dial tcp {place}: connect: {why}"


async def _get(session: aiohttp.ClientSession, wanted: HttpTarget) -> ProbeResult:
    url = wanted.url
    first_host = urlsplit(wanted.url).hostname
    for _ in range(_MAX_REDIRECTS + 1):
        async with session.get(
            url,
            headers=wanted.headers,
            allow_redirects=False,
            ssl=False,
        ) as response:
            body = (await response.content.read(_MAX_BODY)).decode(errors="replace")
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return _judge(response.status, body)
            url = urljoin(url, location)
            if urlsplit(url).hostname != first_host:
                text = f"Probe terminated redirects, Response body: {body}"
                return ProbeResult(True, text, warning=True)
    return ProbeResult(False, f'Get "{url}": stopped after {_MAX_REDIRECTS} redirects')


def _judge(status: int, body: str) -> ProbeResult:
    if 200 <= status < 400:
        return ProbeResult(True, body)
    return ProbeResult(False, f"HTTP probe failed with statuscode: {status}")
