"""An HTTP/1.1 server for the loop, with keep-alive, bodies and optional TLS.

Its responses look like those of Go's net/http, because upstream's tests compare them.
RequestParser and encode() implement the protocol (RFC 9112) without I/O: bytes in, requests out,
and responses to bytes. _Connection owns a socket.
"""

from __future__ import annotations

import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from .loop import Loop

if TYPE_CHECKING:
    import ssl

MAX_HEADER = 1 << 20
MAX_BODY = 64 << 20
REASONS = {
    100: "Continue", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
    206: "Partial Content", 301: "Moved Permanently", 302: "Found", 303: "See Other",
    304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 412: "Precondition Failed",
    413: "Request Entity Too Large", 416: "Requested Range Not Satisfiable",
    417: "Expectation Failed", 418: "I'm a teapot", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request. headers: lower-case names; the values of a repeated header are joined by ", "."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    client: str = ""
    server_port: int = 0
    keep_alive: bool = True

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path) or "/"

    def query(self, key: str) -> str:
        """The first value of a query parameter; "" without one."""
        values = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return values.get(key, [""])[0]

    def form(self, key: str) -> str:
        """A value of a urlencoded body, else of the query, as Go's FormValue."""
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            form = parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)
            if values := form.get(key):
                return values[0]
        return self.query(key)


@dataclass(frozen=True)
class Response:
    """A response. Without a Content-Type it is guessed. close: close the connection afterwards."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


Respond = Callable[[Response], None]
Handler = Callable[[Request, Respond], None]


class BadRequest(Exception):
    """The request is not valid HTTP. status: that of the response."""

    def __init__(self, status: int) -> None:
        super().__init__(REASONS[status])
        self.status = status


class RequestParser:
    """Turns received bytes into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._continued = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body; True only once."""
        if self._continued or (end := self._buffer.find(b"\r\n\r\n")) < 0:
            return False
        self._continued = b"100-continue" in bytes(self._buffer[:end]).lower()
        return self._continued

    def next(self) -> Request | None:
        """The next complete request, if any. Raises BadRequest."""
        # A server should ignore an empty line before the request line (RFC 9112, 2.2).
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._check_first_line()
            if len(self._buffer) > MAX_HEADER:
                raise BadRequest(431)
            return None
        request = _parse_head(bytes(self._buffer[:end]))
        taken = self._body(request.headers, end + 4)
        if taken is None:
            return None
        body, length = taken
        del self._buffer[:length]
        self._continued = False
        return Request(
            request.method,
            request.target,
            request.headers,
            body,
            keep_alive=request.keep_alive,
        )

    def _check_first_line(self) -> None:
        """Raises BadRequest as soon as the first line cannot be a request's, as net/http does: its
        sender may wait for an answer (`echo hostName | nc`)."""
        line, newline, _ = self._buffer.partition(b"\n")
        if newline and not _REQUEST_LINE.fullmatch(line.rstrip(b"\r").decode("latin-1")):
            raise BadRequest(400)

    def _body(self, headers: Mapping[str, str], start: int) -> tuple[bytes, int] | None:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks(start)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 20:
            raise BadRequest(400)
        if int(length) > MAX_BODY:
            raise BadRequest(413)
        stop = start + int(length)
        return (bytes(self._buffer[start:stop]), stop) if len(self._buffer) >= stop else None

    def _chunks(self, at: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            digits = re.match(rb"[0-9A-Fa-f]{1,16}(?=[ \t]*(;|\Z))", self._buffer[at:end])
            if digits is None:
                raise BadRequest(400)
            size = int(digits[0], 16)
            if size == 0:
                trailer = self._buffer.find(b"\r\n", end + 2)
                return None if trailer < 0 else (bytes(body), trailer + 2)
            if len(body) + size > MAX_BODY:
                raise BadRequest(413)
            if len(self._buffer) < end + 4 + size:
                return None
            body += self._buffer[end + 2 : end + 2 + size]
            at = end + 4 + size
        return None


_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")


def _is_target(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:  # the host is in brackets but is not an IPv6 address
        return False
    return True


def _parse_head(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None or not _is_target(match[2]):
        raise BadRequest(400)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or not name:
            raise BadRequest(400)
        key = name.lower()
        value = value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (match[3] == "1" or "keep-alive" in connection)
    return Request(match[1], match[2], headers, keep_alive=keep_alive)


def encode(response: Response, *, head_only: bool = False, close: bool = False) -> bytes:
    """The bytes of a response. head_only: for HEAD. close: with Connection: close."""
    bodiless = response.status in (204, 304) or response.status < 200
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    headers = {"Date": date, **response.headers}
    if not bodiless:
        headers["Content-Length"] = str(len(response.body))
        if response.body:
            headers.setdefault("Content-Type", content_type(response.body))
    if close:
        headers["Connection"] = "close"
    reason = REASONS.get(response.status, f"status code {response.status}")
    lines = [f"HTTP/1.1 {response.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in sorted(headers.items())]
    body = b"" if head_only or bodiless else response.body
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def content_type(body: bytes) -> str:
    """A part of Go's http.DetectContentType, which distinguishes HTML, text and binary data."""
    start = body[:512].lstrip(b"\t\n\x0c\r ").lower()
    tags = rb"<!doctype html|<html|<head|<script|<body|<h1|<div|<p|<a|<title|<table|<!--"
    if re.match(rb"(" + tags + rb")[ >]", start):
        return "text/html; charset=utf-8"
    control = {*range(9), 11, *range(14, 27), *range(28, 32)}
    binary = any(byte in control for byte in body[:512])
    return "application/octet-stream" if binary else "text/plain; charset=utf-8"


