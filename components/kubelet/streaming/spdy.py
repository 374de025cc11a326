"""SPDY/3.1 framing as exec, attach and port-forward use it: bytes in, events out; events in, bytes out. No I/O.

The draft is draft-mbelshe-httpbis-spdy-00 ("SPDY Protocol - Draft 3.1"); section numbers below are its.
Flow control (2.6.8) is left out on purpose: Kubernetes' own peers send no WINDOW_UPDATE and heed none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 0x01
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL = 1, 2, 3, 5
#: 2.2.2: a data frame's length has 24 bits; we send far smaller ones so that streams take turns.
MAX_DATA = 32 * 1024
#: Bytes of a header block, unpacked: a frame could stand for gigabytes.
MAX_HEADERS = 64 * 1024

# 2.6.10.1: names and values with their 32-bit lengths, then text that is likely in headers.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
).split()
_MORE_WORDS = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in (*_WORDS, *_MORE_WORDS)) + _TEXT.encode()


class SpdyError(Exception):
    """The peer broke the protocol; the connection cannot go on."""


@dataclass(frozen=True)
class StreamOpened:
    """SYN_STREAM (2.6.1): a new stream with its headers; fin: the peer will send nothing on it."""

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
    """A data frame (2.2.2); fin: the peer's half is closed."""

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
    """One side of a connection. Header compression has state, so frames must be fed and sent in order."""

    _buffer: bytearray = field(default_factory=bytearray)
    _inflate: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _deflate: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))

    def receive(self, data: bytes) -> Iterator[Event]:
        """Events of the frames that are complete with data. Raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[5:8], "big")
            if len(self._buffer) < 8 + length:
                return
            head, body = bytes(self._buffer[:8]), bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            event = self._frame(head, body)
            if event is not None:
                yield event

    def _frame(self, head: bytes, body: bytes) -> Event | None:
        first, flags = struct.unpack(">IB", head[:5])
        fin = bool(flags & FLAG_FIN)
        if not first & 0x80000000:
            return DataReceived(first, body, fin)
        version, kind = (first >> 16) & 0x7FFF, first & 0xFFFF
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
                self._headers(body[4:])  # keeps the decompressor in step
            case 3:
                stream, status = struct.unpack(">II", body[:8])
                return StreamReset(stream & 0x7FFFFFFF, status)
            case 6:
                return Pinged(struct.unpack(">I", body[:4])[0])
            case 7:
                return GoneAway(struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF)
        return None

    def _headers(self, compressed: bytes) -> dict[str, str]:
        """2.6.10: names are lower case; the first value counts where several are joined by NUL."""
        block = self._inflate.decompress(compressed, MAX_HEADERS)
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"a header block of more than {MAX_HEADERS} bytes")
        (count,) = struct.unpack_from(">I", block)
        offset, texts = 4, []
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", block, offset)
            texts.append(block[offset + 4 : offset + 4 + length].decode(errors="replace"))
            offset += 4 + length
        return {name.lower(): value.split("\0")[0] for name, value in zip(texts[::2], texts[1::2], strict=True)}

    def _header_block(self, headers: Mapping[str, str]) -> bytes:
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """SYN_STREAM; odd ids are the client's, even ones the server's."""
        return _control_frame(SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._header_block(headers), fin)

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        return _control_frame(SYN_REPLY, struct.pack(">I", stream) + self._header_block(headers or {}))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Data frames of MAX_DATA bytes at most; fin on the last (an empty one when there is no data)."""
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
