"""Virtual servers and their real servers, as text of `ipvsadm -R` and `ipvsadm -Sn`. Pure.

What goes is drained (upstream's graceful_termination.go): a real server of TCP gets weight 0, so
that nobody new comes to it, and is removed when no connection is left. A real server of weight 0 is
one that is being drained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from kubewire.components.kube_proxy.ipvs.sets import address
from kubewire.components.kube_proxy.state.model import IPV4, IPV6

_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
_PROTOCOLS = {option: protocol for protocol, option in _OPTIONS.items()}
#: ip_vs_mh hashes the source port too: IP_VS_SVC_F_SCHED_MH_PORT, upstream's FlagSourceHash.
_FLAGS = {"mh": "mh-port"}
#: Their connections end with the real server; expire_nodest_conn sees to it.
_NOT_DRAINED = ("udp", "sctp")


class Key(NamedTuple):
    """What a virtual server is known by."""

    protocol: str
    ip: str
    port: int

    @property
    def family(self) -> str:
        return IPV6 if ":" in self.ip else IPV4

    @property
    def service(self) -> str:
        """Option and address of ipvsadm."""
        return f"{_OPTIONS[self.protocol]} {socket_address(self.ip, self.port)}"


@dataclass(frozen=True)
class VirtualServer:
    """timeout: seconds of persistence, 0 for none; reals: `ip:port` or `[ip]:port` -> weight."""

    scheduler: str
    timeout: int
    reals: Mapping[str, int]

    @property
    def options(self) -> str:
        persistence = f" -p {self.timeout}" if self.timeout else ""
        flags = f" -b {_FLAGS[self.scheduler]}" if self.scheduler in _FLAGS else ""
        return f"-s {self.scheduler}{persistence}{flags}"


Table = Mapping[Key, VirtualServer]
Reals = frozenset[tuple[Key, str]]


def socket_address(ip: str, port: int) -> str:
    text = address(ip)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


@dataclass(frozen=True)
class Change:
    """lines: to be written first; removals: virtual servers that go, once nobody is led to them any
    more; result: what is there afterwards."""

    lines: list[str]
    removals: list[str]
    result: dict[Key, VirtualServer]


def change(
    wanted: Table, present: Table, *, keep: Callable[[str], bool] = lambda ip: False
) -> Change:
    """keep: addresses whose virtual servers are somebody else's (excludeCIDRs)."""
    lines: list[str] = []
    result: dict[Key, VirtualServer] = {}
    for key, server in wanted.items():
        there = present.get(key)
        if there is server:
            result[key] = server
            continue
        lines += _server_lines(key, server, there)
        reals = _reals(key, server, there.reals if there else {})
        lines += reals.lines
        result[key] = VirtualServer(server.scheduler, server.timeout, reals.result)
    gone = [key for key in present if key not in wanted]
    result |= {key: present[key] for key in gone if keep(key.ip)}
    return Change(lines, [f"-D {key.service}" for key in gone if not keep(key.ip)], result)


def _server_lines(key: Key, server: VirtualServer, there: VirtualServer | None) -> list[str]:
    if there is not None and there.options == server.options:
        return []
    return [f"-{'A' if there is None else 'E'} {key.service} {server.options}"]


class _Reals(NamedTuple):
    lines: list[str]
    result: dict[str, int]


def _reals(key: Key, server: VirtualServer, there: Mapping[str, int]) -> _Reals:
    lines, result = [], dict(server.reals)
    for real, weight in server.reals.items():
        if there.get(real) != weight:
            lines.append(f"-{'e' if real in there else 'a'} {key.service} -r {real} -m -w {weight}")
    for real in there.keys() - server.reals.keys() if there else ():
        if key.protocol in _NOT_DRAINED:
            lines.append(f"-d {key.service} -r {real}")
            continue
        result[real] = 0
        if there[real]:
            lines.append(f"-e {key.service} -r {real} -m -w 0")
    return _Reals(lines, result)


def drained(table: Table) -> Reals:
    """Real servers that are there only for the connections they have."""
    return frozenset(
        (key, real)
        for key, server in table.items()
        for real, weight in server.reals.items()
        if not weight
    )


def without(table: Table, reals: Reals) -> dict[Key, VirtualServer]:
    out = dict(table)
    for key, real in reals:
        server = out[key]
        kept = {name: weight for name, weight in server.reals.items() if name != real}
        out[key] = VirtualServer(server.scheduler, server.timeout, kept)
    return out


def real_removals(reals: Reals) -> list[str]:
    return [f"-d {key.service} -r {real}" for key, real in sorted(reals)]


def parse(saved: str, family: str) -> dict[Key, VirtualServer]:
    """What `ipvsadm -Sn` printed, of one family; virtual servers by firewall mark are somebody
    else's."""
    found: dict[Key, VirtualServer] = {}
    for line in saved.splitlines():
        words = line.split()
        if len(words) < 3 or words[1] not in _PROTOCOLS:
            continue
        key = _key(_PROTOCOLS[words[1]], words[2])
        if key.family != family:
            continue
        options = dict(pairwise(words[3:]))
        if words[0] == "-A":
            found[key] = VirtualServer(options["-s"], int(options.get("-p", 0)), {})
        elif words[0] == "-a":
            server = found[key]
            reals = {**server.reals, options["-r"]: int(options["-w"])}
            found[key] = VirtualServer(server.scheduler, server.timeout, reals)
    return found


def _key(protocol: str, text: str) -> Key:
    ip, _, port = text.rpartition(":")
    return Key(protocol, ip.strip("[]"), int(port))


def parse_connections(listed: str) -> dict[tuple[Key, str], int]:
    """Connections of each real server, active and inactive, from `ipvsadm -Ln`."""
    found: dict[tuple[Key, str], int] = {}
    key: Key | None = None
    for line in listed.splitlines():
        words = line.split()
        if words and words[0].lower() in _OPTIONS:
            key = _key(words[0].lower(), words[1])
        elif key and words[:1] == ["->"] and words[-1].isdigit():
            found[key, words[1]] = int(words[-2]) + int(words[-1])
        elif words[:1] == ["FWM"]:
            key = None
    return found


def text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
