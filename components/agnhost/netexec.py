"""agnhost netexec: HTTP(S), UDP and SCTP servers that report their name and their client's address
(upstream: netexec.go)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs, urlsplit

from kubewire.components.base.golang import format_duration, parse_duration, quote

from . import dial
from .flags import Flag, parse
from .golang import atoi, fatal, host_port, log, to_json
from .http import HttpServer, Request, Respond, Response, error, listen_tcp, redirect, text
from .loop import Loop

FLAGS = (
    Flag("http-port", 8080, "HTTP Listen Port"),
    Flag("udp-port", 8081, "UDP Listen Port"),
    Flag("sctp-port", -1, "SCTP Listen Port"),
    Flag("tls-cert-file", "", "File containing an x509 certificate for HTTPS"),
    Flag(
        "tls-private-key-file",
        "",
        "File containing an x509 private key matching --tls-cert-file",
    ),
    Flag(
        "http-override",
        "",
        "Always respond as if the request were a GET with this path & params",
    ),
    Flag(
        "udp-listen-addresses",
        "",
        "A comma separated list of ip addresses the udp servers listen from",
    ),
    Flag(
        "http-listen-addresses",
        "",
        "A comma separated list of ip addresses the http servers listen from",
    ),
    Flag("delay-shutdown", 0, "Number of seconds to delay shutdown when receiving SIGTERM"),
)
IPPROTO_SCTP = 132


def main(argv: list[str]) -> int:
    """Serves until /exit, /shutdown or SIGTERM. Raises SystemExit."""
    values, _ = parse("netexec", FLAGS, argv)
    loop = Loop()
    netexec = NetExec(loop)
    netexec.http_override = str(values["http-override"])
    netexec.terminate_on_sigterm(int(values["delay-shutdown"]))
    udp_port = int(values["udp-port"])
    http_port = int(values["http-port"])
    sctp_port = int(values["sctp-port"])
    if udp_port != -1:
        for address in _addresses(str(values["udp-listen-addresses"])):
            netexec.serve_udp(address, udp_port)
    if sctp_port != -1:
        netexec.serve_sctp(sctp_port)
    tls = None
    if values["tls-cert-file"]:
        import ssl

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            key_file = str(values["tls-private-key-file"]) or None
            tls.load_cert_chain(str(values["tls-cert-file"]), key_file)
        except OSError as err:
            reason = (err.strerror or str(err)).lower()
            raise fatal(f"open {values['tls-cert-file']}: {reason}") from None
    log(f"Started HTTP server on port {http_port}")
    for address in _addresses(str(values["http-listen-addresses"])):
        try:
            listener = listen_tcp(http_port, address)
            netexec.servers.append(HttpServer(loop, listener, netexec.handle, tls))
        except OSError as err:
            reason = (err.strerror or "").lower()
            raise fatal(f"listen tcp {address}:{http_port}: bind: {reason}") from None
    loop.run()
    return 0


def stop_on_sigterm(loop: Loop, code: int) -> None:
    """Makes SIGTERM end the process, with code 2 as for a Go program that is PID 1 and has no
    handler."""
    loop.on_signal(signal.SIGTERM, partial(_exit, code))


def _exit(code: int) -> None:
    raise SystemExit(code & 0xFF)


def _addresses(text_list: str) -> list[str]:
    addresses = sorted({part.strip() for part in text_list.split(",")}) if text_list else [""]
    for address in addresses if text_list else []:
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        except OSError:
            raise fatal(f"parseAddress: invalid address {address}") from None
    return addresses


class NetExec:
    """The handlers of all endpoints, and their state."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.ready = False
        self.terminating = False
        self.http_override = ""
        self.servers: list[HttpServer] = []
        self._routes: dict[str, Callable[[Request, Respond], None]] = {
            "/clientip": self._client_ip,
            "/serverport": self._server_port,
            "/dial": self._dial,
            "/echo": self._echo,
            "/exit": self._on_exit,
            "/header": self._header,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/hostname": self._hostname,
            "/hostName": self._hostname,
            "/redirect": self._redirect,
            "/shell": self._shell,
            "/shutdown": self._shutdown,
            "/upload": self._upload,
        }

    def terminate_on_sigterm(self, delay: int) -> None:
        """Makes SIGTERM end the process after delay seconds, until which /readyz says 503."""

        def terminate() -> None:
            self.terminating = True
            if delay > 0:
                log(f"Sleeping {delay} seconds before terminating...")
            self.loop.later(max(delay, 0), partial(_exit, 0))

        self.loop.on_signal(signal.SIGTERM, terminate)

    def handle(self, request: Request, respond: Respond) -> None:
        if self.http_override:
            request = Request(
                "GET",
                self.http_override,
                request.headers,
                b"",
                request.client,
                request.server_port,
            )
        self._routes.get(request.path, self._root)(request, respond)

    def _root(self, request: Request, respond: Respond) -> None:
        log("GET /")
        now = time.time_ns()
        zone = time.strftime("%z %Z", time.localtime())
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now // 10**9))
        respond(text(f"NOW: {stamp}.{now % 10**9:09d} {zone} m=+{time.monotonic():.9f}"))

    def _client_ip(self, request: Request, respond: Respond) -> None:
        log("GET /clientip")
        respond(text(request.client))

    def _server_port(self, request: Request, respond: Respond) -> None:
        log("GET /serverport")
        respond(text(str(request.server_port)))

    def _hostname(self, request: Request, respond: Respond) -> None:
        log(f"GET {request.path}")
        respond(text(socket.gethostname()))

    def _healthz(self, request: Request, respond: Respond) -> None:
        log(f"GET {request.path}")
        respond(Response(200 if self.ready else 412))

    def _readyz(self, request: Request, respond: Respond) -> None:
        log("GET /readyz")
        if self.terminating:
            respond(text("shutting down", 503))
        else:
            respond(text("ok") if self.ready else Response(412))

    def _header(self, request: Request, respond: Respond) -> None:
        key = request.form("key")
        log(f"GET /header?key={key}")
        if key:
            respond(text(request.headers.get(key.lower(), "")))
        else:
            headers: dict[str, list[str]] = {}
            for name, value in request.headers.items():
                headers["-".join(word.capitalize() for word in name.split("-"))] = [value]
            headers.pop("Host", None)
            respond(text(to_json(headers)))

    def _echo(self, request: Request, respond: Respond) -> None:
        message = request.form("msg")
        code = request.form("code")
        log(f"GET /echo?msg={message}&code={code}")
        respond(_with_status(code, 200, lambda status: text(message, status)))

    def _redirect(self, request: Request, respond: Respond) -> None:
        location = request.form("location")
        code = request.form("code")
        log(f"{request.method} /redirect?msg={location}&code={code}")
        respond(_with_status(code, 302, lambda status: redirect(request, location, status)))

    def _shutdown(self, request: Request, respond: Respond) -> None:
        log("GET /shutdown")
        raise SystemExit(0)

    def _on_exit(self, request: Request, respond: Respond) -> None:
        wait_text = request.form("wait")
        timeout_text = request.form("timeout")
        code_text = request.form("code")
        log(f"GET /exit?code={code_text}&timeout={timeout_text}&wait={wait_text}")
        seconds: dict[str, float] = {}
        for key, given in (("timeout", timeout_text), ("wait", wait_text)):
            try:
                seconds[key] = parse_duration(given) if given else 0.0
            except ValueError:
                problem = f"argument '{key}' must be a valid golang duration or empty"
                respond(text(f"{problem}, got {quote(given)}\n"))
                return
        try:
            code = atoi(code_text) if code_text else 0
        except ValueError:
            problem = "argument 'code' must be an integer [0-127] or empty"
            respond(text(f"{problem}, got {quote(code_text)}\n"))
            return
        wait = format_duration(seconds["wait"])
        grace = f"allowing {format_duration(seconds['timeout'])} for connections to close"
        log(f"Will begin shutdown in {wait}, {grace}, then will exit with {code}")
        self.loop.later(
            seconds["wait"],
            partial(self._begin_exit, code, seconds["timeout"], respond),
        )

    def _begin_exit(self, code: int, timeout: float, respond: Respond) -> None:
        if timeout == 0:
            raise SystemExit(code & 0xFF)
        respond(Response())
        for server in self.servers:
            server.stop_accepting()
        self._finish_exit(code, time.monotonic() + timeout)

    def _finish_exit(self, code: int, deadline: float) -> None:
        idle = not any(server.connections for server in self.servers)
        if idle or time.monotonic() >= deadline:
            outcome = "<nil>" if idle else "context deadline exceeded"
            log(f"Graceful shutdown completed with: {outcome}")
            raise SystemExit(code & 0xFF)
        self.loop.later(0.02, partial(self._finish_exit, code, deadline))

    def _dial(self, request: Request, respond: Respond) -> None:
        query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
        keys = ("host", "protocol", "port", "request", "tries")
        wanted = {key: query.get(key, [""])[0] for key in keys}
        log("GET /dial?" + "&".join(f"{key}={value}" for key, value in wanted.items()))
        try:
            tries = atoi(wanted["tries"]) if wanted["tries"] else 1
        except ValueError as err:
            respond(error(f"tries parameter is invalid. {err}", 400))
            return
        if not wanted["request"]:
            respond(error("request parameter not specified. <nil>", 400))
            return
        protocol = wanted["protocol"].lower() or "http"
        if protocol not in dial.DIALERS:
            respond(error(f"unsupported protocol. {wanted['protocol']}", 400))
            return
        work = partial(
            dial.dial,
            protocol,
            wanted["host"],
            wanted["port"],
            wanted["request"],
            tries,
        )
        self.loop.offload(work, partial(_dialled, respond))

    def _shell(self, request: Request, respond: Respond) -> None:
        command = request.form("shellCommand") or request.form("cmd")
        log(f"GET /shell?cmd={command}")
        self.loop.offload(partial(_run_shell, command), partial(_ran, respond))

    def _upload(self, request: Request, respond: Respond) -> None:
        log("GET /upload")
        contents = _form_file(request, "file")
        if contents is None:
            respond(text(to_json({"error": "Unable to upload file."})))
            return
        import tempfile

        try:
            fd, path = tempfile.mkstemp(prefix="upload", dir="/uploads")
        except OSError:
            respond(text(to_json({"error": "Unable to open file for write"})))
            return
        with os.fdopen(fd, "wb") as file:
            file.write(contents)
            os.fchmod(fd, 0o700)
        log(f"Wrote upload to {path}")
        respond(text(to_json({"output": path}), 201))

    def answer_datagram(self, data: bytes, client: str, kind: str, port: int) -> bytes | None:
        """The answer to `hostname`, `clientip`, `serverport` or `echo MSG`, in any case; None for
        other data. port: the server's."""
        received = data.decode("utf-8", "replace").strip().lower()
        if received == "hostname":
            log(f"Sending {kind} hostName response")
            return socket.gethostname().encode()
        if received.startswith("echo "):
            log(f"Echoing {received[5:]} to {kind.upper()} client {client}")
            return received[5:].encode()
        if received == "clientip":
            log(f"Sending clientip back to {kind.upper()} client {client}")
            return client.encode()
        if received == "serverport":
            log(f"Sending server port back to {kind.upper()} client {client}")
            return str(port).encode()
        if received:
            log(f"Unknown {kind.upper()} command received from {client}: {received}")
        return None

    def serve_udp(self, address: str, port: int) -> None:
        sock = listen_udp(port, address)
        log(f"Started UDP server on port {address} {port}")
        self.ready = True
        self.loop.watch(sock.fileno(), read=partial(self._udp_readable, sock))

    def _udp_readable(self, sock: socket.socket) -> None:
        try:
            data, address = sock.recvfrom(2048)
            port = sock.getsockname()[1]
            answer = self.answer_datagram(data, host_port(address), "udp", port)
            if answer is not None:
                sock.sendto(answer, address)
        except OSError as err:
            # Upstream's process ends here. But a pending ICMP error concerns a single client
            # (udp(7)), and the others must still be served.
            log(f"UDP: {err}")

    def serve_sctp(self, port: int) -> None:
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
            sock.bind(("0.0.0.0", port))
            sock.listen(128)
        except OSError as err:
            reason = (err.strerror or "").lower()
            message = f"failed to create listener for SCTP address :{port}:{reason}"
            raise fatal(f"Error occurred: {message}") from None
        log("Started SCTP server")
        self.ready = True
        self.loop.watch(sock.fileno(), read=partial(self._sctp_acceptable, sock))

    def _sctp_acceptable(self, listener: socket.socket) -> None:
        sock, address = listener.accept()
        sock.setblocking(False)

        def readable() -> None:
            self.loop.watch(sock.fileno())
            try:
                data = sock.recv(1024)
                port = sock.getsockname()[1]
                answer = self.answer_datagram(data, host_port(address), "SCTP", port)
                if answer is not None:
                    sock.sendall(answer)
            except OSError as err:
                log(f"SCTP: {err}")
            sock.close()

        self.loop.watch(sock.fileno(), read=readable)


