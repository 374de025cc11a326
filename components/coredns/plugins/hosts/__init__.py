"""hosts: answers A, AAAA and PTR from a file in the format of /etc/hosts and from inline entries
(https://coredns.io/plugins/hosts/)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from dnslib import AAAA as AAAARecord
from dnslib import PTR as PTRRecord
from dnslib import RR
from dnslib import A as ARecord

from kubewire.components.coredns.addresses import address_family, reverse_address
from kubewire.components.coredns.message import AAAA, PTR, SERVFAIL, A, Request, Response
from kubewire.components.coredns.plugin import (
    Fallthrough,
    Next,
    Setup,
    Zones,
    longest_zone,
    zones_of,
)
from kubewire.components.coredns.plugins import parsing


@dataclass(frozen=True)
class Table:
    """name (lower case, final dot) -> addresses, and address -> names.

    A name on several lines has the addresses of all of them.
    """

    addresses: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


def parse(*texts: str) -> Table:
    """Reads texts in the format of hosts(5); lines without an address and a name are ignored."""
    table = Table()
    for line in "\n".join(texts).splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2 or not address_family(words[0].partition("%")[0]):
            continue
        address = str(ipaddress.ip_address(words[0].partition("%")[0]))
        for word in words[1:]:
            name = word.lower().rstrip(".") + "."
            table.addresses.setdefault(name, []).append(address)
            table.names.setdefault(address, []).append(name)
    return table


class Hosts:
    """Answers from the table; run() checks the file for changes every `interval` seconds."""

    name = "hosts"

    def __init__(self, path: Path, inline: str, zones: Zones) -> None:
        self._path = path
        self._inline = inline
        self._zones = zones
        self.ttl = 3600
        self.reverse = True
        self.interval = 5.0
        self._through: Fallthrough | None = None
        self._stamp = (0.0, 0)
        self._table = parse(inline)
        self._read()

    def pass_on(self, through: Fallthrough) -> None:
        self._through = through

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            stat = self._path.stat()
            if (stat.st_mtime, stat.st_size) != self._stamp:
                self._stamp = stat.st_mtime, stat.st_size
                self._table = parse(self._path.read_text(), self._inline)

    async def run(self) -> None:
        while self.interval > 0:
            await asyncio.sleep(self.interval)
            self._read()

    async def serve(self, request: Request, following: Next) -> Response:
        reverse = request.qtype == PTR and self.reverse
        in_zone = longest_zone(request.name, self._zones)
        if not in_zone and not (reverse and reverse_address(request.name)):
            return await following(request)
        answer = self._answers(request)
        if answer or request.name in self._table.addresses:
            return Response(answer=answer, authoritative=True, plugin=self.name)
        if self._through and self._through.through(request.name):
            return await following(request)
        # CoreDNS answers SERVFAIL here: a hosts file has no SOA record, and resolvers cannot cache
        # an NXDOMAIN without one (RFC 2308, 5).
        return Response(SERVFAIL, plugin=self.name)

    def _answers(self, request: Request) -> tuple[RR, ...]:
        if request.qtype == PTR and self.reverse:
            names = self._table.names.get(reverse_address(request.name), [])
            return tuple(self._record(request, PTR, PTRRecord(name)) for name in names)
        family = {A: 4, AAAA: 6}.get(request.qtype)
        addresses = self._table.addresses.get(request.name, [])
        matching = [ip for ip in addresses if address_family(ip) == family]
        kind = ARecord if family == 4 else AAAARecord
        return tuple(self._record(request, request.qtype, kind(ip)) for ip in matching)

    def _record(self, request: Request, rtype: int, data: object) -> RR:
        return RR(request.name, rtype, ttl=self.ttl, rdata=data)


def setup(setup: Setup) -> Hosts:
    (line,) = setup.lines[:1]
    path = Path(line.args[0] if line.args else "/etc/hosts")
    inline = [" ".join([item.name, *item.args]) for item in line.block if address_family(item.name)]
    plugin = Hosts(path, "\n".join(inline), zones_of(line.args[1:], setup.zones))
    for item in line.block:
        match item.name:
            case "fallthrough":
                plugin.pass_on(Fallthrough.parse(item))
            case "ttl":
                plugin.ttl = parsing.number(item, parsing.one(item))
                if not 0 < plugin.ttl <= 65535:
                    item.fail(f"ttl provided is invalid: {plugin.ttl}")
            case "no_reverse":
                plugin.reverse = False
            case "reload":
                plugin.interval = parsing.duration(item, parsing.one(item))
            case _ if not address_family(item.name):
                parsing.unknown(item)
    return plugin
