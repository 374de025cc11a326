"""What a plugin is: a link in the chain of a server block, made from its lines in the Corefile."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from kubewire.components.base.prometheus import Registry
from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import SERVFAIL, Request, Response

#: Asks the rest of the chain.
Next = Callable[[Request], Awaitable[Response]]
Zones = tuple[str, ...]


class Plugin(Protocol):
    """serve() answers or asks following. Errors that it raises become SERVFAIL."""

    name: str

    async def serve(self, request: Request, following: Next) -> Response: ...


class Background(Protocol):
    """A plugin may also have a life of its own while its server block is served."""

    async def run(self) -> None:
        """Until cancelled."""


class Readiness(Protocol):
    def ready(self) -> bool:
        """Whether the plugin can answer; once true it is not asked again (plugin ready)."""


#: Answers a page.
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PluginError(Exception):
    """`plugin/NAME: FILE:LINE - Error during parsing: WHAT`."""


@dataclass
class Site:
    """Pages the plugins of all server blocks serve by HTTP: address -> path -> handler."""

    pages: dict[str, dict[str, Handler]] = field(default_factory=dict)

    def page(self, address: str, path: str, handler: Handler) -> None:
        self.pages.setdefault(address, {})[path] = handler


@dataclass
class Setup:
    """What a plugin is made from. lines: all its directives in this server block; zones: the block's."""

    lines: Sequence[Line]
    zones: Zones
    server: str
    registry: Registry
    site: Site
    #: The whole server's answer to a question of our own (upstream lookups).
    resolve: Next
    #: Plugins of all server blocks that tell whether they are ready, by name.
    readiness: dict[str, Readiness]
    port: int = 53
    corefile: str = "Corefile"
    #: Called to end the process with a message (loop), or to read the Corefile anew (reload).
    fatal: Callable[[str], None] = lambda _: None
    reload_every: Callable[[float, float], None] = lambda _interval, _jitter: None
    lameduck: Callable[[float], None] = lambda _: None


Factory = Callable[[Setup], Plugin]


async def nobody(request: Request) -> Response:
    """The end of every chain: nobody answered (CoreDNS: "no next plugin found")."""
    return Response(SERVFAIL)


def chain(plugins: Sequence[Plugin], end: Next = nobody) -> Next:
    """One callable that runs through all of them, in their order."""
    for plugin in reversed(plugins):
        end = _link(plugin, end)
    return end


def _link(plugin: Plugin, following: Next) -> Next:
    async def serve(request: Request) -> Response:
        return await plugin.serve(request, following)

    return serve


def is_subdomain(name: str, zone: str) -> bool:
    """Both lower case with their final dots."""
    return zone == "." or name == zone or name.endswith("." + zone)


def longest_zone(name: str, zones: Sequence[str]) -> str:
    """The most specific of zones that name lies in, or ""."""
    return max((zone for zone in zones if is_subdomain(name, zone)), key=len, default="")


def zones_of(args: Sequence[str], default: Zones) -> Zones:
    """Zones from a directive's arguments: names, or CIDRs as their reverse zones."""
    return tuple(zone for arg in args for zone in normalize(arg)) or default


def normalize(text: str) -> list[str]:
    """`Example.org` -> example.org. ; 10.0.0.0/8 -> 10.in-addr.arpa. Ports and schemes are not for here."""
    if "/" in text:
        return _reverse_zones(text)
    lower = text.lower()
    return [lower if lower.endswith(".") else lower + "."]


def _reverse_zones(cidr: str) -> list[str]:
    """A range that does not end at an octet (nibble) becomes several zones. Raises ValueError."""
    network = ipaddress.ip_network(cidr, strict=False)
    step = 8 if network.version == 4 else 4
    whole = -(-network.prefixlen // step) * step
    zones = []
    for part in network.subnets(new_prefix=whole) if whole > network.prefixlen else [network]:
        labels = part.network_address.reverse_pointer.split(".")
        total = 4 if network.version == 4 else 32
        zones.append(".".join(labels[total - whole // step :]) + ".")
    return zones


@dataclass(frozen=True)
class Fallthrough:
    """`fallthrough [ZONES...]`: for which names a plugin that has no answer passes the question on."""

    zones: Zones = ()

    @classmethod
    def parse(cls, line: Line) -> Fallthrough:
        return cls(zones_of(line.args, (".",)))

    def through(self, name: str) -> bool:
        return any(is_subdomain(name, zone) for zone in self.zones)
