"""agnhost connect: makes a connection; tests check the first word of its errors (connect.go)."""

from __future__ import annotations

import errno
import socket
import sys

from .dial import BadAddress, resolve
from .flags import Flag, Usage, parse
from .golang import host_port

FLAGS = (
    Flag("timeout", 0.0, "Maximum time before returning an error", duration=True),
    Flag(
        "protocol",
        "tcp",
        "The protocol to use to perform the connection, can be tcp, udp or sctp",
    ),
    Flag("udp-data", "hostname", "The UDP payload send to the server"),
    Flag("sctp-data", "hostname", "The SCTP payload send to the server"),
)


def main(argv: list[str]) -> int:
    """Returns 0 if it connects, else 1, with UNKNOWN, TIMEOUT, DNS, REFUSED or OTHER on stderr."""
    values, rest = parse("connect", FLAGS, argv)
    if len(rest) != 1:
        raise Usage("connect", f"accepts 1 arg(s), received {len(rest)}")
    protocol = str(values["protocol"]) or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        return _fail("Unsupported protocol")
    seconds = float(values["timeout"]) or None
    host, colon, port = rest[0].rpartition(":")
    if not colon:
        return _fail(f"UNKNOWN: address {rest[0]}: missing port in address")
    try:
        family, address = resolve(host.strip("[]"), port)
    except BadAddress as err:
        return _fail(f"DNS: {err}")
    if protocol == "tcp":
        return _stream(family, address, seconds, 0, b"", "tcp")
    if protocol == "sctp":
        return _stream(family, address, seconds, 132, f"{values['sctp-data']}\n".encode(), "sctp")
    return _datagram(family, address, seconds, f"{values['udp-data']}\n".encode())


def _stream(
    family: int,
    address: tuple[str, int],
    seconds: float | None,
    protocol: int,
    data: bytes,
    name: str,
) -> int:
    try:
        with socket.socket(family, socket.SOCK_STREAM, protocol) as sock:
            sock.settimeout(seconds)
            sock.connect(address)
            if data:
                sock.sendall(data)
                sock.recv(1024)
    except OSError as err:
        # ETIMEDOUT means that the kernel itself has given up sending SYNs (tcp(7)).
        if isinstance(err, TimeoutError) or err.errno == errno.ETIMEDOUT:
            return _fail("TIMEOUT")
        if err.errno == errno.ECONNREFUSED and name == "tcp":
            return _fail("REFUSED")
        reason = (err.strerror or str(err)).lower()
        return _fail(f"OTHER: dial {name} {host_port(address)}: connect: {reason}")
    return 0


def _datagram(family: int, address: tuple[str, int], seconds: float | None, data: bytes) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        ends = f"udp {host_port(address)}"
        try:
            sock.connect(address)
            ends = f"udp {host_port(sock.getsockname())}->{host_port(address)}"
            sock.send(data)
            if sock.recv(1024):
                return 0
        except TimeoutError:
            return _fail(f"TIMEOUT: read {ends}: i/o timeout")
        except ConnectionRefusedError:
            return _fail(f"REFUSED: read {ends}: read: connection refused")
        except OSError as err:
            return _fail(f"UNKNOWN: {ends}: {(err.strerror or str(err)).lower()}")
    text = "No data received from the server. Cannot guarantee the server received the request."
    return _fail(f"OTHER: {text}")


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1
