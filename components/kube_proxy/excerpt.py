"""The lines around the one that a tool could not take, for its error."""

from __future__ import annotations

_CONTEXT_LINES = 3


def around(text: str, number: int) -> str:
    """Numbered lines; number counts from 1."""
    lines = text.splitlines()
    first = max(number - _CONTEXT_LINES, 1)
    shown = lines[first - 1 : number + _CONTEXT_LINES - 1]
    return "\n".join(f"{first + i:6} {line}" for i, line in enumerate(shown))
