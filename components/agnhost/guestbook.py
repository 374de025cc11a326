"""agnhost guestbook: the three-tier application of upstream's guestbook test (guestbook/guestbook.go).

A primary holds the entries and hands each new one on to its replicas. A replica registers itself
at start (--replicaof). The front end passes on what it is asked: `set` to the Service
agnhost-primary, `get` to agnhost-replica.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial

from kubewire.components.base.golang import quote

from . import dial
from .flags import Flag, parse
from .golang import fatal, log
from .http import HttpServer, Request, Respond, Response, error, listen_tcp, text
from .loop import Loop
from .netexec import stop_on_sigterm

FLAGS = (
    Flag("http-port", "80", "HTTP Listen Port"),
    Flag("backend-port", "6379", "Backend's HTTP Listen Port"),
    Flag("replicaof", "", "The host's name to register to"),
)
_REGISTER_SECONDS = 15
#: fetch(request, host, port) -> the answer. Raises OSError or dial.BadAddress.
Fetch = Callable[[str, str, str], str]


def fetch(request: str, host: str, port: str) -> str:
    return dial.DIALERS["http"](request, dial.resolve(host, port))


class Guestbook:
    """The entries and the replicas of a node. offload(work, done) runs what blocks."""

    def __init__(
        self,
        backend_port: str,
        offload: Callable[[Callable[[], object], Callable[[object], None]], None],
        fetch: Fetch = fetch,
    ) -> None:
        self.entries: dict[str, str] = {}
        self._replicas: list[str] = []
        self._port = backend_port
        self._offload = offload
        self._fetch = fetch

    def answer(self, request: Request, respond: Respond) -> None:
        pages = {
            "/register": self._register,
            "/get": self._get,
            "/set": self._set,
            "/guestbook": self._pass_on,
        }
        page = pages.get(request.path)
        if page is None:
            respond(error("404 page not found", 404))
        else:
            page(request, respond)

    def _register(self, request: Request, respond: Respond) -> None:
        host = request.query("host")
        log(f"GET /register?host={host}")
        self._replicas.append(host)
        log(f"Node '{host}' registered.")
        respond(_json({"data": self.entries}))

    def _get(self, request: Request, respond: Respond) -> None:
        key = request.query("key")
        log(f"GET /get?key={key}")
        respond(_json({"data": self.entries.get(key, "") if key else self.entries}))

    def _set(self, request: Request, respond: Respond) -> None:
        key, value = request.query("key"), request.query("value")
        log(f"GET /set?key={key}&value={value}")
        if not key:
            respond(error("cannot set with empty key.", 400))
            return
        self.entries[key] = value
        asked = f"set?key={key}&value={value}"

        def told(failure: object) -> None:
            respond(error(str(failure), 417) if failure else _json({"message": "Updated"}))

        if self._replicas:
            self._offload(partial(self._hand_on, asked, tuple(self._replicas)), told)
        else:
            told("")

    def _hand_on(self, asked: str, replicas: tuple[str, ...]) -> str:
        """Returns "" if all replicas have the entry, else why not."""
        for replica in replicas:
            try:
                self._fetch(asked, replica, self._port)
            except (OSError, dial.BadAddress) as err:
                return f"encountered error while propagating to replica '{replica}': {err}"
        return ""

    def _pass_on(self, request: Request, respond: Respond) -> None:
        command = request.query("cmd").lower()
        key, value = request.query("key"), request.query("value")
        log(f"GET /guestbook?cmd={command}&key={key}&value={value}")
        if command not in ("get", "set"):
            respond(error(f"unsupported cmd: '{command}'", 400))
            return
        if command == "set" and not key:
            respond(error("cannot set with empty key.", 400))
            return
        host = "agnhost-primary" if command == "set" else "agnhost-replica"
        asked = f"{command}?key={key}&value={value}"
        self._offload(partial(self._ask, asked, host), lambda found: respond(_passed_on(found)))

    def _ask(self, asked: str, host: str) -> tuple[int, str]:
        try:
            return 200, self._fetch(asked, host, self._port)
        except dial.BadAddress as err:
            return 400, f"host and/or port param are invalid. {err}"
        except OSError as err:
            return 417, f"encountered error: {err}"


def _passed_on(found: object) -> Response:
    if isinstance(found, tuple):
        status, said = found
        return text(said) if status == 200 else error(said, status)
    return error(f"encountered error: {found}", 417)


def _json(value: object) -> Response:
    return text(json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False))


def register(primary: str, port: str) -> dict[str, str]:
    """Tells the primary this node's address; returns the primary's entries. Raises OSError,
    dial.BadAddress or ValueError."""
    family, address = dial.resolve(primary, port)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(address)  # sends nothing, and says which address leads there
        own = sock.getsockname()[0]
    log(f"Registering to primary: {primary}:{port}/register?host={own}")
    answer = dial.DIALERS["http"](f"register?host={own}", (family, address))
    return dict(json.loads(answer)["data"])


def _join(loop: Loop, book: Guestbook, primary: str, port: str, left: int) -> None:
    """Registers this node, with a try a second."""
    if not left:
        raise fatal("Timed out while registering to primary.")

    def done(found: object) -> None:
        if isinstance(found, dict):
            book.entries.update(found)
            log(f"Registered to node: {primary}")
            return
        log(f"encountered error while registering to primary {quote(primary)}: {found}.")
        loop.later(1, lambda: _join(loop, book, primary, port, left - 1))

    loop.offload(partial(register, primary, port), done)


def main(argv: list[str]) -> int:
    """Serves until SIGTERM."""
    values, _ = parse("guestbook", FLAGS, argv)
    loop = Loop()
    stop_on_sigterm(loop, 2)
    backend = str(values["backend-port"])
    book = Guestbook(backend, loop.offload)
    HttpServer(loop, listen_tcp(int(values["http-port"])), book.answer)
    if primary := str(values["replicaof"]):
        _join(loop, book, primary, backend, _REGISTER_SECONDS)
    loop.run()
    return 0
