"""The daemon: events of the speaker become routes in the kernel; the control socket answers questions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from components.bgp import fib, links, rib, status
from components.bgp.config import ConfigError, Prefix, load
from components.bgp.speaker import Event, Learned, PeerDown, PeerUp, Speaker, Withdrawn
from components.machinery.command import CommandError

log = logging.getLogger("bgp")


class Daemon:
    """run() until asked to stop."""

    def __init__(self, path: Path, control: Path) -> None:
        self._path = path
        self._control = control
        self._configuration = load(path)
        self._rib = rib.AdjRibIn()
        self._up: dict[str, float] = {}
        self._changed_at: dict[str, float] = {}
        self._started = time.time()
        self._dirty = asyncio.Event()
        self._configuring = asyncio.Lock()

    async def run(self, asked: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def report(event: Event) -> None:
            loop.call_soon_threadsafe(self._handle, event)

        self._speaker = Speaker(self._configuration, report)
        server = await self._serve()
        watch = links.Watch(lambda: loop.create_task(self._check_links()))
        installing = asyncio.ensure_future(self._install())
        try:
            # What an earlier run left behind is nobody's now: there is no graceful restart.
            self._dirty.set()
            await asyncio.to_thread(self._speaker.apply, self._configuration)
            await asked.wait()
        finally:
            watch.close()
            server.close()
            self._control.unlink(missing_ok=True)
            installing.cancel()
            await asyncio.gather(installing, return_exceptions=True)
            await asyncio.to_thread(self._speaker.stop)
            await fib.apply({})

    async def _check_links(self) -> None:
        try:
            gone = await links.unreachable([peer.address for peer in self._configuration.peers])
        except (CommandError, OSError, TimeoutError) as error:
            log.warning("cannot read links: %s", error)
            return
        for address in gone:
            self._speaker.drop(address)

    def _handle(self, event: Event) -> None:
        match event:
            case PeerUp(peer):
                self._up[peer] = self._changed_at[peer] = time.time()
                log.info("%s is up", peer)
            case PeerDown(peer):
                self._changed_at[peer] = time.time()
                if self._up.pop(peer, None) is not None:
                    log.info("%s is down", peer)
                self._rib.forget(peer)
            case Learned(route) if route.peer in self._up:
                self._rib.learn(route)
            case Withdrawn(peer, prefix):
                self._rib.withdraw(peer, prefix)
        self._dirty.set()

    def _selected(self) -> dict[Prefix, tuple[rib.Route, ...]]:
        own = {announcement.prefix for announcement in self._configuration.announce}
        routes = (route for route in self._rib.routes() if route.prefix not in own)
        return rib.select(routes, self._configuration.max_paths)

    async def _install(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await fib.apply(rib.next_hops(self._selected()))
            except (CommandError, OSError) as error:
                log.warning("cannot set routes: %s", error)

    async def _serve(self) -> asyncio.Server:
        self._control.parent.mkdir(parents=True, exist_ok=True)
        self._control.unlink(missing_ok=True)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(30):
                    line = (await reader.readline()).decode(errors="replace").strip()
                    writer.write((await self._answer(line)).encode())
                    await writer.drain()
            except (OSError, TimeoutError, ValueError):
                pass
            finally:
                writer.close()

        return await asyncio.start_unix_server(answer, str(self._control))

    async def _answer(self, line: str) -> str:
        commands: dict[str, Callable[[], str]] = {
            "show protocols": self._show_protocols,
            "show route": lambda: status.routes(
                self._selected(), {peer.address: peer.name for peer in self._configuration.peers}
            ),
        }
        if line == "configure":
            return await self.configure()
        if line in commands:
            return commands[line]()
        return f"unknown command {line!r}; there are: {', '.join([*commands, 'configure'])}\n"

    def _show_protocols(self) -> str:
        return status.protocols(
            [
                status.Session(
                    peer.name,
                    peer.address,
                    peer.remote_as,
                    self._speaker.state(peer.address),
                    self._changed_at.get(peer.address, self._started),
                    self._rib.count(peer.address),
                )
                for peer in self._configuration.peers
            ]
        )

    async def configure(self) -> str:
        """Read the file again; a bad one changes nothing."""
        try:
            configuration = load(self._path)
        except ConfigError as error:
            log.error("%s", error)
            return f"{error}\n"
        async with self._configuring:
            await asyncio.to_thread(self._speaker.apply, configuration)
            self._configuration = configuration
        self._dirty.set()
        return "Reconfigured\n"
