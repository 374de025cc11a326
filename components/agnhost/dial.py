"""The work of netexec's /dial: asks another server over HTTP, UDP or SCTP.

The functions block. The texts of their errors are Go's.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from kubewire.components.base.golang import quote

from .golang import host_port

TIMEOUT = 5.0
Address = tuple[int, tuple[str, int]]


class BadAddress(Exception):
    """The host and port of /dial cannot be resolved."""


def dial(protocol: str, host: str, port: str, request: str, tries: int) -> dict[str, list[str]]:
    """Sends `tries` requests; returns {"responses": [...], "errors": [...]}. Raises BadAddress.

    As upstream, "responses" is missing if the last request got no response.
    """
    address = resolve(host, port)
    responses: list[str] = []
    errors: list[str] = []
    last = ""
    for _ in range(tries):
        try:
            last = DIALERS[protocol](request, address)
            responses.append(last)
        except OSError as err:
            last = ""
            errors.append(str(err))
    output: dict[str, list[str]] = {}
    if last:
        output["responses"] = responses
    if errors:
        output["errors"] = errors
    return output


def resolve(host: str, port: str) -> Address:
    """Returns the family and the socket address; as Go, prefers IPv4. Raises BadAddress."""
    try:
        entries = socket.getaddrinfo(host or "localhost", port or "0", type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise BadAddress(_lookup_error(host, port)) from None
    family, _, _, _, address = min(entries, key=lambda entry: entry[0] != socket.AF_INET)
    return int(family), (str(address[0]), int(address[1]))


def _lookup_error(host: str, port: str) -> str:
    if port and not port.isdigit():
        return f"lookup tcp/{port}: unknown port"
    return f"lookup {host}: no such host"


def _dial_http(request: str, address: Address) -> str:
    url = f"http://{host_port(address[1])}/{request}"
    for _ in range(10):
        _, location, body = get(url)
        if not location:
            return body.decode("utf-8", "replace")
        url = urljoin(url, location)
    raise OSError(f"Get {quote(url)}: stopped after 10 redirects")


def get(url: str) -> tuple[int, str, bytes]:
    """The status, where the answer redirects to ("" if it does not), and the body.

    Raises OSError with Go's text.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        headers = {"User-Agent": "Go-http-client/1.1"}
        connection.request("GET", target.replace(" ", "%20"), headers=headers)
        response = connection.getresponse()
        location = ""
        if response.status in (301, 302, 303, 307, 308):
            location = response.headers.get("Location") or ""
        return response.status, location, response.read()
    except TimeoutError:
        waiting = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise OSError(f"Get {quote(url)}: {waiting}") from None
    except http.client.HTTPException as err:
        reason = "EOF" if isinstance(err, http.client.RemoteDisconnected) else str(err)
        raise OSError(f"Get {quote(url)}: {reason}") from None
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        where = f"{parts.hostname}:{parts.port or 80}"
        raise OSError(f"Get {quote(url)}: dial tcp {where}: connect: {reason}") from None
    finally:
        connection.close()


def _dial_udp(request: str, address: Address) -> str:
    with socket.socket(address[0], socket.SOCK_DGRAM) as sock:
        return _exchange(sock, request, address, "udp", 2048)


def _dial_sctp(request: str, address: Address) -> str:
    try:
        sock = socket.socket(address[0], socket.SOCK_STREAM, 132)
    except OSError as err:
        raise OSError(f"sctp dial failed. err:{(err.strerror or '').lower()}") from None
    with sock:
        return _exchange(sock, request, address, "sctp", 1024)


def _exchange(sock: socket.socket, request: str, address: Address, protocol: str, size: int) -> str:
    sock.settimeout(TIMEOUT)
    step = f"{protocol} dial failed. err:"
    try:
        sock.connect(address[1])
        step = f"{protocol} connection write failed. err:"
        sock.send(request.encode())
        ends = f"{host_port(sock.getsockname())}->{host_port(address[1])}"
        step = f"reading from {protocol} connection failed. err:'read {protocol} {ends}: "
        answer = sock.recv(size)
    except TimeoutError:
        raise OSError(f"{step}i/o timeout{_close_quote(step)}") from None
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        call = "read: " if "'read" in step else ""
        raise OSError(f"{step}{call}{reason}{_close_quote(step)}") from None
    if not answer:
        raise OSError(f"reading from {protocol} connection failed. err:'<nil>'")
    return answer.decode("utf-8", "replace")


def _close_quote(step: str) -> str:
    return "'" if "'" in step else ""


DIALERS: dict[str, Callable[[str, Address], str]] = {
    "http": _dial_http,
    "udp": _dial_udp,
    "sctp": _dial_sctp,
}
