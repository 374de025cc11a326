"""agnhost serve-hostname: serves the hostname over HTTP, TCP or UDP (serve_hostname.go)."""

from __future__ import annotations

import signal
import socket
from functools import partial

from .flags import Flag, parse
from .golang import fatal, host_port, log
from .http import HttpServer, Request, Respond, Response, listen_tcp
from .loop import Loop
from .netexec import listen_udp

FLAGS = (
    Flag("tcp", False, "Serve raw over TCP."),
    Flag("udp", False, "Serve raw over UDP."),
    Flag("http", True, "Serve HTTP."),
    Flag("close", False, "Close connection per each HTTP request."),
    Flag("port", 9376, "Port number."),
)
#: Seconds for which it still serves after SIGTERM, as upstream, until Services have removed the
#: pod.
LINGER = 60.0


def main(argv: list[str]) -> int:
    """Serves until a minute after SIGTERM."""
    values, _ = parse("serve-hostname", FLAGS, argv)
    if values["http"] and (values["tcp"] or values["udp"]):
        raise fatal("Can't server TCP/UDP mode and HTTP mode at the same time")
    port = int(values["port"])
    hostname = socket.gethostname().encode()
    loop = Loop()
    try:
        if values["tcp"]:
            listener = listen_tcp(port)
            loop.watch(listener.fileno(), read=partial(_answer_stream, listener, hostname))
        if values["http"]:
            close = bool(values["close"])

            def answer(request: Request, respond: Respond) -> None:
                log(f"HTTP request from {request.client}")
                respond(Response(body=hostname, close=close))

            HttpServer(loop, listen_tcp(port), answer)
    except OSError as err:
        reason = (err.strerror or "").lower()
        message = f"Error from net.Listen(): listen tcp :{port}: bind: {reason}"
        raise fatal(message) from None
    if values["udp"]:
        sock = listen_udp(port)
        loop.watch(sock.fileno(), read=partial(_answer_datagram, sock, hostname))
    log(f"Serving on port {port}.")

    def terminate() -> None:
        log("Shutting down after receiving signal: terminated.")
        log("Awaiting pod deletion.")
        loop.later(LINGER, _end)

    loop.on_signal(signal.SIGTERM, terminate)
    loop.run()
    return 0


def _end() -> None:
    raise SystemExit(0)


def _answer_stream(listener: socket.socket, hostname: bytes) -> None:
    sock, address = listener.accept()
    log(f"TCP request from {host_port(address)}")
    with sock:
        try:
            sock.sendall(hostname)
        except OSError as err:
            log(f"TCP: {err}")


def _answer_datagram(sock: socket.socket, hostname: bytes) -> None:
    try:
        _, address = sock.recvfrom(16)
        log(f"UDP request from {host_port(address)}")
        sock.sendto(hostname, address)
    except OSError as err:
        log(f"UDP: {err}")
