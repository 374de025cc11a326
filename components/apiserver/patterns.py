"""Users' regular expressions: Go's syntax (https://github.com/google/re2/wiki/Syntax), matched in linear time.

Python's `re` backtracks: `^(a+)+$` takes it longer than anybody waits. RE2 is what Go's regexp was made after."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

#: RE2's complaint -> regexp/syntax's ErrorCode.
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
#: Bytes of one compiled pattern. Compiling holds the interpreter lock: with these it takes 50 ms at most.
_MOST_MEMORY = 2 * 1024 * 1024


class PatternError(ValueError):
    """What Go's regexp.Compile says."""


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    import re2  # late: only custom resources have patterns

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        raise PatternError(_go_text(said.decode() if isinstance(said, bytes) else str(said), pattern)) from error


def _go_text(said: str, pattern: str) -> str:
    code, _, expression = said.partition(": ")
    if code not in _GO_TEXTS:
        return f"error parsing regexp: {code}: `{expression or pattern}`"
    return f"error parsing regexp: {_GO_TEXTS[code]}: `{expression or pattern}`"


def check(pattern: str) -> None:
    """Raises PatternError for what Go cannot compile."""
    _compiled(pattern)


def found_in(pattern: str, text: str) -> bool:
    """Whether the pattern matches somewhere in the text. Raises PatternError."""
    return _compiled(pattern).search(text) is not None
