"""A reader of protobuf's wire format, written apart from the encoder under test."""

from __future__ import annotations

from collections import defaultdict


def fields(content: bytes) -> dict[int, list[bytes | int]]:
    """Field number -> its values in order: bytes for length-delimited and 64-bit ones, numbers for varints."""
    found: dict[int, list[bytes | int]] = defaultdict(list)
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(content, position)
            found[number].append(value)
        elif kind == 1:
            found[number].append(content[position : position + 8])
            position += 8
        elif kind == 2:
            length, position = _varint(content, position)
            assert position + length <= len(content)
            found[number].append(content[position : position + length])
            position += length
        else:
            raise AssertionError(f"wire type {kind}")
    return dict(found)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def named(entries: list[bytes | int]) -> dict[str, bytes]:
    """NamedSchema, NamedPathItem, NamedAny: name = 1, value = 2."""
    result = {}
    for entry in entries:
        assert isinstance(entry, bytes)
        parts = fields(entry)
        name = parts[1][0]
        value = parts.get(2, [b""])[0]
        assert isinstance(name, bytes) and isinstance(value, bytes)
        result[name.decode()] = value
    return result
