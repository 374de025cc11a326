"""The small servers liveness, porter, no-snat-test, its proxy and tcp-reset, and pause."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from kubewire.components.base.golang import format_duration, quote

from . import dial
from .flags import Flag, parse
from .golang import fatal, host_port, log, to_json
from .http import HttpServer, Request, Respond, Response, error, listen_tcp, redirect, text
from .loop import Loop
from .netexec import IPPROTO_SCTP, listen_udp, stop_on_sigterm


def liveness(argv: list[str]) -> int:
    """Serves port 8080: /healthz answers "ok" for ten seconds, and then 500."""
    parse("liveness", (), argv)
    started = time.monotonic()

    def answer(request: Request, respond: Respond) -> None:
        alive = time.monotonic() - started
        if request.path == "/started":
            respond(text(format_duration(alive)))
        elif request.path == "/healthz":
            respond(text("ok") if alive <= 10 else text(f"error: {alive:.9g}", 500))
        elif request.path == "/redirect":
            respond(redirect(request, request.query("loc"), 302))
        else:
            respond(error("404 page not found", 404))

    return _serve_http(8080, answer)


def _serve_http(port: int, answer: Callable[[Request, Respond], None]) -> int:
    loop = Loop()
    stop_on_sigterm(loop, 2)
    try:
        HttpServer(loop, listen_tcp(port), answer)
    except OSError as err:
        raise fatal(f"listen tcp :{port}: bind: {(err.strerror or '').lower()}") from None
    loop.run()
    return 0


PORTER_FLAGS = (
    Flag(
        "json-response",
        False,
        "Responds with json: the default value and the request's method",
    ),
)


def porter(argv: list[str]) -> int:
    """Serves the value of each variable SERVE_PORT_N, SERVE_TCP_PORT_N, SERVE_UDP_PORT_N,
    SERVE_TLS_PORT_N and SERVE_SCTP_PORT_N on port N."""
    values, _ = parse("porter", PORTER_FLAGS, argv)
    loop = Loop()
    stop_on_sigterm(loop, 2)
    for key, value in os.environ.items():
        prefix, _, port = key.rpartition("_")
        if prefix.startswith("SERVE") and port.isdigit():
            _serve_port(loop, prefix, int(port), value, bool(values["json-response"]))
    loop.run()
    return 0


def _serve_port(loop: Loop, prefix: str, port: int, value: str, as_json: bool) -> None:
    def answer(request: Request, respond: Respond) -> None:
        if as_json:
            body = to_json({"Body": value, "Method": request.method}).encode()
            respond(Response(body=body, headers={"Content-Type": "application/json"}))
        else:
            respond(text(value))

    try:
        if prefix in ("SERVE_PORT", "SERVE_TCP_PORT"):
            HttpServer(loop, listen_tcp(port), answer)
        elif prefix == "SERVE_TLS_PORT":
            import ssl

            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate = os.environ.get("CERT_FILE", "localhost.crt")
            tls.load_cert_chain(certificate, os.environ.get("KEY_FILE", "localhost.key"))
            HttpServer(loop, listen_tcp(port), answer, tls)
        elif prefix == "SERVE_UDP_PORT":
            sock = listen_udp(port)
            log(f"Started UDP server on port {port}")
            loop.watch(sock.fileno(), read=partial(_answer_datagram, sock, value.encode()))
        elif prefix == "SERVE_SCTP_PORT":
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
            listener.bind(("0.0.0.0", port))
            listener.listen(128)
            loop.watch(listener.fileno(), read=partial(_answer_stream, listener, value.encode()))
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        log(f'server on port "{port}" failed: {reason}')


def _answer_datagram(sock: socket.socket, value: bytes) -> None:
    try:
        _, address = sock.recvfrom(16)
        sock.sendto(value, address)
    except OSError as err:
        log(f"UDP: error from ReadFrom(): {err}")


def _answer_stream(listener: socket.socket, value: bytes) -> None:
    sock, _ = listener.accept()
    with sock:
        try:
            sock.sendall(value)
        except OSError as err:
            log(f"Failed to send response {err}")


def no_snat_test(argv: list[str]) -> int:
    """Serves /whoami and /checknosnat.

    /whoami answers with the client's IP. /checknosnat?ips=a,b asks /whoami at each address, and
    answers 200 if all of them saw POD_IP.
    """
    port = Flag("port", "8080", "The port to serve /checknosnat and /whoami on")
    values, _ = parse("no-snat-test", (port,), argv)
    pod_ip = os.environ.get("POD_IP", "")
    node_ip = os.environ.get("NODE_IP", "")
    for name, address in (("POD_IP", pod_ip), ("NODE_IP", node_ip)):
        if not address:
            raise fatal(f"fatal error: {name} environment variable is not set")
    loop = Loop()
    stop_on_sigterm(loop, 2)

    def answer(request: Request, respond: Respond) -> None:
        if request.path == "/whoami":
            respond(text(request.client.rpartition(":")[0].strip("[]")))
        elif request.path == "/checknosnat":
            ips = [ip for ip in request.query("ips").split(",") if ip]
            check = partial(_check_no_snat, ips, pod_ip)
            loop.offload(check, lambda result: respond(_no_snat_answer(result)))
        else:
            respond(error("404 page not found", 404))

    HttpServer(loop, listen_tcp(int(values["port"])), answer)
    loop.run()
    return 0


def _check_no_snat(ips: list[str], pod_ip: str) -> str:
    """Returns "" if every address saw pod_ip, else an error text."""
    for target in ips:
        host, _, port = target.rpartition(":")
        try:
            seen = dial.DIALERS["http"]("whoami", dial.resolve(host.strip("[]"), port))
        except (OSError, dial.BadAddress) as err:
            return f"error: {err}"
        if seen != pod_ip:
            return f"error: IP mismatch: expected {pod_ip} but received {seen} from {target}"
    return ""


def _no_snat_answer(result: object) -> Response:
    return text("") if result == "" else error(str(result), 500)


def no_snat_test_proxy(argv: list[str]) -> int:
    """Serves /checknosnat?target=HOST:PORT&ips=a,b, which asks /checknosnat of the target."""
    port = Flag("port", "31235", "The port to serve /checknosnat endpoint on.")
    values, _ = parse("no-snat-test-proxy", (port,), argv)
    loop = Loop()
    stop_on_sigterm(loop, 2)

    def answer(request: Request, respond: Respond) -> None:
        if request.path != "/checknosnat":
            respond(error("404 page not found", 404))
            return
        url = f"http://{request.query('target')}/checknosnat?ips={request.query('ips')}"
        loop.offload(partial(_passed_on, url), lambda found: respond(_proxy_answer(found)))

    HttpServer(loop, listen_tcp(int(values["port"])), answer)
    loop.run()
    return 0


def _passed_on(url: str) -> tuple[int, str]:
    """The status and the body with which the proxy answers."""
    try:
        status, _, body = dial.get(url)
    except (OSError, ValueError) as err:
        return 500, f"error querying {quote(url)}, err: {err}"
    return status, body.decode("utf-8", "replace")


def _proxy_answer(found: object) -> Response:
    status, body = found if isinstance(found, tuple) else (500, str(found))
    return text(body, status)


def tcp_reset(argv: list[str]) -> int:
    """Reads a byte of each connection and closes it; if more is unread, the kernel sends RST."""
    values, _ = parse("tcp-reset", (Flag("port", 8080, "Port number."),), argv)
    loop = Loop()
    stop_on_sigterm(loop, 2)
    listener = listen_tcp(int(values["port"]))

    def accept() -> None:
        sock, address = listener.accept()
        sock.setblocking(False)
        log(f"TCP request from {host_port(address)}")

        def read() -> None:
            loop.watch(sock.fileno())
            try:
                sock.recv(1)
            except OSError as err:
                log(f"read: {err}")
            sock.close()

        loop.watch(sock.fileno(), read=read)

    loop.watch(listener.fileno(), read=accept)
    loop.run()
    return 0


def pause(argv: list[str]) -> int:
    """Sleeps until SIGINT (exit code 1) or SIGTERM (2)."""
    awaited = {signal.SIGINT: 1, signal.SIGTERM: 2}
    for number in awaited:
        # The kernel discards signals to PID 1 that have no handler (pid_namespaces(7)).
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    print("Paused", flush=True)
    return awaited[signal.Signals(signal.sigwait(awaited))]
