"""agnhost port-forward-tester: what its client receives, and what stops it."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.components.agnhost.test_programs import Start, free_port, start

__all__ = ["start"]


def connect(port: int, server: subprocess.Popen[bytes]) -> socket.socket:
    """The server takes one connection only, so the first that succeeds is the client's."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except ConnectionRefusedError:
            assert server.poll() is None


@pytest.mark.parametrize(
    ("changed", "sent", "received", "said", "code"),
    [
        pytest.param(
            {},
            b"abc",
            b"x" * 30,
            ["Accepted client connection", "Received expected client data", "Shutting down connection", "Done"],
            0,
            id="it sends its chunks after the expected data",
        ),
        pytest.param(
            {"EXPECTED_CLIENT_DATA": ""},
            b"",
            b"x" * 30,
            ["Accepted client connection", "Shutting down connection", "Done"],
            0,
            id="it need not expect data",
        ),
        pytest.param(
            {},
            b"abd",
            b"",
            ["Accepted client connection", 'Expect to read "abc", but got "abd". err=<nil>'],
            3,
            id="other data stop it",
        ),
        pytest.param(
            {},
            b"",
            b"",
            ["Accepted client connection", "Expected to read 3 bytes from client, but got 0 instead. err=EOF"],
            2,
            id="a client that sends nothing stops it",
        ),
        pytest.param(
            {"CHUNKS": "x"},
            b"abc",
            b"",
            [
                "Accepted client connection",
                "Received expected client data",
                'Error parsing CHUNKS "x": strconv.Atoi: parsing "x": invalid syntax',
            ],
            1,
            id="a number must be one",
        ),
    ],
)
def test_a_connection(
    start: Start, changed: dict[str, str], sent: bytes, received: bytes, said: list[str], code: int
) -> None:
    port = free_port()
    own = {"BIND_PORT": str(port), "EXPECTED_CLIENT_DATA": "abc"}
    chunks = {"CHUNKS": "3", "CHUNK_SIZE": "10", "CHUNK_INTERVAL": "1"}
    server = start("port-forward-tester", env={**os.environ, **own, **chunks, **changed}, stdout=-1)
    with connect(port, server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            assert stream.read() == received
    out, _ = server.communicate(timeout=60)
    assert (out.decode().splitlines(), server.returncode) == (said, code)
