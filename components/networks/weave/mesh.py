"""The mesh router: TCP sessions with all other peers, with dialling, greeting and heartbeats.

Every peer dials every other peer that it knows, so two peers may connect to each other at the same
moment. Both must close the same one of the two connections: the one whose initiator has the lower
name stays. A greeting carries the peer's name and a random uid of this start of the process, so a
restarted peer is told from a second connection of the same process, and replaces the old connection
at once.

A TCP connection can look alive long after the other side is gone, so each side sends heartbeats and
gives up a connection on which nothing was received for a while. The mesh knows nothing of the
messages it carries: the listener (agent.py) handles topology, IPAM and security. Broadcasts go to
direct neighbours only; agent.py passes news on, and topology.py finds the next hop to a peer
without a direct connection, so gossip reaches all peers although some pairs cannot connect.
(github.com/weaveworks/mesh: connection_maker.go, connection.go.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kubewire.components.base import serving
from kubewire.components.base.retrying import GrowingDelay
from kubewire.components.networks.weave import wire
from kubewire.components.networks.weave.wire import Decoder, Hello, Session, WireError

log = logging.getLogger("weave-net")

_FEW_PEERS = 20


@dataclass(frozen=True)
class Timing:
    """All in seconds. heartbeat: the interval; lost: a connection without any data for this long is
    given up.

    With more than 20 peers both grow, because every heartbeat is a packet to every peer.
    """

    heartbeat: float = 1.0
    lost: float = 6.0
    greeting: float = 5.0
    retry: float = 0.25
    longest_retry: float = 5.0

    def interval(self, peers: int) -> float:
        return self.heartbeat * max(1.0, peers / _FEW_PEERS)

    def patience(self, peers: int) -> float:
        return self.lost * max(1.0, peers / _FEW_PEERS)


@dataclass(eq=False)
class Connection:
    """way: how frames reach this peer, "" if they do not. secured: VXLAN to it is encrypted, or
    need not be."""

    hello: Hello
    address: str
    outbound: bool
    local_connection: int
    session: Session
    writer: asyncio.StreamWriter
    local_address: str = ""
    way: str = ""
    secured: bool = False

    @property
    def established(self) -> bool:
        return bool(self.way)

    @property
    def peer(self) -> str:
        return self.hello.name

    @property
    def ip(self) -> str:
        return self.address.rpartition(":")[0]

    def send(self, kind: int, body: bytes = b"") -> None:
        if not self.writer.is_closing():
            self.writer.write(self.session.seal(kind, body))

    def close(self) -> None:
        self.writer.close()


class Listener(Protocol):
    """Is told about connections and messages."""

    def connected(self, connection: Connection) -> None: ...

    def disconnected(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, kind: int, body: bytes) -> None:
        """Raises WireError if the connection must be closed."""
        ...


@dataclass
class Target:
    """An address that is dialled. state: the text of `status connections`."""

    task: asyncio.Task[None]
    state: str = "connecting"
    info: str = ""


@dataclass
class Mesh:
    """connections: by the peer's name. targets: by address. host: the address to listen on and to
    dial from."""

    name: str
    nickname: str
    uid: int
    port: int
    listener: Listener
    password: str = ""
    limit: int = 200
    host: str = "0.0.0.0"
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.targets: dict[str, Target] = {}
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled. Raises OSError if the port is in use."""
        # More than the limit, because connections in their greeting count as well.
        guarded = serving.connections(self._accepted, log, most=2 * self.limit + 64)
        server = await asyncio.start_server(guarded, self.host, self.port)
        try:
            self.listening.set()
            await server.serve_forever()
        finally:
            for target in self.targets.values():
                target.task.cancel()
            for connection in list(self.connections.values()):
                connection.close()

    def set_targets(self, addresses: Iterable[str]) -> None:
        """Sets the addresses to dial. Connections to other peers stay until they break."""
        wanted = set(addresses)
        for gone in self.targets.keys() - wanted:
            self.targets.pop(gone).task.cancel()
        for address in sorted(wanted - self.targets.keys()):
            self.targets[address] = Target(asyncio.ensure_future(self._keep_dialling(address)))

    def send(self, peer: str, kind: int, body: bytes) -> None:
        """Does nothing if there is no connection."""
        if connection := self.connections.get(peer):
            connection.send(kind, body)

    def broadcast(self, kind: int, body: bytes, but: Collection[str] = ()) -> None:
        for connection in self.connections.values():
            if connection.peer not in but:
                connection.send(kind, body)

    async def _keep_dialling(self, address: str) -> None:
        delay = GrowingDelay(self.timing.retry, self.timing.longest_retry, factor=1.5)
        own = (self.host, 0) if self.host != "0.0.0.0" else None
        while True:
            target = self.targets.get(address)
            if not any(connection.ip == address for connection in self.connections.values()):
                try:
                    async with asyncio.timeout(self.timing.greeting):
                        reader, writer = await asyncio.open_connection(
                            address,
                            self.port,
                            local_addr=own,
                        )
                    if await self._talk(reader, writer, outbound=True):
                        delay.reset()
                    state = ("failed", "connection ended")
                except (OSError, TimeoutError, WireError) as error:
                    state = ("failed", self._reason(error, address))
                except (
                    Exception
                ) as error:  # a bug must not end the mesh: this peer is dialled again
                    log.exception("->[%s]: connection shutting down due to a fault", address)
                    state = ("failed", repr(error))
                if target is not None:
                    target.state, target.info = state
            await asyncio.sleep(delay.take() * random.uniform(0.5, 1.5))

    def _reason(self, error: Exception, address: str) -> str:
        """The error in Go's words."""
        if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno is None):
            return f"dial tcp4 :0->{address}:{self.port}: i/o timeout"
        if isinstance(error, OSError):
            return f"dial tcp4 :0->{address}:{self.port}: connect: {os.strerror(error.errno or 0).lower()}"
        return str(error)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer, outbound=False)
        except (OSError, TimeoutError, WireError) as error:
            log.info("connection from %s: %s", _remote(writer), error or "i/o timeout")
        except asyncio.CancelledError:  # the server ends
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, outbound: bool
    ) -> bool:
        """Runs a connection from greeting to end. Returns True if it was registered. Raises
        OSError, TimeoutError, WireError."""
        decoder = Decoder()
        try:
            async with asyncio.timeout(self.timing.greeting):
                connection, waiting = await self._greet(reader, writer, decoder, outbound)
            if not self._register(connection):
                return False
        except BaseException:
            writer.close()
            raise
        beating = asyncio.ensure_future(self._beat(connection))
        try:
            self.listener.connected(connection)
            await self._listen(connection, reader, decoder, waiting)
        except (OSError, TimeoutError, WireError) as error:
            log.info("->[%s|%s]: connection shutting down due to error: %s", connection.address,
                     connection.hello.nickname, error or "heartbeats missed")  # fmt: skip
        finally:
            beating.cancel()
            writer.close()
            if self.connections.get(connection.peer) is connection:
                del self.connections[connection.peer]
                self.listener.disconnected(connection)
        return True

    async def _greet(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: Decoder,
        outbound: bool,
    ) -> tuple[Connection, list[tuple[int, bytes]]]:
        """Exchanges hellos, then confirmations that both have the same key. Also returns frames
        received after them."""
        private = X25519PrivateKey.generate() if self.password else None
        number = random.getrandbits(63)
        own = Hello(self.name, self.nickname, self.uid, number, wire.public_key(private))
        writer.write(wire.frame(wire.HELLO, own.encode()))
        frames: list[tuple[int, bytes]] = []
        kind, body = await _next(reader, decoder, frames)
        if kind != wire.HELLO:
            raise WireError("not a peer's greeting")
        hello = Hello.decode(body)
        if hello.name == self.name:
            raise WireError(
                "Cannot connect to ourself"
                if hello.uid == self.uid
                else f"peer has our name {self.name}",
            )
        session = wire.session(private, hello, self.password, outbound=outbound)
        writer.write(session.seal(wire.CONFIRM))
        kind, body = await _next(reader, decoder, frames)
        session.open(kind, body)
        if kind != wire.CONFIRM:
            raise WireError("greeting without confirmation")
        local = writer.get_extra_info("sockname")[0]
        return Connection(hello, _remote(writer), outbound, number, session, writer, local), frames

    def _register(self, new: Connection) -> bool:
        old = self.connections.get(new.peer)
        if old is None and len(self.connections) >= self.limit:
            raise WireError(f"Connection limit reached ({self.limit})")
        if old is not None and old.hello.uid == new.hello.uid:
            # The same process dials again only after it has lost the old connection, even if that
            # looks alive here.
            initiators = {True: self.name, False: new.peer}
            if initiators[old.outbound] < initiators[new.outbound] and not old.writer.is_closing():
                new.close()
                return False
        self.connections[new.peer] = new
        if old is not None:
            old.close()
            self.listener.disconnected(old)
        return True

    async def _listen(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        decoder: Decoder,
        frames: list[tuple[int, bytes]],
    ) -> None:
        while True:
            for kind, body in frames:
                opened = connection.session.open(kind, body)
                if kind != wire.HEARTBEAT:
                    self.listener.received(connection, kind, opened)
            async with asyncio.timeout(self.timing.patience(len(self.connections))):
                data = await reader.read(1 << 16)
            if not data:
                raise WireError("EOF")
            frames = list(decoder.feed(data))

    async def _beat(self, connection: Connection) -> None:
        while True:
            await asyncio.sleep(self.timing.interval(len(self.connections)))
            connection.send(wire.HEARTBEAT)


async def _next(
    reader: asyncio.StreamReader, decoder: Decoder, frames: list[tuple[int, bytes]]
) -> tuple[int, bytes]:
    """The next frame of a greeting. frames: those received but not handled yet."""
    while not frames:
        data = await reader.read(1 << 16)
        if not data:
            raise WireError("EOF")
        frames += decoder.feed(data)
    return frames.pop(0)


def _remote(writer: asyncio.StreamWriter) -> str:
    address, port = (writer.get_extra_info("peername") or ("unknown", 0))[:2]
    return f"{address}:{port}"
