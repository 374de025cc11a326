"""What a plugin is: a link in a server block's chain, made from its directives in the Corefile.

CoreDNS has no resolver at its centre. Each server block has a chain of plugins, and a query walks
along it: a plugin either answers, or calls the next one and may change the query on the way in or
the response on the way out. cache, for example, stores what the rest of the chain returned.

The order of the chain is fixed by the program, not by the Corefile: plugins/__init__.py lists the
plugins in the order of CoreDNS's plugin.cfg. So log sees what cache answered, and cache stores the
addresses before loadbalance shuffles them. A Corefile only chooses which plugins are in the chain.

These rules always hold:

- The factory of a plugin (setup()) only reads its lines and registers pages and metrics. It opens
  no socket and starts no task, because a reload builds a configuration to check it while the old
  one still serves. Work in the background goes to run(), which the Instance starts and cancels.
- A plugin that holds data for a zone also answers for names that do not exist there (NXDOMAIN;
  hosts, which has no SOA record: SERVFAIL). It asks the next plugin only if the Corefile says so
  (`fallthrough`).
- An exception in serve() becomes SERVFAIL for that one query and never ends the server.

Upstream's counterpart is described in https://coredns.io/manual/toc/#plugins and
https://coredns.io/2016/12/19/writing-plugins-for-coredns/.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from kubewire.components.base.prometheus import Registry
from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import SERVFAIL, Request, Response

#: Asks the rest of the chain, starting with the next plugin.
Next = Callable[[Request], Awaitable[Response]]
Zones = tuple[str, ...]


class Plugin(Protocol):
    """serve() answers the request itself or awaits following(request)."""

    name: str

    async def serve(self, request: Request, following: Next) -> Response: ...


class Background(Protocol):
    """A plugin with a run() method also works in the background while it is in service."""

    async def run(self) -> None:
        """Runs until it is cancelled."""


class Readiness(Protocol):
    """A plugin that cannot answer from the start, and that the plugin ready therefore asks."""

    def ready(self) -> bool:
        """Whether the plugin can answer; it is not called again after it has returned True."""


#: Answers an HTTP request for a page.
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PluginError(Exception):
    """`plugin/NAME: FILE:LINE - Error during parsing: WHAT`."""


@dataclass
class Site:
    """The HTTP pages of the plugins of all server blocks: address -> path -> handler."""

    pages: dict[str, dict[str, Handler]] = field(default_factory=dict)

    def page(self, address: str, path: str, handler: Handler) -> None:
        self.pages.setdefault(address, {})[path] = handler


@dataclass
class Setup:
    """What a plugin's factory gets.

    lines: all directives of that plugin in the server block. zones: the zones of the server block.
    server: the label `server` of metrics.
    """

    lines: Sequence[Line]
    zones: Zones
    server: str
    registry: Registry
    site: Site
    #: Asks the whole server a question, from the start of the chain (lookups of CNAME targets).
    resolve: Next
    #: The plugins of all server blocks that report readiness, by name.
    readiness: dict[str, Readiness]
    port: int = 53
    corefile: str = "Corefile"
    #: Ends the process with a message.
    fatal: Callable[[str], None] = lambda _: None
    #: Sets the interval and jitter, in seconds, at which the process checks the Corefile.
    reload_every: Callable[[float, float], None] = lambda _interval, _jitter: None
    #: Sets the seconds for which the process still answers after SIGTERM.
    lameduck: Callable[[float], None] = lambda _: None


Factory = Callable[[Setup], Plugin]


async def no_next_plugin(request: Request) -> Response:
    """The end of every chain: no plugin answered (CoreDNS: "no next plugin found")."""
    return Response(SERVFAIL)


def chain(plugins: Sequence[Plugin], end: Next = no_next_plugin) -> Next:
    """A callable that asks the first plugin, whose `following` asks the second, and so on."""
    for plugin in reversed(plugins):
        end = _link(plugin, end)
    return end


def _link(plugin: Plugin, following: Next) -> Next:
    async def serve(request: Request) -> Response:
        return await plugin.serve(request, following)

    return serve


def is_subdomain(name: str, zone: str) -> bool:
    """Whether name lies in zone. Both are in lower case and have their final dots."""
    return zone == "." or name == zone or name.endswith("." + zone)


def longest_zone(name: str, zones: Sequence[str]) -> str:
    """The most specific of the zones that contain name; "" if none does."""
    return max((zone for zone in zones if is_subdomain(name, zone)), key=len, default="")


def zones_of(args: Sequence[str], default: Zones) -> Zones:
    """Zones from a directive's arguments: names as they are, CIDRs as their reverse zones."""
    return tuple(zone for arg in args for zone in normalize(arg)) or default


def normalize(text: str) -> list[str]:
    """`Example.org` -> `example.org.`, `10.0.0.0/8` -> `10.in-addr.arpa.`; without scheme and port.

    Raises ValueError for a malformed CIDR.
    """
    if "/" in text:
        return _reverse_zones(text)
    lower = text.lower()
    return [lower if lower.endswith(".") else lower + "."]


def _reverse_zones(cidr: str) -> list[str]:
    """The reverse zones of a range: labels are octets (IPv4) or nibbles (IPv6), so a range whose
    prefix ends inside a label becomes several zones. Raises ValueError."""
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
    """`fallthrough [ZONES...]`: names for which a plugin without an answer asks the next one."""

    zones: Zones = ()

    @classmethod
    def parse(cls, line: Line) -> Fallthrough:
        return cls(zones_of(line.args, (".",)))

    def through(self, name: str) -> bool:
        return any(is_subdomain(name, zone) for zone in self.zones)
