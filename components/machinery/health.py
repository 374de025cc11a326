"""/healthz, /livez, /readyz and /metrics of the process."""

from __future__ import annotations

import asyncio
import logging
import resource
import time

log = logging.getLogger(__name__)
_OK = ("/healthz", "/livez", "/readyz")


def metrics_text(started: float) -> str:
    """Prometheus text format: what every Kubernetes process says of itself."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = (
        ("process_cpu_seconds_total", "counter", usage.ru_utime + usage.ru_stime),
        ("process_max_resident_memory_bytes", "gauge", usage.ru_maxrss * 1024),
        ("process_start_time_seconds", "gauge", started),
    )
    return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in rows)


async def serve(address: str, port: int) -> asyncio.Server | None:
    """Plain HTTP/1.0; None when the port cannot be had (several labs share a network in tests)."""
    started = time.time()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5.0):
                request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode(errors="replace").partition("?")[0]
            writer.write(_response(path, started))
            await writer.drain()
        except (OSError, ValueError, IndexError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, address, port)
    except OSError as error:
        log.warning("no health endpoint at %s:%d: %s", address, port, error)
        return None


def _response(path: str, started: float) -> bytes:
    if path in _OK:
        status, body = "200 OK", "ok"
    elif path == "/metrics":
        status, body = "200 OK", metrics_text(started)
    else:
        status, body = "404 Not Found", "404 page not found\n"
    head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()
