"""As much of HTTP/2 (RFC 9113) as a gRPC server with one unary method needs; bytes in, bytes out.

Headers of requests are not decoded, so every request is taken for one of that method. Headers of
answers are HPACK literals without indexing (RFC 7541, 6.2.2), which need no state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
_MOST_FRAME = 1 << 14
_MOST_MESSAGE = 1 << 16
_MOST_STREAMS = 1024


class ProtocolError(Exception):
    """The client does not speak HTTP/2; the connection is closed."""


@dataclass(frozen=True)
class Reply:
    """The answer to a call. code: 0 for a message, else gRPC's status code with its text."""

    code: int = 0
    message: bytes = b""
    text: str = ""


#: Answers a call's message (a protobuf, without gRPC's prefix).
Method = Callable[[bytes], Reply]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
    return head + struct.pack(">I", stream) + payload


def headers(values: Mapping[str, str]) -> bytes:
    """A header block. The names and values are shorter than 127 bytes."""
    block = b""
    for name, value in values.items():
        parts = (name.encode(), value.encode()[:126])
        block += b"\0" + b"".join(bytes((len(part),)) + part for part in parts)
    return block


@dataclass
class Connection:
    """The server's side of a connection."""

    method: Method
    _buffer: bytearray = field(default_factory=bytearray)
    _started: bool = False
    _bodies: dict[int, bytearray] = field(default_factory=dict)

    def receive(self, data: bytes) -> bytes:
        """Takes received bytes; returns those to send. Raises ProtocolError."""
        self._buffer += data
        out = b"" if self._started else self._start()
        while self._started and len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            if length > _MOST_FRAME:
                raise ProtocolError(f"a frame of {length} bytes")
            if len(self._buffer) < 9 + length:
                break
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9], "big") & 0x7FFFFFFF
            payload = bytes(self._buffer[9 : 9 + length])
            del self._buffer[: 9 + length]
            out += self._frame(kind, flags, stream, payload)
        return out

    def _start(self) -> bytes:
        if not PREFACE.startswith(bytes(self._buffer[: len(PREFACE)])):
            raise ProtocolError("no HTTP/2 preface")
        if len(self._buffer) < len(PREFACE):
            return b""
        del self._buffer[: len(PREFACE)]
        self._started = True
        return frame(SETTINGS, 0, 0)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        match kind:
            case _ if kind == SETTINGS and not flags & ACK:
                return frame(SETTINGS, ACK, 0)
            case _ if kind == PING and not flags & ACK:
                return frame(PING, ACK, 0, payload)
            case _ if kind == RST_STREAM:
                self._bodies.pop(stream, None)
            case _ if kind == HEADERS:
                if len(self._bodies) >= _MOST_STREAMS:
                    raise ProtocolError("too many streams")
                self._bodies.setdefault(stream, bytearray())
                if flags & END_STREAM:
                    return self._answer(stream)
            case _ if kind == DATA and stream in self._bodies:
                start, end = (
                    (1, len(payload) - payload[0])
                    if flags & PADDED and payload
                    else (0, len(payload))
                )
                self._bodies[stream] += payload[start:end]
                if len(self._bodies[stream]) > _MOST_MESSAGE:
                    raise ProtocolError("the message is too long")
                if flags & END_STREAM:
                    return self._answer(stream)
        return b""

    def _answer(self, stream: int) -> bytes:
        body = bytes(self._bodies.pop(stream))
        reply = self.method(body[5:])  # a byte for compression, and the length in four
        first = {":status": "200", "content-type": "application/grpc"}
        ending = {"grpc-status": str(reply.code)}
        if reply.code:
            block = headers({**first, **ending, "grpc-message": reply.text})
            return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
        message = b"\0" + struct.pack(">I", len(reply.message)) + reply.message
        return (
            frame(HEADERS, END_HEADERS, stream, headers(first))
            + frame(DATA, 0, stream, message)
            + frame(HEADERS, END_HEADERS | END_STREAM, stream, headers(ending))
        )
