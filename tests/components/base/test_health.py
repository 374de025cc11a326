"""/healthz and /metrics of a process, over a real socket."""

from __future__ import annotations

import asyncio
import logging

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


def test_an_agent_has_pages_of_its_own_that_are_made_for_each_request() -> None:
    asked: list[int] = []

    def page() -> health.Page:
        asked.append(1)
        return health.Page(f'{{"asked": {len(asked)}}}'.encode(), "application/json")

    async def ask_twice() -> list[bytes]:
        server = await health.serve_pages({"/v1/enis": page}, "127.0.0.1", 0, logging.getLogger())
        answers = []
        async with server:
            for path in (b"/v1/enis", b"/v1/enis", b"/healthz"):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"GET " + path + b" HTTP/1.0\r\n\r\n")
                answers.append(await reader.read())
                writer.close()
        return answers

    first, second, other = asyncio.run(ask_twice())
    assert b"Content-Type: application/json\r\nContent-Length: 12\r\n" in first
    assert second.endswith(b'\r\n\r\n{"asked": 2}')
    assert other.startswith(b"HTTP/1.0 404 Not Found\r\n")


def test_an_agent_that_needs_its_port_is_told_that_it_is_taken() -> None:
    async def serve_twice() -> None:
        first = await health.serve_pages({}, "127.0.0.1", 0, logging.getLogger())
        async with first:
            with pytest.raises(OSError):
                port = first.sockets[0].getsockname()[1]
                await health.serve_pages({}, "127.0.0.1", port, logging.getLogger())

    asyncio.run(serve_twice())
