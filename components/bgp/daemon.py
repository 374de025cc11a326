"""The daemon: turns the speaker's events into kernel routes, and answers commands on the control
socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from kubewire.components.base import serving
from kubewire.components.bgp import fib, links, rib, status
from kubewire.components.bgp.config import ConfigError, Prefix, load
from kubewire.components.bgp.speaker import (
    EndOfRib,
    Event,
    Failed,
    Learned,
    PeerDown,
    PeerUp,
    Speaker,
    SpeakerError,
    Withdrawn,
)
from kubewire.components.kernel import rtnetlink
from kubewire.components.kernel.command import CommandError

log = logging.getLogger("bgp")
#: How long routes of an earlier run are kept for peers that do not connect (BIRD's "graceful
#: restart wait").
_RESTART_WAIT_S = 240.0


class Daemon:
    """run() returns when asked to stop.

    Routes of an earlier run stay in the kernel until every peer has sent its routes, at most four
    minutes (RFC 4724, 4.1). Routes of a peer that disappears silently stay for the time that it
    asked for (4.2).
    """

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
        self._awaited: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._leaving = False
        #: The new configuration differs in values that need a new process.
        self.wants_restart = False
        #: The reason why the daemon cannot continue; "" if it can.
        self.failure = ""

    async def run(self, asked: asyncio.Event) -> None:
        """Runs until asked is set. Raises SpeakerError if the speaker does not start; see also
        failure."""
        loop = asyncio.get_running_loop()
        self._asked = asked
        # SIGHUP may come from now on. Two threads that apply a configuration at once both add its peers, and os-ken
        # refuses the second of them; so the file is read again only after the first configuration has been applied.
        await self._configuring.acquire()

        def report(event: Event) -> None:
            loop.call_soon_threadsafe(self._handle, event)

        left, _ = await fib.read(self._configuration.families)
        self._awaited = (
            {peer.address for peer in self._configuration.peers if peer.restart_time}
            if left
            else set()
        )
        self._speaker = Speaker(self._configuration, report, restarting=bool(self._awaited))
        waiting = loop.call_later(_RESTART_WAIT_S, self._end_of_restart)
        server = await self._serve()
        watch = rtnetlink.Watch(rtnetlink.LINKS, lambda: loop.create_task(self._check_links()))
        watch.start()
        installing = asyncio.ensure_future(self._install())
        try:
            self._dirty.set()
            try:
                await self._apply_first()
            finally:
                self._configuring.release()
            ending = asyncio.ensure_future(asked.wait())
            await asyncio.wait({ending, installing}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if installing.done():
                installing.result()  # raises its error: without it no route reaches the kernel
        finally:
            waiting.cancel()
            watch.close()
            server.close()
            self._control.unlink(missing_ok=True)
            installing.cancel()
            await asyncio.gather(installing, return_exceptions=True)
            if not self._leaving and not self.failure:
                await self._stop()

    async def _stop(self) -> None:
        try:
            await asyncio.to_thread(self._speaker.stop)
        except SpeakerError as error:
            self.failure = str(error)
        else:
            await fib.apply((await fib.read(self._configuration.families))[0], {})

    async def _apply_first(self) -> None:
        try:
            await asyncio.to_thread(self._speaker.apply, self._configuration)
        except SpeakerError as error:
            self._fail(str(error))

    def _fail(self, what: str) -> None:
        """Ends the process as if it was killed: the kernel keeps its routes for the next one."""
        if not self._asked.is_set():
            self.failure = what
            self._asked.set()

    def _end_of_restart(self) -> None:
        self._awaited.clear()
        self._speaker.restarting = False
        self._dirty.set()

    def _heard_all_of(self, peer: str) -> None:
        if peer in self._awaited:
            self._awaited.discard(peer)
            if not self._awaited:
                self._end_of_restart()

    async def _check_links(self) -> None:
        try:
            gone = await links.unreachable([peer.address for peer in self._configuration.peers])
        except (CommandError, OSError, TimeoutError) as error:
            log.warning("cannot read links: %s", error)
            return
        try:
            for address in gone:
                self._speaker.drop(address)
        except SpeakerError as error:
            self._fail(str(error))
        self._dirty.set()

    def _handle(self, event: Event) -> None:
        match event:
            case PeerUp(peer, keeps_forwarding):
                self._up[peer] = self._changed_at[peer] = time.time()
                log.info("%s is up", peer)
                if not keeps_forwarding:
                    self._forget_stale(peer)
            case PeerDown(peer, restart_time):
                self._changed_at[peer] = time.time()
                if self._up.pop(peer, None) is not None:
                    log.info(
                        "%s is down%s",
                        peer,
                        f", its routes stay for {restart_time} s" if restart_time else "",
                    )
                self._gone(peer, restart_time)
            case EndOfRib(peer):
                self._forget_stale(peer)
                self._heard_all_of(peer)
            case Learned(route) if route.peer in self._up:
                self._rib.learn(route)
            case Withdrawn(peer, prefix):
                if peer in self._up:  # after the session's end PeerDown decides about its routes
                    self._rib.withdraw(peer, prefix)
            case Failed(what):
                self._fail(what)
        self._dirty.set()

    def _gone(self, peer: str, restart_time: int) -> None:
        if timer := self._timers.pop(peer, None):
            timer.cancel()
        if restart_time:
            self._rib.retain(peer)
            self._timers[peer] = asyncio.get_running_loop().call_later(
                restart_time,
                self._forget_stale,
                peer,
            )
        else:
            self._rib.forget(peer)

    def _forget_stale(self, peer: str) -> None:
        if timer := self._timers.pop(peer, None):
            timer.cancel()
        self._rib.forget_stale(peer)
        self._dirty.set()

    def _selected(self) -> dict[Prefix, tuple[rib.Route, ...]]:
        own = {announcement.prefix for announcement in self._configuration.announce}
        routes = (route for route in self._rib.routes() if route.prefix not in own)
        return rib.select(routes, self._configuration.max_paths)

    def _wanted(self, actual: fib.Table, around: fib.Surroundings) -> fib.Table:
        configuration = self._configuration
        blackholes = [
            announcement.prefix for announcement in configuration.announce if announcement.blackhole
        ]
        wanted = fib.table(
            rib.next_hops(self._selected()),
            blackholes,
            configuration.kernel,
            around,
        )
        return {**actual, **wanted} if self._awaited else wanted

    async def _install(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                actual, around = await fib.read(self._configuration.families)
                await fib.apply(actual, self._wanted(actual, around))
            except (CommandError, OSError) as error:
                log.warning("cannot set routes: %s", error)

    async def _serve(self) -> asyncio.Server:
        self._control.parent.mkdir(parents=True, exist_ok=True)
        self._control.unlink(missing_ok=True)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with asyncio.timeout(30):
                line = (await reader.readuntil(b"\n")).decode(errors="replace").strip()
                writer.write((await self._answer(line)).encode())
                await writer.drain()

        return await asyncio.start_unix_server(serving.connections(answer, log), str(self._control))

    async def _answer(self, line: str) -> str:
        commands: dict[str, Callable[[], str]] = {
            "show protocols": self._show_protocols,
            "show route": lambda: status.routes(
                self._selected(),
                {peer.address: peer.name for peer in self._configuration.peers},
            ),
        }
        if line == "configure":
            return await self.configure()
        if line == "graceful restart":
            self._leaving = True
            self._asked.set()
            return "Graceful restart requested\n"
        if line in commands:
            try:
                return commands[line]()
            except SpeakerError as error:
                self._fail(str(error))
                return f"{error}\n"
        return f"unknown command {line!r}; there are: {', '.join([*commands, 'configure', 'graceful restart'])}\n"

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
            ],
        )

    async def configure(self) -> str:
        """Reads the file again. An invalid file changes nothing."""
        try:
            configuration = load(self._path)
        except ConfigError as error:
            log.error("%s", error)
            return f"{error}\n"
        if configuration.identity != self._configuration.identity:
            self.wants_restart = True
            self._asked.set()
            return "Restarting\n"
        async with self._configuring:
            try:
                await asyncio.to_thread(self._speaker.apply, configuration)
            except SpeakerError as error:
                self._fail(str(error))
                return f"{error}\n"
            self._configuration = configuration
        self._dirty.set()
        return "Reconfigured\n"
