"""A running configuration: server blocks -> plugin chains, listeners and HTTP pages.

A reload never changes a running Instance. It builds a new one from the new Corefile, starts it, and
only then stops the old one. An error in the Corefile, or a port that cannot be opened, therefore
leaves the old configuration in service. For a moment both instances listen on the same ports, which
is why every socket has SO_REUSEPORT (socket(7)).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from kubewire.components.base.prometheus import Registry
from kubewire.components.coredns.corefile import CorefileError, Line, ServerBlock, Token, fail
from kubewire.components.coredns.message import REFUSED, Request, Response
from kubewire.components.coredns.plugin import (
    Factory,
    Handler,
    Next,
    Plugin,
    PluginError,
    Readiness,
    Setup,
    Site,
    chain,
    longest_zone,
    normalize,
)
from kubewire.components.coredns.plugins import PLUGINS
from kubewire.components.coredns.server import Listener, respond

log = logging.getLogger("coredns")
VERSION = "1.12.1"


@dataclass
class Instance:
    """build() checks a configuration without side effects; start() listens; stop() closes all."""

    servers: dict[int, dict[str, Next]] = field(default_factory=dict)
    plugins: list[Plugin] = field(default_factory=list)
    site: Site = field(default_factory=Site)
    registry: Registry = field(default_factory=Registry)
    lameduck_seconds: float = 0.0
    #: (interval, jitter) of the plugin reload, in seconds; None without that plugin.
    reload: tuple[float, float] | None = None
    fatal: Callable[[str], None] = lambda _: None
    _listeners: list[Listener] = field(default_factory=list)
    _runners: list[web.AppRunner] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        blocks: list[ServerBlock],
        *,
        port: int = 53,
        fatal: Callable[[str], None] = lambda _: None,
        known: Mapping[str, Factory] = PLUGINS,
    ) -> Instance:
        """Makes an instance of server blocks, not yet listening.

        port: for server blocks that name no port. known: the plugins, in the order of the chain.
        Raises CorefileError or PluginError with file and line.
        """
        self = cls(fatal=fatal)
        self.registry.gauge(
            "coredns_build_info",
            "A metric with a constant '1' value labeled by version, revision, and goversion "
            "from which CoreDNS was built.",
            "goversion", "revision", "version",
        ).set(1, "", "kubewire", VERSION)  # fmt: skip
        readiness: dict[str, Readiness] = {}
        for block in blocks:
            zones_by_port: dict[int, list[str]] = {}
            for key in block.keys:
                zone_port, zones = _address(key, port)
                zones_by_port.setdefault(zone_port, []).extend(zones)
            for number, zones in zones_by_port.items():
                self._add(block, number, tuple(zones), readiness, known)
        return self

    def _add(
        self,
        block: ServerBlock,
        port: int,
        zones: tuple[str, ...],
        readiness: dict[str, Readiness],
        known: Mapping[str, Factory],
    ) -> None:
        lines: dict[str, list[Line]] = {}
        for line in block.directives:
            lines.setdefault(line.name, []).append(line)
        plugins = [
            self._plugin(name, factory, lines[name], port, zones, readiness)
            for name, factory in known.items()
            if name in lines
        ]
        self.plugins += plugins
        served = self.servers.setdefault(port, {})
        for zone in zones:
            if zone in served:
                fail(block.keys[0], f"cannot serve dns://{zone}:{port} - it is already defined")
            served[zone] = chain(plugins)

    def _plugin(
        self,
        name: str,
        factory: Factory,
        lines: list[Line],
        port: int,
        zones: tuple[str, ...],
        readiness: dict[str, Readiness],
    ) -> Plugin:
        setup = Setup(
            lines=lines,
            zones=zones,
            server=f"dns://:{port}",
            registry=self.registry,
            site=self.site,
            resolve=lambda request: self.resolve(port, request),
            readiness=readiness,
            port=port,
            fatal=self.fatal,
            reload_every=lambda interval, jitter: setattr(self, "reload", (interval, jitter)),
            lameduck=lambda seconds: setattr(self, "lameduck_seconds", seconds),
        )
        try:
            return factory(setup)
        except CorefileError as error:
            raise PluginError(f"plugin/{name}: {error}") from error

    async def resolve(self, port: int, request: Request) -> Response:
        """Asks the server block with the longest matching zone; REFUSED when no block matches."""
        served = self.servers[port]
        zone = longest_zone(request.name, tuple(served))
        return await respond(request, served[zone]) if zone else Response(REFUSED)

    async def start(self) -> None:
        """Opens the listeners and pages, then starts the plugins' background tasks.

        Raises OSError when a port is taken, after closing what was already open.
        """
        try:
            for port in self.servers:
                listener = Listener(port, self._server(port))
                await listener.start()
                self._listeners.append(listener)
            for address, pages in self.site.pages.items():
                await self._serve_pages(address, pages)
        except OSError:
            await self.stop()
            raise
        for plugin in self.plugins:
            run = getattr(plugin, "run", None)
            if run is not None:
                self._tasks.append(
                    asyncio.get_running_loop().create_task(self._background(plugin.name, run)),
                )

    def _server(self, port: int) -> Next:
        async def serve(request: Request) -> Response:
            return await self.resolve(port, request)

        return serve

    async def _background(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except RuntimeError as error:
            self.fatal(str(error))
        except Exception as error:  # without this, the server would go on without the plugin's task
            self.fatal(f"plugin/{name}: {error!r}")

    async def _serve_pages(self, address: str, pages: Mapping[str, Handler]) -> None:
        host, _, port = address.rpartition(":")
        app = web.Application()
        app.add_routes([web.get(path, handler) for path, handler in pages.items()])
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        self._runners.append(runner)
        # A reload opens the new pages before it closes the old ones, on the same port.
        await web.TCPSite(runner, host.strip("[]") or None, int(port), reuse_port=True).start()

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._runners:
            await runner.cleanup()
        self._listeners = []
        self._tasks = []
        self._runners = []


def _address(key: Token, default_port: int) -> tuple[int, list[str]]:
    """Parses `[dns://]ZONE[:PORT]` into the port and the zones; a CIDR may become several zones."""
    text = key.text
    if "://" in text:
        scheme, _, text = text.partition("://")
        if scheme != "dns":
            fail(key, f"unsupported server type {scheme}://: only dns:// is known here")
    match = re.fullmatch(r"(?P<zone>.*?)(:(?P<port>\d+))?", text)
    assert match is not None
    zone = match["zone"] or "."
    if match["port"] and ":" in zone and "/" not in zone:
        fail(key, f"invalid server address {key.text}")
    try:
        return int(match["port"] or default_port), normalize(zone)
    except ValueError as error:
        fail(key, str(error))
