"""/healthz, /livez, /readyz and /metrics of the process."""

from __future__ import annotations

import asyncio
import logging
import resource
import time

from kubewire.components.base import serving

log = logging.getLogger(__name__)
_OK = ("/healthz", "/livez", "/readyz")


def metrics_text(started: float) -> str:
    """The metrics, in Prometheus text format, that every Kubernetes process has."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = (
        ("process_cpu_seconds_total", "counter", usage.ru_utime + usage.ru_stime),
        ("process_max_resident_memory_bytes", "gauge", usage.ru_maxrss * 1024),
        ("process_start_time_seconds", "gauge", started),
    )
    return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in rows)


async def serve(address: str, port: int) -> asyncio.Server | None:
    """Serves plain HTTP/1.0. Returns None if the port is in use (in tests several labs share a
    network)."""
    started = time.time()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(5.0):
            request = await reader.readuntil(b"\r\n\r\n")
            words = request.partition(b"\r\n")[0].split(b" ")
            if len(words) < 2:
                return
            writer.write(_response(words[1].decode(errors="replace").partition("?")[0], started))
            await writer.drain()

    try:
        return await asyncio.start_server(serving.connections(answer, log), address, port)
    except OSError as error:
        log.warning("no health endpoint at %s:%d: %s", address, port, error)
        return None


def _response(path: str, started: float) -> bytes:
    if path in _OK:
        status = "200 OK"
        body = "ok"
    elif path == "/metrics":
        status = "200 OK"
        body = metrics_text(started)
    else:
        status = "404 Not Found"
        body = "404 page not found\n"
    head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()
