"""agnhost dns-suffix, dns-server-list and etc-hosts: print the pod's files (upstream: dns/)."""

from __future__ import annotations

from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
HOSTS = Path("/etc/hosts")


def suffixes(text: str) -> list[str]:
    """The search list of a resolv.conf: its last search or domain line counts (resolv.conf(5))."""
    search_list: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0] in ("search", "domain"):
            search_list = words[1:]
    return search_list


def servers(text: str) -> list[str]:
    """The nameservers of a resolv.conf."""
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def dns_suffix(argv: list[str]) -> int:
    print(",".join(suffixes(RESOLV_CONF.read_text())))
    return 0


def dns_server_list(argv: list[str]) -> int:
    print(",".join(servers(RESOLV_CONF.read_text())))
    return 0


def etc_hosts(argv: list[str]) -> int:
    print(HOSTS.read_text())
    return 0
