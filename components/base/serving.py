"""The one place where a server's connection, datagram or request fails: it ends, it is logged once with its peer, and
nothing else happens.

A peer that goes, says nothing or speaks something else is no fault of ours (debug); anything else is, with a traceback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: What a peer can do to a connection: end it, be too slow, send too much or what does not decode.
PEER_ERRORS = (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, UnicodeError)


def connections(handler: Handler, log: logging.Logger, *, most: int = 1024) -> Handler:
    """For asyncio.start_server: handler, guarded; its writer is closed in the end. A connection beyond `most` at the
    same time is closed at once, so that descriptors and memory are bounded."""
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
    """What is done for one peer: its failure ends here."""
    try:
        yield
    except PEER_ERRORS as error:
        log.debug("%s: %s", peer, str(error) or type(error).__name__)
    except Exception:
        log.exception("%s: the connection ends by a fault", peer)


def callback(work: Callable[..., object], log: logging.Logger, what: str) -> Callable[..., None]:
    """For loop.add_reader: work, guarded; what names the socket."""

    def call(*arguments: Any) -> None:
        with failing_alone(log, what):
            work(*arguments)

    return call


def peer_of(connection: asyncio.BaseTransport | asyncio.StreamWriter | None) -> str:
    """ "10.0.0.2:4711", "[fd00::2]:4711", the path of a unix socket, or "a client" when it has no name or is gone."""
    peer = connection.get_extra_info("peername") if connection is not None else None
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(peer) if peer else "a client"
