"""Guards for a server's connection, datagram or request: a failure ends only that one, and is
logged once with its peer.

A server must not die from the input of one client, and its log must name the client. A peer that
disconnects, stays silent or speaks another protocol is not an error of the server (debug level).
Anything else is one, and gets a traceback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: What a peer can cause on a connection: its end, a time-out, too much data, data that does not
#: decode.
PEER_ERRORS = (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, UnicodeError)


def connections(handler: Handler, log: logging.Logger, *, most: int = 1024) -> Handler:
    """Wraps a handler for asyncio.start_server; the writer is closed at its end. If `most`
    connections are open, a new one is closed at once, which bounds descriptors and memory."""
    under_way = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way
        under_way += 1
        try:
            if under_way > most:
                log.warning("%s: refused: %d connections are open", peer_of(writer), most)
                return
            with failing_alone(log, peer_of(writer)):
                await handler(reader, writer)
        finally:
            under_way -= 1
            writer.close()

    return serve


@contextmanager
def failing_alone(log: logging.Logger, peer: str) -> Iterator[None]:
    """A context for work on behalf of one peer; an exception ends here."""
    try:
        yield
    except PEER_ERRORS as error:
        log.debug("%s: %s", peer, str(error) or type(error).__name__)
    except Exception:
        log.exception("%s: the connection ends by a fault", peer)


def callback(work: Callable[..., object], log: logging.Logger, what: str) -> Callable[..., None]:
    """Wraps a function for loop.add_reader. what: the socket's name in the log."""

    def call(*arguments: Any) -> None:
        with failing_alone(log, what):
            work(*arguments)

    return call


def peer_of(connection: asyncio.BaseTransport | asyncio.StreamWriter | None) -> str:
    """ "10.0.0.2:4711", "[fd00::2]:4711", the path of a unix socket, or "a client" if it has no
    name or is gone."""
    peer = connection.get_extra_info("peername") if connection is not None else None
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(peer) if peer else "a client"
