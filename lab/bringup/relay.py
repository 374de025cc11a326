"""Carries connections from the API door to an API server that cannot inherit it.

Our API server listens on the door's unix socket itself. A program of the user's own in its place
listens only on its TCP port, so this process accepts what the door brings and connects it to that
port, both in the network namespace of the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

_CHUNK = 64 * 1024


def main(argv: list[str]) -> int:
    """argv: the number of the listening descriptor, the address and the port. Runs for ever."""
    descriptor, host, port = argv
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(socket.socket(fileno=int(descriptor)), host, int(port)))
    return 0


async def serve(listener: socket.socket, host: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:  # The API server does not listen yet.
            writer.close()
            return
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    listener.listen(1024)
    server = await asyncio.start_unix_server(carry, sock=listener)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction, and its end, to the other side."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        return
    writer.close()
