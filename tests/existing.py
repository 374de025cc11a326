"""What may be None, and is not in a test that looks into it."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def existing(value: T | None) -> T:
    """The value. Fails if there is none."""
    assert value is not None
    return value
