"""Values that Kubernetes' programs read and print by Go's rules: durations, booleans and quoted
strings.

Users copy such values from upstream's documentation, so these functions accept and reject what Go
does, with Go's error texts. Sources: time.ParseDuration, time.Duration.String, strconv.ParseBool,
strconv.Quote. Durations are seconds here, as everywhere in Python; the smallest unit is a
nanosecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Unit -> nanoseconds. The two micro signs are U+00B5 and U+03BC.
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[^0-9.]*)")
#: The longest duration: an int64 of nanoseconds, about 292 years.
_LONGEST = (1 << 63) - 1
_LONGEST_DIGITS = len(str(_LONGEST))
#: After this many zeros a fraction of an hour is less than a nanosecond.
_ZEROS_AT_MOST = 20

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
#: The characters that strconv.Quote escapes by a letter.
_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
} | {
    "\\": r"\\",
    '"': r"\"",
}


def parse_duration(text: str) -> float:
    """The seconds of "300ms", "1.5h", "-2h45m", "0". Raises ValueError with Go's text.

    Units are ns, us, ms, s, m and h; there is no day, because a day may have 23 or 25 hours.
    """
    negative = text.startswith("-")
    left = text[1:] if text[:1] in ("-", "+") else text
    if left == "0":
        return 0.0
    invalid = ValueError(f"time: invalid duration {_quoted(text)}")
    if not left:
        raise invalid
    total = 0
    while left:
        match = _PART.match(left)
        assert match is not None  # the pattern also matches the empty string
        whole = match["whole"]
        fraction = match["fraction"] or ""
        unit = match["unit"]
        number = _integer(whole)
        if not (whole or fraction) or number > _LONGEST + 1:
            raise invalid
        if not unit:
            raise ValueError(f"time: missing unit in duration {_quoted(text)}")
        if unit not in _UNITS:
            raise ValueError(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
        total += number * _UNITS[unit] + _fraction(fraction, _UNITS[unit])
        if total > _LONGEST + 1:
            raise invalid
        left = left[match.end() :]
    if total > _LONGEST and not negative:
        raise invalid
    return (-total if negative else total) / 1e9


def _integer(digits: str) -> int:
    """The number, or one that is too large for a duration: Python refuses to convert thousands of
    digits."""
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _LONGEST_DIGITS else _LONGEST + 2


def _fraction(digits: str, unit: int) -> int:
    """The fraction in nanoseconds, in floating point as Go computes it, of as many digits as fit an
    int64."""
    zeros = len(digits) - len(digits.lstrip("0"))
    kept = digits[: min(zeros, _ZEROS_AT_MOST) + _LONGEST_DIGITS]
    if int(kept or "0") > _LONGEST + 1:
        kept = kept[:-1]
    return int(int(kept or "0") * (unit / 10 ** len(kept)))


def format_duration(seconds: float) -> str:
    """The duration as Go prints it: 24h0m0s, 1m30s, 1.5s, 300ms, 20µs, 0s."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 and nanoseconds else ""
    for unit in ("ns", "\u00b5s", "ms"):
        size = _UNITS[unit]
        if 0 < nanoseconds < min(size * 1000, _UNITS["s"]):
            return f"{sign}{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, _UNITS['s'])}s"


def _decimal(number: int, size: int) -> str:
    """number/size without trailing zeros."""
    whole, fraction = divmod(number, size)
    digits = f"{fraction:0{len(str(size)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def parse_bool(text: str) -> bool:
    """1, t, T, TRUE, true, True, and 0, f, F, FALSE, false, False. Raises ValueError with Go's
    text."""
    if text not in _TRUE + _FALSE:
        raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
    return text in _TRUE


def quote(text: str) -> str:
    """strconv.Quote, which %q uses: unprintable characters are escaped."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flag(parse: Callable[[str], T]) -> Callable[[str], T]:
    """parse as the `type` of an argparse argument, so that the user sees its error text."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            from argparse import (
                ArgumentTypeError,
            )  # most programs that read a duration do not need it

            raise ArgumentTypeError(str(error)) from error

    return read


def _quoted(text: str) -> str:
    """Quotes as package time does, which does not use strconv: all bytes but printable ASCII become
    numbers."""
    shown = [
        f"\\{chr(byte)}"
        if byte in b'"\\'
        else chr(byte)
        if 0x20 <= byte < 0x7F
        else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "surrogateescape")
    ]
    return f'"{"".join(shown)}"'
