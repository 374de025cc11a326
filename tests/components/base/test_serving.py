"""A connection's failure ends that connection, is logged once with its peer, and nothing else."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kubewire.components.base import serving

log = logging.getLogger("served")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readuntil(b"\n")
    if line == b"fault\n":
        raise RecursionError("a fault of ours")
    if line == b"slow\n":
        raise TimeoutError
    writer.write(b"hello " + line)
    await writer.drain()


async def ask(port: int, line: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line)
    answer = await reader.read()
    writer.close()
    return answer


async def served(*lines: bytes) -> list[bytes]:
    server = await asyncio.start_server(serving.connections(greet, log), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers = [await ask(port, line) for line in lines]
    server.close()
    return answers


def test_a_fault_ends_its_connection_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = asyncio.run(served(b"fault\n", b"slow\n", b"you\n"))
    assert answers == [b"", b"", b"hello you\n"]
    (record,) = caplog.records
    assert record.getMessage().startswith("127.0.0.1:")
    assert "RecursionError: a fault of ours" in caplog.text


def test_what_a_peer_does_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "served")

    async def leave() -> list[bytes]:
        server = await asyncio.start_server(serving.connections(greet, log), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"half")
        writer.close()
        answers = [await ask(port, b"x" * 70_000), await ask(port, b"you\n")]
        server.close()
        return answers

    assert asyncio.run(leave())[1] == b"hello you\n"
    assert {record.levelname for record in caplog.records if record.name == "served"} == {"DEBUG"}


def test_connections_are_bounded() -> None:
    async def crowd() -> list[bytes]:
        server = await asyncio.start_server(serving.connections(greet, log, most=2), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await ask(port, b"")
        for _, writer in waiting:
            writer.write(b"you\n")
        answers = [await reader.read() for reader, _ in waiting]
        answers += [refused, await ask(port, b"again\n")]
        for _, writer in waiting:
            writer.close()
        server.close()
        return answers

    assert asyncio.run(crowd()) == [b"hello you\n", b"hello you\n", b"", b"hello again\n"]


def test_a_callback_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise KeyError("x")

    serving.callback(fail, log, "sleeve")()
    assert caplog.records[0].getMessage() == "sleeve: the connection ends by a fault"
