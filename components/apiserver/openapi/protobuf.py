"""Encodes the parts of protobuf's wire format that the OpenAPI documents need
(https://protobuf.dev/programming-guides/encoding/).

Empty values are omitted, as in proto3.
"""

from __future__ import annotations

_VARINT = 0
_FIXED64 = 1
_LENGTH = 2


def varint(number: int) -> bytes:
    """Base 128, least significant group first; a negative number is 64-bit two's complement."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def message(field: int, content: bytes) -> bytes:
    """An embedded message; an empty one is encoded too, which shows that it is present."""
    return _tag(field, _LENGTH) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    return message(field, value.encode()) if value else b""


def texts(field: int, values: list[str]) -> bytes:
    """Repeated strings; empty ones are encoded too."""
    return b"".join(message(field, value.encode()) for value in values)


def boolean(field: int, value: bool) -> bytes:
    return _tag(field, _VARINT) + b"\x01" if value else b""


def integer(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + varint(value) if value else b""


def double(field: int, value: float) -> bytes:
    import struct

    return _tag(field, _FIXED64) + struct.pack("<d", value) if value else b""
