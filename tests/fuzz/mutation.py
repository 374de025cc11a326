"""Mutations of valid messages, as fuzzers make them: bits, bytes, lengths, cuts, repeats and splices."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

_EDGES = (0, 1, 0x7F, 0x80, 0xFF)
_WIDE = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFFFF)


def mutated(chance: random.Random, corpus: Sequence[bytes], most: int = 4) -> bytes:
    """One of the corpus after one to `most` mutations."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, most)):
        data = chance.choice(_MUTATIONS)(chance, data, corpus)
    return bytes(data)


def _flip(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _byte(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    if data:
        data[chance.randrange(len(data))] = chance.choice((*_EDGES, chance.randrange(256)))
    return data


def _number(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """A field that counts: two or four bytes of an extreme, in either order of bytes."""
    size = chance.choice((2, 4))
    if len(data) >= size:
        at = chance.randrange(len(data) - size + 1)
        value = chance.choice(_WIDE) & ((1 << 8 * size) - 1)
        data[at : at + size] = value.to_bytes(size, chance.choice(("big", "little")))
    return data


def _cut(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return data[: chance.randrange(len(data) + 1)]


def _drop(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.choice((1, 2, 4, 8))]
    return data


def _insert(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 16)))
    return data


def _repeat(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = chance.randrange(len(data) + 1)
    piece = bytes(data[at : at + chance.choice((1, 4, 20, 40))])
    data[at:at] = piece * chance.choice((1, 2, 30))
    return data


def _splice(chance: random.Random, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
    other = chance.choice(corpus)
    return data[: chance.randrange(len(data) + 1)] + bytearray(other[chance.randrange(len(other) + 1) :])


_MUTATIONS = (_flip, _byte, _byte, _number, _cut, _drop, _insert, _repeat, _splice)

#: Values that no field of a JSON document expects.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 2**64, 1e308, 0.5, "", "\x00", "x" * 300, "../..", "ÿ\U0001f600"),
    *([], {}, [None], [[]], {"": None}, [1, "a", {}], {"a": {"b": {"c": []}}}),
)


def mutated_json(chance: random.Random, document: Any, most: int = 3) -> Any:
    """A copy of a JSON document with some values replaced, removed, added or renamed."""
    for _ in range(chance.randint(1, most)):
        document = _replaced(chance, document)
    return document


def _replaced(chance: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.8:
        return _replaced_key(chance, dict(value))
    if isinstance(value, list) and value and chance.random() < 0.8:
        items = list(value)
        at = chance.randrange(len(items))
        match chance.randrange(4):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[at])
            case _:
                items[at] = _replaced(chance, items[at])
        return items
    return chance.choice(STRANGE)


def _replaced_key(chance: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    key = chance.choice(list(value))
    match chance.randrange(6):
        case 0:
            del value[key]
        case 1:
            value[f"{key}x"] = value.pop(key)
        case 2:
            value[chance.choice(("extra", "", "\x00", "__class__"))] = chance.choice(STRANGE)
        case _:
            value[key] = _replaced(chance, value[key])
    return value
