"""TLS as asyncio does it, at a price that a hundred nodes can pay."""

from __future__ import annotations

from asyncio import sslproto

#: A TLS record has 16 KiB at most (RFC 8446, section 5.2).
_READ_BUFFER = 32 * 1024


def small_buffers() -> None:
    """For all connections of this process that are made from now on: asyncio would give each a read buffer of 256 KiB
    at once. A hundred nodes keep more than a thousand watches open, nearly all of them idle."""
    sslproto.SSLProtocol.max_size = _READ_BUFFER
