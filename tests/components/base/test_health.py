"""/healthz and /metrics of a process, over a real socket."""

from __future__ import annotations

import asyncio

import pytest

from kubewire.components.base import health


async def answer_to(request: bytes) -> bytes:
    server = await health.serve("127.0.0.1", 0)
    assert server is not None
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/healthz?verbose"])
def test_a_process_that_runs_is_healthy(path: str) -> None:
    head, _, body = asyncio.run(answer_to(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Content-Length: 2" in head
    assert body == b"ok"


def test_metrics_say_what_the_process_uses() -> None:
    _, _, body = asyncio.run(answer_to(b"GET /metrics HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
    values = dict(line.split() for line in body.decode().splitlines() if not line.startswith("#"))
    assert float(values["process_cpu_seconds_total"]) > 0
    assert float(values["process_max_resident_memory_bytes"]) > 1 << 20


def test_another_path_is_not_found() -> None:
    assert asyncio.run(answer_to(b"GET /etc/passwd HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.0 404 Not Found\r\n")


@pytest.mark.parametrize("request_bytes", [b"", b"nonsense\r\n\r\n"], ids=["nothing", "no HTTP"])
def test_what_is_no_request_gets_no_answer(request_bytes: bytes) -> None:
    assert asyncio.run(answer_to(request_bytes)) == b""


def test_a_port_that_is_taken_is_done_without() -> None:
    async def serve_twice() -> None:
        first = await health.serve("127.0.0.1", 0)
        assert first is not None
        async with first:
            assert await health.serve(*first.sockets[0].getsockname()) is None

    asyncio.run(serve_twice())
