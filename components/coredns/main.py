"""CoreDNS's entry point: flags, signals, and the loop that reloads a changed Corefile."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from kubewire.components.base.golang import parse_bool, quote
from kubewire.components.coredns import corefile
from kubewire.components.coredns.corefile import CorefileError
from kubewire.components.coredns.instance import VERSION, Instance
from kubewire.components.coredns.plugin import PluginError
from kubewire.components.coredns.plugins import PLUGINS

log = logging.getLogger("coredns")


@dataclass(frozen=True)
class Flags:
    """CoreDNS's command line flags, with its defaults."""

    conf: str = "Corefile"
    port: int = 53
    quiet: bool = False
    version: bool = False
    plugins: bool = False
    pidfile: str = ""


def parse_flags(argv: list[str]) -> Flags:
    """Reads flags as Go does: one dash or two, `-flag value` or `-flag=value`.

    Prints Go's message and raises SystemExit(2) for a flag it does not know or cannot read.
    """
    values: dict[str, str] = {}
    names = {"conf": "conf", "dns.port": "port", "p": "port", "pidfile": "pidfile"}
    switches = dict.fromkeys(("quiet", "version", "plugins"), False)
    words = list(argv)
    while words:
        word = words.pop(0)
        name, given, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in names.keys() | switches.keys():
            print(f"flag provided but not defined: -{name}", file=sys.stderr)
            raise SystemExit(2)
        if name in switches:
            switches[name] = _switch(name, value) if given else True
        elif given or words:
            values[names[name]] = value if given else words.pop(0)
        else:
            print(f"flag needs an argument: -{name}", file=sys.stderr)
            raise SystemExit(2)
    port = values.get("port", "53")
    if not port.isdigit():
        print(f'invalid value "{port}" for flag -dns.port: parse error', file=sys.stderr)
        raise SystemExit(2)
    return Flags(
        values.get("conf", "Corefile"),
        int(port),
        pidfile=values.get("pidfile", ""),
        **switches,
    )


def _switch(name: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        print(f"invalid boolean value {quote(value)} for -{name}: parse error", file=sys.stderr)
        raise SystemExit(2) from None


def load(path: str) -> tuple[str, list[corefile.ServerBlock]]:
    """Returns the Corefile's digest and its server blocks. Raises CorefileError or OSError."""
    text = Path(path).read_text()
    blocks = corefile.parse(text, path, frozenset(PLUGINS))
    return hashlib.sha512(text.encode()).hexdigest(), blocks


class Process:
    """Serves until a signal or a fatal plugin error, and reloads a Corefile that has changed."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._stop = asyncio.Event()
        self._look = asyncio.Event()
        self._error = ""

    async def run(self) -> int:
        """Serves until the end and returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._look.set)
        digest, blocks = load(self._flags.conf)
        instance = self._build(blocks)
        await instance.start()
        self._announce(instance)
        while not self._stop.is_set():
            await self._wait(instance)
            if not self._stop.is_set():
                digest, instance = await self._reloaded(digest, instance)
        if self._error:
            log.critical("%s", self._error)
        elif instance.lameduck_seconds:
            log.info("plugin/health: Going into lameduck mode for %gs", instance.lameduck_seconds)
            await asyncio.sleep(instance.lameduck_seconds)
        await instance.stop()
        return 1 if self._error else 0

    def _build(self, blocks: list[corefile.ServerBlock]) -> Instance:
        return Instance.build(blocks, port=self._flags.port, fatal=self._fatal)

    def _fatal(self, message: str) -> None:
        self._error = self._error or message
        self._stop.set()

    async def _wait(self, instance: Instance) -> None:
        """Returns on a signal, on a fatal error, or when it is time to check the Corefile again."""
        seconds = None
        if instance.reload:
            interval, jitter = instance.reload
            seconds = interval + random.uniform(-jitter, jitter)
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._look)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        self._look.clear()

    async def _reloaded(self, digest: str, instance: Instance) -> tuple[str, Instance]:
        """Returns the digest and instance to serve with: the old ones if the reload fails."""
        try:
            new_digest, blocks = load(self._flags.conf)
            if new_digest == digest:
                return digest, instance
            log.info("Reloading")
            fresh = self._build(blocks)
            await fresh.start()
        except (CorefileError, PluginError, OSError) as error:
            log.error("plugin/reload: Corefile changed but reload failed: %s", error)
            return digest, instance
        await instance.stop()
        log.info("plugin/reload: Running configuration SHA512 = %s", new_digest)
        log.info("Reloading complete")
        return new_digest, fresh

    def _announce(self, instance: Instance) -> None:
        if not self._flags.quiet:
            for port, zones in instance.servers.items():
                print(*(f"{zone}:{port}" for zone in zones), sep="\n", flush=True)
            print(f"CoreDNS-{VERSION}\nlinux, kubewire", flush=True)


def main(argv: list[str]) -> int:
    """Returns 0 after SIGTERM; 1, with CoreDNS's message, for a bad Corefile or a taken port."""
    flags = parse_flags(argv)
    if flags.version:
        print(f"CoreDNS-{VERSION}\nlinux, kubewire")
        return 0
    if flags.plugins:
        print(
            "Server types:\n  dns\n\nOther plugins:",
            *(f"  dns.{name}" for name in sorted(PLUGINS)),
            sep="\n",
        )
        return 0
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="[%(levelname)s] %(message)s")
    if flags.pidfile:
        Path(flags.pidfile).write_text(f"{os.getpid()}\n")
    try:
        return asyncio.run(Process(flags).run())
    except (CorefileError, PluginError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
