"""TLS in asyncio with less memory, for labs with a hundred nodes."""

from __future__ import annotations

from asyncio import sslproto

#: A TLS record has 16 KiB at most (RFC 8446, section 5.2).
_READ_BUFFER = 32 * 1024


def small_buffers() -> None:
    """Reduces the buffers of all later connections of this process. By default asyncio allocates a
    read buffer of 256 KiB for each, and a hundred nodes keep more than a thousand watches open,
    nearly all of them idle."""
    sslproto.SSLProtocol.max_size = _READ_BUFFER
