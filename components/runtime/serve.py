"""The fork server's flags, socket and signals."""

from __future__ import annotations

import argparse
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kubewire.components.base import sources

from .loop import Loop
from .rootfs import Layout, owned, program_binds
from .server import Server
from .tools import install


def serve(argv: list[str], parents: Mapping[str, socket.socket]) -> int:
    """Serves until SIGTERM or SIGINT, and then kills all processes that it has started."""
    options = _parse(argv)
    loop = Loop()
    _stop_on_signals(loop)
    # Each of perhaps a thousand containers needs two pipes and a log file.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        listeners = [listen(options.socket)]
    except OSError as err:
        print(f"runtime: cannot listen on {options.socket}: {err.strerror}", file=sys.stderr)
        return 1
    if options.listen_fd is not None:
        listeners.append(socket.socket(fileno=options.listen_fd))
    server = Server(loop, listeners, parents, _layout(options))
    try:
        loop.run()
        if not server.failed:
            loop.resume()
            server.kill_all()
    finally:
        Path(options.socket).unlink(missing_ok=True)
    if server.failed:
        print(f"runtime: {server.failed}", file=sys.stderr)
    return 1 if server.failed else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kubewire.components.runtime",
        description="kubewire's fork server",
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="unix socket to serve")
    parser.add_argument(
        "--listen-fd",
        metavar="N",
        type=int,
        help="a second socket to serve, inherited and already listening",
    )
    parser.add_argument(
        "--state",
        metavar="DIR",
        default="",
        help="directory for what containers share (busybox links)",
    )
    parser.add_argument("--lower", metavar="DIR", default="/", help="lower root of containers")
    parser.add_argument(
        "--over",
        metavar="DIR",
        action="append",
        default=[],
        help="directory that the lower root lacks; each container sees it through its own overlay",
    )
    parser.add_argument(
        "--show",
        metavar="PATH",
        action="append",
        default=[],
        help="bound into each container, read-only",
    )
    parser.add_argument(
        "--share",
        metavar="PATH",
        action="append",
        default=[],
        help="bound into each container, as it is mounted here",
    )
    return parser.parse_args(argv)


def _layout(options: argparse.Namespace) -> Layout:
    bases: tuple[str, ...] = ("/mnt", "/media", "/srv")
    tools = ""
    if options.state:
        base = Path(options.state) / "scratch"
        base.mkdir(parents=True, exist_ok=True)
        bases = (str(base), *bases)
        tools = f"{options.state}/tools"
        install(Path(tools))
    code = options.show or [str(sources.VISIBLE)]
    programs = [sys.prefix, sys.base_prefix, *code]
    return Layout(
        options.lower.rstrip("/") or "/",
        bases,
        program_binds(options.lower, options.over, programs),
        tools,
        user_namespace=Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"],
        over=tuple(options.over),
        shared=tuple(options.share),
        owned=owned(options.over),
    )


def _stop_on_signals(loop: Loop) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    # The channel of a forking parent shows its death, so the parents need not be reaped.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    loop.set_reader(reader, loop.stop)


def listen(path: str) -> socket.socket:
    """Makes a listening unix socket at path, for its owner only; replaces a socket without a
    server.

    Raises OSError, with EADDRINUSE if a server answers there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(FileNotFoundError, ConnectionRefusedError):
        sock.connect(path)
        sock.close()
        raise OSError(errno.EADDRINUSE, f"{path}: another fork server answers here")
    sock.close()
    with suppress(FileNotFoundError):
        Path(path).unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A lab's directory has mode 0700 anyway; this protects sockets in other directories.
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    sock.listen(128)
    return sock
