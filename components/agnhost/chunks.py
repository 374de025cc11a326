"""agnhost port-forward-tester: a server for one connection, which sends chunks of data, for tests of
port-forward (port-forward-tester/portforwardtester.go).

It is controlled by variables of its environment, and says on stdout how far it has come, which
tests read from the pod's log.
"""

from __future__ import annotations

import os
import socket
import time

from kubewire.components.base.golang import quote

from . import dial
from .flags import parse
from .golang import atoi

#: The client must see the FIN before data that was never read makes the kernel send RST.
_LINGER_SECONDS = 0.5


class TesterError(Exception):
    """What the program prints before it exits with this code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def _say(text: str) -> None:
    print(text, flush=True)


def _number(name: str) -> int:
    given = os.environ.get(name, "")
    try:
        return atoi(given)
    except ValueError as err:
        raise TesterError(f"Error parsing {name} {quote(given)}: {err}") from None


def _listen() -> socket.socket:
    host = os.environ.get("BIND_ADDRESS") or "localhost"
    try:
        family, address = dial.resolve(host, os.environ.get("BIND_PORT", ""))
    except dial.BadAddress as err:
        raise TesterError(f"Error resolving: {err}") from None
    try:
        return socket.create_server(address, family=socket.AddressFamily(family))
    except OSError as err:
        raise TesterError(f"Error listening: {err.strerror}") from None


def _expect(connection: socket.socket, expected: bytes) -> None:
    """Checks the client's first bytes, which must arrive at once, as upstream reads only once."""
    failure = "<nil>"
    received = b""
    try:
        received = connection.recv(len(expected))
        failure = failure if received else "EOF"
    except OSError as err:
        failure = str(err.strerror)
    if len(received) != len(expected):
        counted = f"{len(expected)} bytes from client, but got {len(received)} instead"
        raise TesterError(f"Expected to read {counted}. err={failure}", 2)
    if received != expected:
        wanted, got = (quote(data.decode("utf-8", "replace")) for data in (expected, received))
        raise TesterError(f"Expect to read {wanted}, but got {got}. err={failure}", 3)
    _say("Received expected client data")


def _send(connection: socket.socket) -> None:
    chunks, size, pause = (_number(name) for name in ("CHUNKS", "CHUNK_SIZE", "CHUNK_INTERVAL"))
    for left in reversed(range(chunks)):
        try:
            connection.sendall(b"x" * size)
        except OSError as err:
            counted = f"{size} bytes from client, but wrote 0 instead"
            raise TesterError(f"Expected to write {counted}. err={err.strerror}", 4) from None
        if left:
            time.sleep(pause / 1000)


def _serve() -> None:
    with _listen() as listener:
        connection, _ = listener.accept()
    with connection:
        _say("Accepted client connection")
        if expected := os.environ.get("EXPECTED_CLIENT_DATA", "").encode():
            _expect(connection, expected)
        _send(connection)
        _say("Shutting down connection")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(_LINGER_SECONDS)
    _say("Done")


def main(argv: list[str]) -> int:
    """Serves one connection."""
    parse("port-forward-tester", (), argv)
    try:
        _serve()
    except TesterError as err:
        _say(str(err))
        return err.code
    return 0
