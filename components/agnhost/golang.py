"""The output formats of Go that upstream's answers depend on: log lines, addresses, JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from kubewire.components.base.golang import quote


def log(text: str) -> None:
    """log.Printf: writes a line with date and time to stderr."""
    stamp = time.strftime("%Y/%m/%d %H:%M:%S ", time.localtime(time.time()))
    sys.stderr.write(stamp + text.rstrip("\n") + "\n")
    sys.stderr.flush()


def fatal(text: str) -> SystemExit:
    """log.Fatal: logs the text and returns an exception for the caller to raise."""
    log(text)
    return SystemExit(1)


def host_port(address: tuple[Any, ...]) -> str:
    """net.JoinHostPort of a socket address: 10.0.0.1:80 or [fd00::1]:80.

    An IPv4-mapped IPv6 address, which an IPv6 socket sees for an IPv4 client, becomes the IPv4
    address.
    """
    host = str(address[0])
    if "." in host:
        host = host.removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def to_json(value: Any) -> str:
    """json.Marshal: sorted keys, no spaces; <, > and & are escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def atoi(text: str) -> int:
    """strconv.Atoi. Raises ValueError with Go's text."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: invalid syntax")
    return int(text)
