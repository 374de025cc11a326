"""The addresses of this network namespace, read from /proc (no netlink library to load)."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from kubewire.components.kube_proxy.state.model import IPV4


def local_addresses(family: str) -> list[str]:
    """Addresses on interfaces, sorted; link-local IPv6 ones left out."""
    return _ipv4() if family == IPV4 else _ipv6()


def _ipv4() -> list[str]:
    found, last = set(), ""
    for line in _read("/proc/net/fib_trie").splitlines():
        text = line.strip()
        if text.startswith("|--"):
            last = text[4:]
        elif text == "/32 host LOCAL":
            found.add(last)
    return sorted(found)


def _ipv6() -> list[str]:
    parsed = (
        ipaddress.IPv6Address(int(line.split()[0], 16))
        for line in _read("/proc/net/if_inet6").splitlines()
    )
    return sorted(str(address) for address in parsed if not address.is_link_local)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
