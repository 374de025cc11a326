"""Pods as network namespaces, and a matrix of connections that are really made between them.

A test of an engine builds pods on the engine's kind of wiring, gives the engine a State, and compares who reaches whom
with what a table says. All connections of a matrix are tried at once. What the table expects to work may take as long
as a busy machine needs; what it expects to be refused gets a short time more.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.components.networks.flows import Hosts

_WORKS_SECONDS = 20.0
_REFUSED_SECONDS = 0.1
#: Every attempt comes from a port of its own: a datagram from a port that was used before could belong to a connection
#: that the kernel still tracks, and pass.
_FIRST_PORT = 1024


class HasFileno(Protocol):
    def fileno(self) -> int: ...


@dataclass(frozen=True, order=True)
class Try:
    """A connection from a pod to a port of another one."""

    source: str
    destination: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} {self.protocol}/{self.port}"


def tries(pods: Iterable[str], ports: Iterable[tuple[str, int]]) -> list[Try]:
    """Every pod to every other one on every port."""
    pods, ports = list(pods), list(ports)
    return [Try(a, b, protocol, port) for a in pods for b in pods if a != b for protocol, port in ports]


class Ground:
    """addresses: of each pod, which is a host of that name. Servers listen on every port in every pod as long as the
    ground is open."""

    def __init__(self, hosts: Hosts, addresses: Mapping[str, str], ports: Iterable[tuple[str, int]]) -> None:
        self.hosts, self.addresses, self.ports = hosts, addresses, tuple(ports)
        self._open = ExitStack()
        self._next_port = dict.fromkeys(self.addresses, _FIRST_PORT)
        self._servers: dict[tuple[str, str, int], socket.socket] = {}
        self._attended: list[tuple[HasFileno, Callable[[], None]]] = []

    @contextmanager
    def listening(self) -> Iterator[Ground]:
        with self._open:
            for pod, address in self.addresses.items():
                with self.hosts.inside(pod):
                    for protocol, port in self.ports:
                        self._servers[pod, protocol, port] = self._open.enter_context(_server(address, protocol, port))
            yield self

    def attend(self, file: HasFileno, ready: Callable[[], None]) -> None:
        """While connections are tried, ready is called whenever file can be read."""
        self._attended.append((file, ready))

    def reached(self, wanted: Collection[Try], expected: Collection[Try]) -> set[Try]:
        """Those of the wanted connections that work. expected only decides how long to wait."""
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            for server in self._servers.values():
                selector.register(server, selectors.EVENT_READ, None)
            for file, ready in self._attended:
                selector.register(file, selectors.EVENT_READ, ready)
            for one in sorted(wanted):
                own = (self.addresses[one.source], self._port_of(one.source))
                with self.hosts.inside(one.source):
                    client = stack.enter_context(_client(own, self.addresses[one.destination], one))
                event = selectors.EVENT_WRITE if one.protocol == "TCP" else selectors.EVENT_READ
                selector.register(client, event, one)
            return _results(selector, set(expected) & set(wanted))

    def _port_of(self, pod: str) -> int:
        self._next_port[pod] += 1
        return self._next_port[pod]


def _results(selector: selectors.BaseSelector, expected: set[Try]) -> set[Try]:
    found: set[Try] = set()
    deadline = time.monotonic() + _WORKS_SECONDS
    quiet = 0.0
    while time.monotonic() < deadline:
        if expected <= found and not quiet:
            quiet = time.monotonic() + _REFUSED_SECONDS
        if quiet and time.monotonic() >= quiet:
            break
        for key, _ in selector.select(0.05):
            if callable(key.data):
                key.data()
                continue
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if key.data is None:
                _answer(connection)
                continue
            selector.unregister(connection)
            if _works(connection, key.data):
                found.add(key.data)
    return found


def _server(address: str, protocol: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    if protocol == "TCP":
        opened.listen(128)
    opened.setblocking(False)
    return opened


def _client(own: tuple[str, int], address: str, one: Try) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM if one.protocol == "TCP" else socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.bind(own)
    opened.connect_ex((address, one.port))
    if one.protocol == "UDP":
        opened.send(b"?")
    return opened


def _answer(server: socket.socket) -> None:
    """Accepts one connection, or answers one datagram."""
    if server.type == socket.SOCK_STREAM:
        server.accept()[0].close()
        return
    _, client = server.recvfrom(16)
    server.sendto(b"!", client)


def _works(client: socket.socket, one: Try) -> bool:
    if one.protocol == "TCP":
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    try:
        return client.recv(16) == b"!"
    except OSError:
        return False


def differences(reached: Collection[Try], expected: Collection[Try]) -> str:
    """What is not as a table says, a line each; "" if all is."""
    wrong = [(one, "works, and should not") for one in set(reached) - set(expected)]
    missing = [(one, "does not work") for one in set(expected) - set(reached)]
    return "\n".join(f"{one}: {text}" for one, text in sorted([*wrong, *missing]))
