"""What upstream's answers owe to Go: durations, log lines, addresses, quoted strings, JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from kubewire.components.base.golang import quote


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


def to_json(value: Any) -> str:
    """json.Marshal: keys sorted, no blanks, <, > and & escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def atoi(text: str) -> int:
    """strconv.Atoi. Raises ValueError in Go's words."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: invalid syntax")
    return int(text)
