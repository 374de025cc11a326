"""The grpc probe: grpc.health.v1.Health/Check over HTTP/2 without TLS
(https://github.com/grpc/grpc/blob/master/doc/health-checking.md).

A single request on a connection needs so little of HTTP/2 (RFC 9113) that no library is loaded for
it. Headers are sent as HPACK literals without indexing (RFC 7541, 6.2.2), and only the DATA frames
of the answer are read. An answer without DATA is a refusal; its reason is in compressed trailers,
which are not read.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator

from kubewire.components.kubelet.probes.http import USER_AGENT, ProbeResult, dial_error

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA = 0
_HEADERS = 1
_RST_STREAM = 3
_SETTINGS = 4
_PING = 6
_GOAWAY = 7
_END_STREAM = 1
_END_HEADERS = 4
_ACK = 1
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    parts = (name.encode(), value.encode())
    return b"\0" + b"".join(_length(len(part)) + part for part in parts)


def _length(size: int) -> bytes:
    """An HPACK integer with a 7-bit prefix (RFC 7541, 5.1)."""
    if size < 127:
        return bytes((size,))
    rest = size - 127
    out = bytearray((127,))
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)


def request(authority: str, service: str) -> bytes:
    """All that the client sends before the answer."""
    headers = b"".join(
        _literal(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", USER_AGENT),
        )
    )
    encoded = service.encode()
    # HealthCheckRequest has a single field, `service` (number 1), which is omitted if it is empty.
    message = b"\x0a" + _length_varint(len(encoded)) + encoded if encoded else b""
    body = b"\0" + struct.pack(">I", len(message)) + message
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0)
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )


def _length_varint(size: int) -> bytes:
    out = bytearray()
    while size >= 128:
        out.append(size % 128 + 128)
        size //= 128
    out.append(size)
    return bytes(out)


def serving_status(data: bytes) -> int | None:
    """HealthCheckResponse.status of a gRPC message; None without a message."""
    if len(data) < 5:
        return None
    message = data[5 : 5 + int.from_bytes(data[1:5], "big")]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


def _frames(buffer: bytearray) -> Iterator[tuple[int, int, bytes]]:
    while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
        size = int.from_bytes(buffer[:3], "big")
        kind = buffer[3]
        flags = buffer[4]
        payload = bytes(buffer[9 : 9 + size])
        del buffer[: 9 + size]
        yield kind, flags, payload


async def probe(host: str, port: int, service: str, timeout: float) -> ProbeResult:
    """Asks for the health of a service; succeeds with SERVING. The texts are upstream's."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout):
            data = await _exchange(host, port, request(place, service))
    except TimeoutError:
        why = f'failed to connect service "{place}" within {timeout:g}s: context deadline exceeded'
        return ProbeResult(False, f"timeout: {why}")
    except OSError as error:
        cause = dial_error(f"tcp://{place}", error)
        return ProbeResult(False, f"error: health rpc probe failed: {cause}")
    status = serving_status(data)
    if status is None:
        text = "error: this server does not implement the grpc health protocol"
        return ProbeResult(False, f"{text} (grpc.health.v1.Health)")
    if status != 1:
        name = _STATUSES.get(status, str(status))
        return ProbeResult(False, f'service unhealthy (responded with "{name}")')
    return ProbeResult(True, "service healthy")


async def _exchange(host: str, port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    data = b""
    buffer = bytearray()
    try:
        writer.write(sent)
        while chunk := await reader.read(65536):
            buffer += chunk
            for kind, flags, payload in _frames(buffer):
                if kind == _SETTINGS and not flags & _ACK:
                    writer.write(_frame(_SETTINGS, _ACK, 0))
                elif kind == _PING and not flags & _ACK:
                    writer.write(_frame(_PING, _ACK, 0, payload))
                elif kind == _DATA:
                    data += payload
                ends_stream = kind in (_DATA, _HEADERS) and flags & _END_STREAM
                if ends_stream or kind in (_RST_STREAM, _GOAWAY):
                    return data
    finally:
        writer.close()
    return data
