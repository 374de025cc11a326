"""The grpc probe: grpc.health.v1.Health/Check over HTTP/2 without TLS
(https://github.com/grpc/grpc/blob/master/doc/health-checking.md).

One request on one connection needs so little of HTTP/2 (RFC 9113) that no library is loaded for it: headers
are sent as HPACK literals without indexing (RFC 7541, 6.2.2), and of the answer only DATA is read. A server
that answers without DATA has refused (its reason is in compressed trailers, which we do not read).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator

from kubewire.components.kubelet.probes.http import USER_AGENT, ProbeResult, dial_error

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    parts = (name.encode(), value.encode())
    return b"\0" + b"".join(_length(len(part)) + part for part in parts)


def _length(size: int) -> bytes:
    """An HPACK integer with a 7 bit prefix (RFC 7541, 5.1)."""
    if size < 127:
        return bytes((size,))
    rest, out = size - 127, bytearray((127,))
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)


def request(authority: str, service: str) -> bytes:
    """Everything the client sends before the answer."""
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
    # HealthCheckRequest: field 1, length-delimited; absent when empty.
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
    """HealthCheckResponse.status of a whole gRPC message; None when there is none."""
    if len(data) < 5:
        return None
    message = data[5 : 5 + int.from_bytes(data[1:5], "big")]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


def _frames(buffer: bytearray) -> Iterator[tuple[int, int, bytes]]:
    while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
        size = int.from_bytes(buffer[:3], "big")
        kind, flags, payload = buffer[3], buffer[4], bytes(buffer[9 : 9 + size])
        del buffer[: 9 + size]
        yield kind, flags, payload


async def probe(host: str, port: int, service: str, timeout: float) -> ProbeResult:
    """SERVING is success; texts as upstream's pkg/probe/grpc."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout):
            data = await _exchange(host, port, request(place, service))
    except TimeoutError:
        why = f'failed to connect service "{place}" within {timeout:g}s: context deadline exceeded'
        return ProbeResult(False, f"timeout: {why}")
    except OSError as error:
        return ProbeResult(False, f"error: health rpc probe failed: {dial_error(f'tcp://{place}', error)}")
    status = serving_status(data)
    if status is None:
        text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return ProbeResult(False, text)
    if status != 1:
        return ProbeResult(False, f'service unhealthy (responded with "{_STATUSES.get(status, str(status))}")')
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
                if kind in (_RST_STREAM, _GOAWAY) or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                    return data
    finally:
        writer.close()
    return data
