"""Formats durations as kubectl's tables show them: 5s, 2m10s, 3h, 5d2h, 2y45d
(k8s.io/apimachinery/pkg/util/duration.HumanDuration).
"""

from __future__ import annotations

from datetime import datetime

_MINUTE = 60
_HOUR = 3600
_DAY = 86400
_YEAR = 365 * 86400


def human_duration(seconds: float) -> str:
    """Formats seconds with at most two units; a clock skew of less than two seconds shows 0s."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _pair(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _pair(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 48 * _HOUR:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _pair(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _pair(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _pair(seconds: int, unit: int, name: str, small: int, small_name: str) -> str:
    rest = seconds % unit // small
    return f"{seconds // unit}{name}{rest}{small_name}" if rest else f"{seconds // unit}{name}"


def parse_time(text: str | None) -> datetime | None:
    """Parses RFC 3339 (metav1.Time and MicroTime); None when the text is absent or invalid."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def since(text: str | None, now: datetime) -> str:
    """The time since a timestamp, or `<unknown>` when there is none."""
    then = parse_time(text)
    return "<unknown>" if then is None else human_duration((now - then).total_seconds())
