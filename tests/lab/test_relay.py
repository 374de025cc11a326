"""The way from the door to an API server that cannot inherit it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from kubewire.lab.bringup import relay


def test_both_directions_and_their_ends_are_carried(tmp_path: Path) -> None:
    async def act() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await reader.read()
            writer.write(b"you said " + asked)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "door"))
        port = server.sockets[0].getsockname()[1]
        carrying = asyncio.create_task(relay.serve(listener, "127.0.0.1", port))
        await asyncio.sleep(0)
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "door"))
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0)
        writer.write(b"hello")
        writer.write_eof()
        async with asyncio.timeout(10):
            heard = await reader.read()
        writer.close()
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
        server.close()
        return heard

    assert asyncio.run(act()) == b"you said hello"
