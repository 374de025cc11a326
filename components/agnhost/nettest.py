"""agnhost nettest: pods that contact all pods of their Service, and count who contacted them
(nettest/nettest.go)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from . import incluster
from .flags import Flag, parse
from .golang import fatal, log
from .http import HttpServer, Request, Respond, error, listen_tcp, text
from .loop import Loop
from .netexec import stop_on_sigterm

FLAGS = (
    Flag("port", 8080, "Port number to serve at."),
    Flag("peers", 8, "Must find at least this many peers for the test to pass."),
    Flag("service", "nettest", "Service to find other network test pods in."),
    Flag("namespace", "default", "Namespace of this pod."),
    Flag("delay-shutdown", 0, "Number of seconds to delay shutdown when receiving SIGTERM."),
)
_ROUNDS = 15
_LOG_LINES = 500


class State:
    """Who was contacted, and by whom this pod was. /read shows it."""

    def __init__(self, hostname: str, peers: int) -> None:
        self.hostname = hostname
        self.sent: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.errors: list[str] = []
        self.lines: list[str] = []
        self.contacting = True
        self._peers = peers

    def status(self) -> str:
        if len(self.sent) >= self._peers and len(self.received) >= self._peers:
            return "pass"
        return "running" if self.contacting else "fail"

    def say(self, line: str) -> None:
        self.lines = [*self.lines, line][-_LOG_LINES:]

    def wrote(self, body: bytes) -> str:
        """Counts a peer's POST; returns the answer."""
        try:
            source = json.loads(body).get("Source", "")
        except (ValueError, AttributeError) as err:
            self.errors.append(str(err))
            source = ""
        if source:
            self.received[source] = self.received.get(source, 0) + 1
        else:
            self.errors.append(f"{self.hostname}: Got request with no source")
        return json.dumps({"Hostname": self.hostname}, separators=(",", ":")) + "\n"

    def read(self) -> str:
        shown = {
            "Hostname": self.hostname,
            "Sent": self.sent or None,
            "Received": self.received or None,
            "Errors": self.errors or None,
            "Log": self.lines or None,
            "StillContactingPeers": self.contacting,
        }
        return json.dumps(shown, indent="\t")

    def answer(self, request: Request, respond: Respond) -> None:
        match request.path:
            case "/quit":
                raise SystemExit(0)
            case "/read":
                respond(text(self.read()))
            case "/write":
                respond(text(self.wrote(request.body)))
            case "/status":
                respond(text(self.status()))
            case _:
                respond(error("404 page not found", 404))


def addresses(endpoints: Any) -> list[str]:
    """The URLs of an Endpoints object, each once."""
    found = set()
    for subset in endpoints.get("subsets") or []:
        for address in subset.get("addresses") or []:
            host = f"[{address['ip']}]" if ":" in address["ip"] else address["ip"]
            found |= {f"http://{host}:{port['port']}" for port in subset.get("ports") or []}
    return sorted(found)


def contact(hostname: str, url: str) -> str:
    """Tells a peer who this is; returns its name. Raises OSError or ValueError."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    body = json.dumps({"Source": hostname, "Dest": url})
    try:
        connection.request("POST", "/write", body, {"Content-Type": "application/json"})
        return str(json.loads(connection.getresponse().read())["Hostname"])
    except http.client.HTTPException as err:
        raise OSError(str(err)) from err
    finally:
        connection.close()


def contact_all(hostname: str, urls: list[str]) -> list[tuple[str, str]]:
    """(name of the peer, "") or ("", what went wrong), for each URL."""
    found = []
    for url in urls:
        try:
            found.append((contact(hostname, url), ""))
        except (OSError, ValueError, KeyError) as err:
            found.append(("", f'Warning: unable to contact the endpoint "{url}": {err}'))
    return found


def _round(hostname: str, path: str, peers: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The peers of the Service, and what contacting them gave, once there are enough."""
    token = (incluster.ACCOUNT / "token").read_text().strip()
    body = incluster.fetch(f"{incluster.server()}{path}", incluster.trusted(), token)
    urls = addresses(json.loads(body))
    return urls, contact_all(hostname, urls) if len(urls) >= peers else []


class Contacts:
    """Contacts all peers in turns, when the Service has enough of them or the time is over."""

    def __init__(self, loop: Loop, state: State, path: str, peers: int) -> None:
        self._loop, self._state, self._path, self._peers = loop, state, path, peers
        self._pause = max(5, peers // 10)
        self._waits = max(300, peers) // self._pause
        self._rounds = _ROUNDS

    def turn(self) -> None:
        wanted = self._peers if self._waits > 0 and self._rounds == _ROUNDS else 0
        self._loop.offload(partial(_round, self._state.hostname, self._path, wanted), self._done)

    def _done(self, found: Any) -> None:
        if not isinstance(found, tuple):
            self._state.say(f"Unable to read the endpoints for {self._path}: {found}.")
            self._waits -= 1
        elif not found[1] and self._waits > 0 and self._rounds == _ROUNDS:
            self._state.say(f"{self._path} has {len(found[0])} endpoints, fewer than expected.")
            self._waits -= 1
        else:
            self._rounds -= 1
        for name, problem in found[1] if isinstance(found, tuple) else ():
            if problem:
                self._state.say(problem)
            else:
                self._state.sent[name] = self._state.sent.get(name, 0) + 1
        if self._rounds and (self._waits > 0 or isinstance(found, tuple)):
            self._loop.later(self._pause, self.turn)
        else:
            self._state.contacting = False


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or /quit."""
    values, _ = parse("nettest", FLAGS, argv)
    if not values["service"]:
        raise fatal("Must provide -service flag.")
    incluster.server()
    loop = Loop()
    if delay := int(values["delay-shutdown"]):
        loop.on_signal(signal.SIGTERM, lambda: loop.later(delay, lambda: os._exit(0)))
    else:
        stop_on_sigterm(loop, 2)
    state = State(socket.gethostname(), int(values["peers"]))
    path = f"/api/v1/namespaces/{values['namespace']}/endpoints/{values['service']}"
    HttpServer(loop, listen_tcp(int(values["port"])), state.answer)
    log(f"contacting the endpoints of {values['namespace']}/{values['service']}")
    Contacts(loop, state, path, int(values["peers"])).turn()
    loop.run()
    return 0