def text(body: str, status: int = 200) -> Response:
    return Response(status, body.encode())


def error(message: str, status: int) -> Response:
    """The response of Go's http.Error."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Response(status, f"{message}\n".encode(), headers)


def redirect(request: Request, location: str, status: int) -> Response:
    """The response of Go's http.Redirect; a relative location is relative to the request's path."""
    if "://" not in location and not location.startswith("/"):
        location = request.path.rpartition("/")[0] + "/" + location
    headers = {"Location": location}
    if request.method not in ("GET", "HEAD"):
        return Response(status, b"", headers)
    escaped = location.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = escaped.replace('"', "&#34;")
    reason = REASONS.get(status, "")
    headers["Content-Type"] = "text/html; charset=utf-8"
    return Response(status, f'<a href="{escaped}">{reason}</a>.\n\n'.encode(), headers)


class HttpServer:
    """Accepts connections on a listening socket, and passes requests to handler."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        handler: Handler,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.loop = loop
        self.handler = handler
        self.port = listener.getsockname()[1]
        self.connections: set[_Connection] = set()
        self._listener = listener
        self._tls = tls
        listener.setblocking(False)
        loop.watch(listener.fileno(), read=self._accept)

    def stop_accepting(self) -> None:
        """Closes the listening socket and idle connections; others close after their response."""
        self.loop.watch(self._listener.fileno())
        self._listener.close()
        for connection in list(self.connections):
            connection.close_when_idle()

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, address = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(
                    sock,
                    server_side=True,
                    do_handshake_on_connect=False,
                )
            self.connections.add(_Connection(self, sock, address))


class _Connection:
    def __init__(self, server: HttpServer, sock: socket.socket, address: tuple[str, int]) -> None:
        from .golang import host_port

        self._server = server
        self._socket = sock
        self._fd = sock.fileno()
        self._client = host_port(address)
        self._parser = RequestParser()
        self._out = bytearray()
        self._busy = False
        self._closing = False
        self._at_end = False
        self._watch()

    def close_when_idle(self) -> None:
        self._closing = True
        if not self._busy and not self._out:
            self._close()

    def _watch(self) -> None:
        # Nothing is read while a request is being answered, so that TCP's flow control slows the
        # client.
        read = None if self._busy or self._at_end else self._readable
        self._server.loop.watch(self._fd, read=read, write=self._flush if self._out else None)

    def _close(self) -> None:
        if self._fd < 0:
            return
        self._server.loop.watch(self._fd)
        self._fd = -1
        self._socket.close()
        self._server.connections.discard(self)

    def _readable(self) -> None:
        try:
            while data := self._socket.recv(65536):
                self._parser.feed(data)
                if len(data) < 65536 and not hasattr(self._socket, "pending"):
                    break
            else:
                self._at_end = True
        except OSError as err:
            if not _would_block(err):
                self._close()
                return
        if self._parser.wants_continue:
            self._out += b"HTTP/1.1 100 Continue\r\n\r\n"
        self._next()

    def _next(self) -> None:
        if self._busy or self._fd < 0:
            return
        try:
            request = self._parser.next()
        except BadRequest as err:
            self._closing = True
            message = f"{err.status} {err}".encode()
            self._send(encode(Response(err.status, message), close=True))
            return
        if request is not None:
            self._busy = True
            self._watch()
            self._handle(request)
        elif self._at_end and not self._out:
            self._close()
        else:
            self._flush()

    def _handle(self, request: Request) -> None:
        full = Request(
            request.method,
            request.target,
            request.headers,
            request.body,
            self._client,
            self._server.port,
            request.keep_alive,
        )
        try:
            self._server.handler(full, lambda response: self._answer(full, response))
        except Exception:
            # As in net/http, a handler that fails ends its connection and nothing else.
            print(f"{self._client}: {traceback.format_exc()}", file=sys.stderr, flush=True)
            self._close()

    def _answer(self, request: Request, response: Response) -> None:
        if self._fd < 0:
            return
        self._busy = False
        close = response.close or not request.keep_alive or self._closing
        self._closing = close
        self._send(encode(response, head_only=request.method == "HEAD", close=close))
        # The next request may have been received already (pipelining). A recursive call here could
        # become arbitrarily deep.
        self._server.loop.later(0, self._next)

    def _send(self, data: bytes) -> None:
        self._out += data
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except OSError as err:
            if not _would_block(err):
                self._close()
                return
        if self._out or self._fd < 0:
            if self._fd >= 0:
                self._watch()
            return
        if self._closing and not self._busy:
            self._close()
            return
        self._watch()


def _would_block(err: OSError) -> bool:
    # The ssl module is imported only with TLS, so its errors are recognized by their names.
    names = ("SSLWantReadError", "SSLWantWriteError")
    return isinstance(err, BlockingIOError) or type(err).__name__ in names


def listen_tcp(port: int, host: str = "") -> socket.socket:
    """Makes a listening socket.

    As in Go, an unspecified host (also 0.0.0.0) means IPv6 and IPv4, or only IPv4 if the kernel
    has no IPv6. Raises OSError.
    """
    if host not in ("", "0.0.0.0", "::"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return _listening(family, host, port)
    try:
        return _listening(socket.AF_INET6, "::", port)
    except OSError as err:
        if err.errno not in (97, 99):  # EAFNOSUPPORT, EADDRNOTAVAIL (disable_ipv6)
            raise
        return _listening(socket.AF_INET, "0.0.0.0", port)


def _listening(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, port))
        sock.listen(4096)
    except OSError:
        sock.close()
        raise
    return sock
