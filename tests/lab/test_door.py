"""The API door carries both directions, their ends and resets, and goes on when the API server is away."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubewire.lab.launch import open_door
from kubewire.lab.sandbox.door import carry

_MUCH = secrets.token_bytes(1 << 20) * 8


@dataclass
class Door:
    """address: of the machine's side. server: the listening socket that it leads to."""

    address: tuple[str, int]
    server: socket.socket

    def opened(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(self.address, timeout=10)
        inner, _ = self.server.accept()
        inner.settimeout(10)
        return client, inner


@pytest.fixture
def door(short_path: Path) -> Iterator[Door]:
    listener = open_door(0)
    path = short_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(8)
        server.settimeout(10)
        child = os.fork()
        if child == 0:
            server.close()
            carry(listener, str(path))
        address = listener.getsockname()
        listener.close()
        yield Door(address, server)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_streams_and_their_ends_pass_in_both_directions_at_once(door: Door) -> None:
    client, server = door.opened()
    received: dict[str, bytes] = {}

    def read(name: str, sock: socket.socket) -> None:
        with sock.makefile("rb") as stream:
            received[name] = stream.read()

    readers = [threading.Thread(target=read, args=one) for one in (("client", client), ("server", server))]
    for reader in readers:
        reader.start()
    client.sendall(_MUCH)
    client.shutdown(socket.SHUT_WR)  # the other direction stays open
    server.sendall(_MUCH[::-1])
    server.shutdown(socket.SHUT_WR)
    for reader in readers:
        reader.join()
    assert received == {"client": _MUCH[::-1], "server": _MUCH}


def test_one_that_does_not_read_stops_its_sender_and_nobody_else(door: Door) -> None:
    stuck, _server = door.opened()
    stuck.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += stuck.send(_MUCH)
    assert sent < len(_MUCH) * 4
    client, server = door.opened()
    client.sendall(b"hello")
    assert server.recv(5) == b"hello"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_side_that_goes_without_a_word_ends_the_other(door: Door, side: str) -> None:
    client, server = door.opened()
    client.sendall(b"never read")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone, left = (client, server) if side == "client" else (server, client)
    gone.close()
    assert left.recv(100) in (b"never read", b"")
    assert left.recv(100) == b""
    again, server = door.opened()
    again.sendall(b"x")
    assert server.recv(1) == b"x"


def test_a_door_without_a_server_closes_at_once(door: Door) -> None:
    door.server.close()
    with socket.create_connection(door.address, timeout=10) as client:
        assert client.recv(1) == b""
