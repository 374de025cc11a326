"""Addresses as text: their family, and the address a reverse zone's name stands for. Pure."""

from __future__ import annotations

import ipaddress


def address_family(text: str) -> int:
    """4 or 6; 0 when the text is not an IP address."""
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return 0


def reverse_address(name: str) -> str:
    """4.3.2.1.in-addr.arpa. -> 1.2.3.4; "" when the name does not stand for a whole address."""
    for suffix, count, separator in ((".in-addr.arpa.", 4, "."), (".ip6.arpa.", 32, "")):
        if name.endswith(suffix):
            labels = name.removesuffix(suffix).split(".")
            if len(labels) != count:
                return ""
            text = separator.join(reversed(labels))
            if count == 32:
                text = ":".join(text[i : i + 4] for i in range(0, 32, 4))
            return str(ipaddress.ip_address(text)) if address_family(text) else ""
    return ""
