"""The daemon's process, and the command that queries a running daemon: flags, logging, signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from kubewire.components.base import daemon as process
from kubewire.components.base import sources
from kubewire.components.bgp.config import ConfigError

CONTROL = "/run/bgp/bgp.ctl"


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM or an answered command, 1 if the daemon cannot start or does not
    answer."""
    parser = argparse.ArgumentParser(prog="bgp", description="BGP daemon of a node")
    parser.add_argument("--config", type=Path, default=Path("/etc/bgp/bgp.yaml"))
    parser.add_argument(
        "--control",
        type=Path,
        default=Path(CONTROL),
        help=f"control socket (default {CONTROL})",
    )
    parser.add_argument("-v", type=int, default=2, dest="verbosity")
    parser.add_argument(
        "command",
        nargs="*",
        help="send a command to the running daemon: show protocols, show route, configure, graceful restart",
    )
    options = parser.parse_args(argv)
    if options.command:
        return _ask(options.control, " ".join(options.command))
    process.log_to_stderr(options.verbosity)
    if options.verbosity < 4:
        # os-ken reports every notification and lost connection as an error; the daemon logs their
        # meaning.
        logging.getLogger("bgpspeaker").setLevel(logging.CRITICAL)
    try:
        wants_restart, failure = asyncio.run(_until_signal(options.config, options.control))
    except (ConfigError, OSError) as error:
        print(f"bgp: {error}", file=sys.stderr)
        return 1
    if failure:
        print(f"bgp: {failure}", file=sys.stderr)
        return 1
    if wants_restart:
        arguments = [sys.executable, "-m", "kubewire.components.bgp", *argv]
        os.execve(
            sys.executable,
            arguments,
            os.environ | {"PYTHONPATH": str(sources.IMPORTED_FROM)},
        )
    return 0


async def _until_signal(config: Path, control: Path) -> tuple[bool, str]:
    """Returns whether the process must be restarted, and why it cannot continue ("" if it can)."""
    # Importing os-ken takes a tenth of a second, which a command does not need.
    from kubewire.components.bgp.daemon import Daemon
    from kubewire.components.bgp.speaker import SpeakerError

    daemon = Daemon(config, control)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(daemon.configure()))
    try:
        await daemon.run(process.termination())
    except SpeakerError as error:
        return False, str(error)
    return daemon.wants_restart, daemon.failure


def _ask(control: Path, command: str) -> int:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(control))
            connection.sendall(f"{command}\n".encode())
            while data := connection.recv(65536):
                sys.stdout.write(data.decode())
    except OSError as error:
        print(f"bgp: no answer at {control}: {error}", file=sys.stderr)
        return 1
    return 0
