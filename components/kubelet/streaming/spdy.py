"""SPDY/3.1 framing for exec, attach and port-forward: bytes in, events out, and back. No I/O.

The specification is draft-mbelshe-httpbis-spdy-00 ("SPDY Protocol - Draft 3.1"), which section
numbers here refer to. Flow control (2.6.8) is omitted on purpose: Kubernetes' peers send no
WINDOW_UPDATE and ignore it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VERSION = 3
SYN_STREAM = 1
SYN_REPLY = 2
RST_STREAM = 3
SETTINGS = 4
PING = 6
GOAWAY = 7
HEADERS = 8
WINDOW_UPDATE = 9
FLAG_FIN = 0x01
PROTOCOL_ERROR = 1
INVALID_STREAM = 2
REFUSED_STREAM = 3
CANCEL = 5
#: The largest data frame to send. The length has 24 bits (2.2.2), but short frames let the streams
#: take turns.
MAX_DATA = 32 * 1024
#: The largest header block after decompression; a small frame could expand to gigabytes.
MAX_HEADERS = 64 * 1024

# The dictionary of the header compression (2.6.10.1): words with their 32-bit lengths, then text
# that is frequent in headers. Both sides must have exactly the same one.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
).split()
_MORE_WORDS = [
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
]
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,"
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
_WITH_LENGTHS = [struct.pack(">I", len(word)) + word.encode() for word in _WORDS + _MORE_WORDS]
DICTIONARY = b"".join(_WITH_LENGTHS) + _TEXT.encode()


class SpdyError(Exception):
    """The peer violated the protocol; the connection cannot continue."""


@dataclass(frozen=True)
class StreamOpened:
    """SYN_STREAM (2.6.1): a new stream. fin: the peer sends nothing on it."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True)
class StreamReplied:
    """SYN_REPLY (2.6.2)."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True)
class DataReceived:
    """A data frame (2.2.2). fin: the peer sends no more on this stream."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True)
class StreamReset:
    """RST_STREAM (2.6.3)."""

    stream: int
    status: int


@dataclass(frozen=True)
class Pinged:
    """PING (2.6.5); answer it with Connection.ping(number)."""

    number: int


@dataclass(frozen=True)
class GoneAway:
    """GOAWAY (2.6.6): the peer opens no more streams."""

    last_stream: int


Event = StreamOpened | StreamReplied | DataReceived | StreamReset | Pinged | GoneAway


@dataclass
class Connection:
    """One side of a connection.

    Header compression has state, so frames must be received and sent in the order of the calls.
    """

    _buffer: bytearray = field(default_factory=bytearray)
    _inflate: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _deflate: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))

    def receive(self, data: bytes) -> Iterator[Event]:
        """Takes received bytes, and yields the events of complete frames. Raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[5:8], "big")
            if len(self._buffer) < 8 + length:
                return
            head = bytes(self._buffer[:8])
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            event = self._frame(head, body)
            if event is not None:
                yield event

    def _frame(self, head: bytes, body: bytes) -> Event | None:
        first, flags = struct.unpack(">IB", head[:5])
        fin = bool(flags & FLAG_FIN)
        if not first & 0x80000000:
            return DataReceived(first, body, fin)
        version = (first >> 16) & 0x7FFF
        kind = first & 0xFFFF
        if version != VERSION:
            raise SpdyError(f"SPDY version {version}, {VERSION} is spoken here")
        try:
            return self._control(kind, body, fin)
        except (struct.error, zlib.error) as error:
            raise SpdyError(f"malformed frame of type {kind}: {error}") from error

    def _control(self, kind: int, body: bytes, fin: bool) -> Event | None:
        match kind:
            case 1:
                stream, _, _ = struct.unpack(">IIH", body[:10])
                return StreamOpened(stream & 0x7FFFFFFF, self._headers(body[10:]), fin)
            case 2:
                (stream,) = struct.unpack(">I", body[:4])
                return StreamReplied(stream & 0x7FFFFFFF, self._headers(body[4:]), fin)
            case 8:
                self._headers(body[4:])  # the decompressor must see every header block
            case 3:
                stream, status = struct.unpack(">II", body[:8])
                return StreamReset(stream & 0x7FFFFFFF, status)
            case 6:
                return Pinged(struct.unpack(">I", body[:4])[0])
            case 7:
                return GoneAway(struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF)
        return None

    def _headers(self, compressed: bytes) -> dict[str, str]:
        """Reads a header block (2.6.10); keeps the first of several values, which NUL separates."""
        block = self._inflate.decompress(compressed, MAX_HEADERS)
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"a header block of more than {MAX_HEADERS} bytes")
        (count,) = struct.unpack_from(">I", block)
        offset = 4
        texts = []
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", block, offset)
            texts.append(block[offset + 4 : offset + 4 + length].decode(errors="replace"))
            offset += 4 + length
        pairs = zip(texts[::2], texts[1::2], strict=True)
        return {name.lower(): value.split("\0")[0] for name, value in pairs}

    def _header_block(self, headers: Mapping[str, str]) -> bytes:
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """SYN_STREAM. Clients use odd stream ids, servers even ones."""
        body = struct.pack(">IIH", stream, 0, 0) + self._header_block(headers)
        return _control_frame(SYN_STREAM, body, fin)

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        body = struct.pack(">I", stream) + self._header_block(headers or {})
        return _control_frame(SYN_REPLY, body)

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Data frames of at most MAX_DATA bytes. fin: the last one ends this half of the stream."""
        chunks = [data[i : i + MAX_DATA] for i in range(0, len(data), MAX_DATA)] or [b""]
        frames = b""
        for number, chunk in enumerate(chunks, start=1):
            flags = FLAG_FIN if fin and number == len(chunks) else 0
            frames += struct.pack(">IB", stream, flags) + len(chunk).to_bytes(3, "big") + chunk
        return frames

    def reset(self, stream: int, status: int = CANCEL) -> bytes:
        return _control_frame(RST_STREAM, struct.pack(">II", stream, status))

    def ping(self, number: int) -> bytes:
        return _control_frame(PING, struct.pack(">I", number))


def _control_frame(kind: int, body: bytes, fin: bool = False) -> bytes:
    first = 0x80000000 | VERSION << 16 | kind
    return struct.pack(">IB", first, FLAG_FIN if fin else 0) + len(body).to_bytes(3, "big") + body
