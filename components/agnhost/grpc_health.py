"""agnhost grpc-health-checking: grpc.health.v1.Health/Check, whose answer can be changed over HTTP
(grpc-health-checking.go)."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from functools import partial

from kubewire.components.base.golang import format_duration

from .flags import Flag, parse
from .golang import fatal, log
from .http import HttpServer, Request, Respond, error, listen_tcp, text
from .http2 import Connection, ProtocolError, Reply
from .loop import Loop
from .netexec import stop_on_sigterm

FLAGS = (
    Flag("port", 5000, "Port number."),
    Flag("http-port", 8080, "Port number for the /make-serving and /make-not-serving."),
    Flag(
        "delay-unhealthy-sec",
        -1,
        "Number of seconds to delay before start reporting NOT_SERVING, negative: never.",
    ),
    Flag("service", "", "Service name to register the health check for."),
)
_NOT_FOUND = 5
_SERVING = b"\x08\x01"
_NOT_SERVING = b"\x08\x02"
#: HealthCheckRequest has a single field, `service` (number 1, of bytes).
_SERVICE = 0x0A


def service_of(message: bytes) -> str:
    """The service that a HealthCheckRequest asks for; "" without one."""
    if len(message) < 2 or message[0] != _SERVICE or message[1] > 127:
        return ""
    return message[2 : 2 + message[1]].decode("utf-8", "replace")


@dataclass
class Health:
    """What the server answers. unhealthy_after: seconds since the start; None: never. forced: what
    /make-serving and /make-not-serving have set."""

    service: str = ""
    unhealthy_after: float | None = None
    started: float = field(default_factory=time.monotonic)
    forced: bool | None = None

    def check(self, message: bytes) -> Reply:
        log("Serving the Check request for health check")
        if service_of(message) != self.service:
            return Reply(_NOT_FOUND, text="unknown service")
        aged = self.unhealthy_after is not None and self.age >= self.unhealthy_after
        return Reply(message=_NOT_SERVING if self.forced is False or aged else _SERVING)

    @property
    def age(self) -> float:
        return time.monotonic() - self.started

    def control(self, request: Request, respond: Respond) -> None:
        """The HTTP server's answers."""
        if request.path not in ("/make-serving", "/make-not-serving"):
            respond(error("404 page not found", 404))
            return
        self.forced = request.path == "/make-serving"
        log("Mark as healthy" if self.forced else "Mark as unhealthy")
        respond(text(format_duration(self.age)))


def main(argv: list[str]) -> int:
    """Serves until SIGTERM."""
    values, _ = parse("grpc-health-checking", FLAGS, argv)
    delay = int(values["delay-unhealthy-sec"])
    health = Health(str(values["service"]), float(delay) if delay >= 0 else None)
    loop = Loop()
    stop_on_sigterm(loop, 2)
    port = int(values["port"])
    http_port = int(values["http-port"])
    try:
        log(f"Http server starting to listen on :{http_port}")
        HttpServer(loop, listen_tcp(http_port), health.control)
        listener = listen_tcp(port)
    except OSError as problem:
        reason = (problem.strerror or "").lower()
        raise fatal(f"Error while starting the listening service {reason}") from None
    log(f"gRPC server starting to listen on :{port}")
    listener.setblocking(False)
    loop.watch(listener.fileno(), read=partial(_accept, loop, listener, health))
    loop.run()
    return 0


def _accept(loop: Loop, listener: socket.socket, health: Health) -> None:
    try:
        sock, _ = listener.accept()
    except OSError:
        return
    # What is sent is a few bytes for each request, so a blocking send with a limit is enough.
    sock.settimeout(5)
    connection = Connection(health.check)

    def readable() -> None:
        try:
            data = sock.recv(65536)
            answer = connection.receive(data) if data else b""
            if data:
                sock.sendall(answer)
                return
        except (OSError, ProtocolError) as problem:
            log(f"connection closed: {problem}")
        loop.watch(sock.fileno())
        sock.close()

    loop.watch(sock.fileno(), read=readable)
