"""Users' regular expressions in Go's syntax (https://github.com/google/re2/wiki/Syntax).

They are matched by RE2 in linear time, as by Go's regexp, which is modelled on it. Python's `re`
backtracks, and patterns such as `^(a+)+$` can take it exponential time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

#: RE2's errors and the ErrorCode of regexp/syntax that corresponds to each.
_GO_TEXTS = {
    "invalid character class": "invalid character class",
    "invalid character class range": "invalid character class range",
    "invalid escape sequence": "invalid escape sequence",
    "invalid named capture group": "invalid named capture",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid UTF-8": "invalid UTF-8",
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "unexpected )": "unexpected )",
    "trailing \\": "trailing backslash at end of expression",
    "pattern too large - compile failed": "expression too large",
}
#: The most bytes of a compiled pattern. Compiling holds the interpreter lock, and with this limit
#: takes at most 50 ms.
_MOST_MEMORY = 2 * 1024 * 1024


class PatternError(ValueError):
    """The pattern does not compile; the message is that of Go's regexp.Compile."""


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    import re2  # The import is late because only custom resources have patterns.

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        text = said.decode() if isinstance(said, bytes) else str(said)
        raise PatternError(_go_text(text, pattern)) from error


def _go_text(said: str, pattern: str) -> str:
    code, _, expression = said.partition(": ")
    if code not in _GO_TEXTS:
        return f"error parsing regexp: {code}: `{expression or pattern}`"
    return f"error parsing regexp: {_GO_TEXTS[code]}: `{expression or pattern}`"


def check(pattern: str) -> None:
    """Raises PatternError when Go cannot compile the pattern."""
    _compiled(pattern)


def found_in(pattern: str, text: str) -> bool:
    """Whether the pattern matches somewhere in the text; raises PatternError."""
    return _compiled(pattern).search(text) is not None


def matches(pattern: str, text: str, most: int = -1) -> list[str]:
    """The texts that the pattern matches, at most `most` of them unless that is negative."""
    found: list[str] = []
    for match in _compiled(pattern).finditer(text):
        if most >= 0 and len(found) >= most:
            break
        found.append(match.group(0))
    return found