def listen_udp(port: int, address: str = "") -> socket.socket:
    """Makes a bound, non-blocking UDP socket; without an address, for IPv6 and IPv4.

    Raises SystemExit.
    """
    family = socket.AF_INET if "." in address or not socket.has_ipv6 else socket.AF_INET6
    try:
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address)))
            sock.bind((address or ("::" if family == socket.AF_INET6 else ""), port))
        except OSError as err:
            if address or err.errno not in (97, 99):  # EAFNOSUPPORT, EADDRNOTAVAIL (disable_ipv6)
                raise
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("", port))
    except OSError as err:
        reason = (err.strerror or "").lower()
        message = f"failed to create listener for UDP address {address}:{port}:{reason}"
        raise fatal(f"Error occurred: {message}") from None
    sock.setblocking(False)
    return sock


def _with_status(code: str, default: int, answer: Callable[[int], Response]) -> Response:
    """The response with the status in the form's `code`; an error text if that is not a number."""
    try:
        status = atoi(code) if code else default
    except ValueError:
        return text(f"argument 'code' must be an integer or empty, got {quote(code)}\n")
    return answer(status)


def _dialled(respond: Respond, result: object) -> None:
    if isinstance(result, dial.BadAddress):
        respond(error(f"host and/or port param are invalid. {result}", 400))
    elif isinstance(result, Exception):
        respond(error(str(result), 500))
    else:
        respond(text(to_json(result)))


def _run_shell(command: str) -> dict[str, str]:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output: dict[str, str] = {}
    if done.stdout:
        output["output"] = done.stdout.decode("utf-8", "replace")
    if done.returncode > 0:
        output["error"] = f"exit status {done.returncode}"
    elif done.returncode < 0:
        name = signal.strsignal(-done.returncode) or -done.returncode
        output["error"] = f"signal: {name}".lower()
    return output


def _ran(respond: Respond, result: object) -> None:
    log(f"Output: {json.dumps(result) if isinstance(result, dict) else result}")
    if isinstance(result, Exception):
        result = {"error": str(result)}
    respond(text(to_json(result)))


def _form_file(request: Request, name: str) -> bytes | None:
    """The content of a file field of a multipart/form-data body (RFC 7578); None without one."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data") or "boundary=" not in kind:
        return None
    boundary = kind.split("boundary=")[1].split(";")[0].strip().strip('"').encode()
    for part in (b"\r\n" + request.body).split(b"\r\n--" + boundary)[1:]:
        head, blank, contents = part.partition(b"\r\n\r\n")
        if blank and b"filename=" in head and f'name="{name}"'.encode() in head:
            return contents
    return None
