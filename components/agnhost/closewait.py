"""agnhost net: a server and a client whose connection stays half closed, for tests of the time-out
of CLOSE_WAIT in connection tracking (net/nat/closewait.go).

The server accepts one connection and sends its FIN; the client is then in CLOSE_WAIT. Both wait, so
that a test can look at the entry of the connection.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from . import dial
from .flags import Flag, parse
from .golang import fatal, log
from .http import HttpServer, Request, Respond, error, listen_tcp, text
from .loop import Loop
from .netexec import stop_on_sigterm

FLAGS = (
    Flag("serve", "", "Address and port to bind to; runners are triggered through HTTP requests"),
    Flag("runner", "", "Runner to execute (available: nat-closewait-client nat-closewait-server)"),
    Flag("options", "", "JSON options to the Runner"),
    Flag("delay-shutdown", 0, "Number of seconds to delay shutdown when receiving SIGTERM."),
)
Say = Callable[[str], None]
#: Connections that stay open until the process ends (LeakConnection).
_LEAKED: list[socket.socket] = []


class RunnerError(Exception):
    """A runner failed, is not known, or got wrong options."""


def server(options: Mapping[str, Any], say: Say) -> None:
    address = _address(options.get("LocalAddr", ""))
    seconds = options.get("PostFinTimeoutSeconds", 0)
    with socket.create_server(address[1], family=address[0]) as listener:
        say(f"Server listening on {options.get('LocalAddr', '')}")
        connection, _ = listener.accept()
        with connection:
            say("Client connected")
            connection.shutdown(socket.SHUT_WR)
            say(f"Server sent FIN, waiting {seconds} seconds")
            time.sleep(seconds)
    say("Done")


def client(options: Mapping[str, Any], say: Say) -> None:
    address = _address(options.get("RemoteAddr", ""))
    seconds = options.get("PostFinTimeoutSeconds", 0)
    connection = socket.create_connection(address[1])
    if options.get("LeakConnection"):
        _LEAKED.append(connection)
    say("Connected to server")
    connection.settimeout(options.get("TimeoutSeconds") or None)
    if connection.recv(1):
        raise RunnerError("Got data but expected EOF")
    say(f"Server has half-closed the connection, waiting {seconds} seconds")
    time.sleep(seconds)
    if connection not in _LEAKED:
        connection.close()
    say("Done")


RUNNERS: Mapping[str, Callable[[Mapping[str, Any], Say], None]] = {
    "nat-closewait-client": client,
    "nat-closewait-server": server,
}


def _address(given: str) -> dial.Address:
    host, colon, port = given.rpartition(":")
    if not colon:
        raise RunnerError(f"address {given}: missing port in address")
    return dial.resolve(host.strip("[]"), port)


def run(name: str, options: str) -> tuple[str, str]:
    """Runs a runner; returns what it said, and why it failed, or ""."""
    lines: list[str] = []
    try:
        if name not in RUNNERS:
            raise RunnerError(f"Invalid runner: '{name}', see --help")
        given = json.loads(options)
        if not isinstance(given, dict):
            raise ValueError("not an object")
        RUNNERS[name](given, lambda line: lines.append(f"# closewait.go: {line}\n"))
    except ValueError as err:
        return "".join(lines), f"Invalid options JSON: {err}"
    except (RunnerError, dial.BadAddress, OSError) as err:
        return "".join(lines), str(err)
    return "".join(lines), ""


def answer(loop: Loop, request: Request, respond: Respond) -> None:
    """POST /run/RUNNER, with its options as the body."""
    parts = request.path.split("/")
    if parts[1] != "run":
        respond(error("404 page not found", 404))
        return
    if len(parts) != 3:
        respond(error(f"invalid request to run: [{' '.join(parts)}]", 400))
        return

    def done(found: Any) -> None:
        said, failure = found if isinstance(found, tuple) else ("", str(found))
        if failure:
            respond(error(f"Error from runner: {failure}\noutput:\n\n{said}", 500))
        else:
            respond(text(f"ok\noutput:\n\n{said}"))

    loop.offload(partial(run, parts[2], request.body.decode("utf-8", "replace")), done)


def _end_on_sigterm(loop: Loop, delay: int) -> None:
    def end() -> None:
        raise SystemExit(0)

    if delay > 0:
        loop.on_signal(signal.SIGTERM, lambda: loop.later(delay, end))
    else:
        stop_on_sigterm(loop, 2)


def main(argv: list[str]) -> int:
    """Runs a runner, or serves until SIGTERM."""
    values, _ = parse("net", FLAGS, argv)
    if not values["runner"] and not values["serve"]:
        raise fatal("Must set either --runner or --serve, see --help")
    if not values["serve"]:
        said, failure = run(str(values["runner"]), str(values["options"]))
        if failure:
            log(f"Error: {failure}")
        print(f"output:\n\n{said}", end="", flush=True)
        return 1 if failure else 0
    loop = Loop()
    _end_on_sigterm(loop, int(values["delay-shutdown"]))
    log(f"Running server on {values['serve']}")
    host, _, port = str(values["serve"]).rpartition(":")
    HttpServer(loop, listen_tcp(int(port), host.strip("[]")), partial(answer, loop))
    loop.run()
    return 0
