"""Warning headers (RFC 7234, 5.5), as endpoints/filters/warning.go of apiserver writes them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: Characters of all warnings of an answer, above which each is cut.
_MOST = 4096
#: Characters of a warning that is cut.
_CUT = 256


def warning_headers(texts: Iterable[str]) -> list[str]:
    """One value for each text; repeated ones are dropped, and many long ones are cut."""
    shown = [text for text in dict.fromkeys(texts) if text and not _has_controls(text)]
    if sum(len(text) for text in shown) <= _MOST:
        return [_header(text) for text in shown]
    headers = []
    written = 0
    for text in shown:
        if written >= _MOST:
            break
        headers.append(_header(text[:_CUT]))
        written += len(text[:_CUT])
    return headers


def _header(text: str) -> str:
    """A miscellaneous persistent warning by an unnamed agent."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)
