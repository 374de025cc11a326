"""/healthz, /livez, /readyz and /metrics of the process, and the small server that has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubewire.components.base import process, serving

log = logging.getLogger(__name__)
_OK = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True)
class Page:
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


_NOT_FOUND = Page(b"404 page not found\n")


async def serve(address: str, port: int) -> asyncio.Server | None:
    """Serves them on a port. Returns None if the port is in use (in tests several labs share a
    network)."""
    started = time.time()
    ok = dict.fromkeys(_OK, lambda: Page(b"ok"))
    try:
        return await serve_pages(
            {**ok, "/metrics": lambda: Page(process.metrics_text(started).encode())},
            address,
            port,
            log,
        )
    except OSError as error:
        log.warning("no health endpoint at %s:%d: %s", address, port, error)
        return None


async def serve_pages(
    pages: Mapping[str, Callable[[], Page]], address: str, port: int, log: logging.Logger
) -> asyncio.Server:
    """Serves plain HTTP/1.0: for each path a page that is made for each request, else 404. Raises
    OSError if the port is in use.

    It needs no library, and so fits into agents that have none. A server with methods, patterns of
    paths, TLS or connections that stay takes aiohttp.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(5.0):
            request = await reader.readuntil(b"\r\n\r\n")
            words = request.partition(b"\r\n")[0].split(b" ")
            if len(words) < 2:
                return
            make = pages.get(words[1].decode(errors="replace").partition("?")[0])
            status, page = ("200 OK", make()) if make else ("404 Not Found", _NOT_FOUND)
            head = f"HTTP/1.0 {status}\r\nContent-Type: {page.content_type}\r\nContent-Length: {len(page.body)}\r\n\r\n"
            writer.write(head.encode() + page.body)
            await writer.drain()

    return await asyncio.start_server(serving.connections(answer, log), address, port)
