"""What upstream's answers owe to Go: durations, log lines, addresses, quoted strings, JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]*\.?[0-9]+|[0-9]+\.)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds of "1m30s", "500ms", "0" (time.ParseDuration). Raises ValueError in Go's words."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, position = 0.0, 0
    for match in _PART.finditer(rest):
        if match.start() != position:
            break
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not rest or position != len(rest):
        unitless = rest and re.fullmatch(r"[0-9.]+", rest)
        raise ValueError(f"time: {'missing unit in' if unitless else 'invalid'} duration {quote(text)}")
    return sign * total


def format_duration(seconds: float) -> str:
    """As Duration.String(): 1m30s, 1.5s, 20ms, 0s."""
    if seconds == 0:
        return "0s"
    if seconds < 0:
        return "-" + format_duration(-seconds)
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{round(seconds * factor, 6):.9g}{unit}"
    minutes, rest = divmod(round(seconds, 9), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{round(rest, 9):.11g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def log(text: str) -> None:
    """log.Printf: one line with date and time on stderr."""
    now = time.time()
    sys.stderr.write(time.strftime("%Y/%m/%d %H:%M:%S ", time.localtime(now)) + text.rstrip("\n") + "\n")
    sys.stderr.flush()


def fatal(text: str) -> SystemExit:
    """log.Fatal: raise what this returns."""
    log(text)
    return SystemExit(1)


def host_port(address: tuple[Any, ...]) -> str:
    """net.JoinHostPort of a socket address: 10.0.0.1:80, [fd00::1]:80; IPv4 seen by an IPv6 socket is IPv4."""
    host = str(address[0]).removeprefix("::ffff:") if "." in str(address[0]) else str(address[0])
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def quote(text: str) -> str:
    """%q of a string."""
    return json.dumps(text, ensure_ascii=False)


def to_json(value: Any) -> str:
    """json.Marshal: keys sorted, no blanks, <, > and & escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def atoi(text: str) -> int:
    """strconv.Atoi. Raises ValueError in Go's words."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: invalid syntax")
    return int(text)
