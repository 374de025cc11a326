"""Peers on addresses of loopback: who gets a session, who does not, and when one is given up."""

import asyncio
import socket
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kubewire.components.networks.weave import wire
from kubewire.components.networks.weave.mesh import Mesh, Timing
from kubewire.components.networks.weave.topology import Link, Peer, Topology
from kubewire.components.networks.weave.wire import Decoder, Hello, Session, WireError

TIMING = Timing(heartbeat=0.05, lost=0.5, greeting=2, retry=0.02, longest_retry=0.1)


class Ear:
    """A listener that remembers; events sets `changed`."""

    def __init__(self):
        self.heard, self.up, self.down = [], [], []

    def connected(self, connection):
        self.up.append(connection.peer)
        connection.send(wire.TOPOLOGY, f"hello {connection.peer}".encode())

    def disconnected(self, connection):
        self.down.append(connection.peer)

    def received(self, connection, kind, body):
        if body == b"nonsense":
            raise WireError("nonsense")
        self.heard.append((connection.peer, kind, body))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(condition, what, timeout=5.0):
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert condition(), what


class Fixture:
    """Meshes on 127.0.0.1, .2, ...; all dial all."""

    def __init__(self, *passwords, names=()):
        port = free_port()
        self.addresses = [f"127.0.0.{number}" for number in range(1, len(passwords) + 1)]
        self.meshes = [
            Mesh(
                names[number] if names else f"peer-{number}", f"n{number}", number, port, Ear(), password,
                timing=TIMING, host=address,
            )
            for number, (address, password) in enumerate(zip(self.addresses, passwords, strict=True))
        ]  # fmt: skip

    async def __aenter__(self):
        self.tasks = [asyncio.ensure_future(mesh.run()) for mesh in self.meshes]
        for mesh in self.meshes:
            await mesh.listening.wait()
        for mesh in self.meshes:
            mesh.set_targets(set(self.addresses) - {mesh.host})
        return self.meshes

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.mark.parametrize("password", ["", "secret"], ids=["in clear", "sealed"])
def test_everybody_gets_one_session_with_everybody(password):
    async def body():
        async with Fixture(password, password, password, password) as meshes:
            await until(lambda: all(len(mesh.connections) == 3 for mesh in meshes), "all are connected")
            await until(
                lambda: all({peer for peer, _, _ in mesh.listener.heard} == mesh.connections.keys() for mesh in meshes),
                "and have heard of each other",
            )
            for mesh in meshes:
                for name, connection in mesh.connections.items():
                    other = meshes[int(name[-1])].connections[mesh.name]
                    assert connection.outbound != other.outbound
                    assert connection.session.key == other.session.key
                    assert bool(connection.session.key) == bool(password)

    asyncio.run(body())


@pytest.mark.parametrize(
    ("passwords", "texts"),
    [
        (("one", "other"), {"Unable to decrypt TCP msg", "EOF"}),
        (("one", ""), {"password specified, but peer requested an unencrypted connection",
                       "no password specificed, but peer requested an encrypted connection", "EOF"}),
    ],
    ids=["another password", "none"],
)  # fmt: skip
def test_without_the_same_password_there_is_no_session(passwords, texts):
    async def body():
        async with Fixture(*passwords) as meshes:
            await until(lambda: all(t.info for mesh in meshes for t in mesh.targets.values()), "both have tried")
            assert {t.info for mesh in meshes for t in mesh.targets.values()} <= texts
            assert not any(mesh.listener.up for mesh in meshes)

    asyncio.run(body())


def test_two_of_one_name_do_not_talk():
    async def body():
        async with Fixture("", "", names=("same", "same")) as meshes:
            targets = [target for mesh in meshes for target in mesh.targets.values()]
            await until(lambda: any("peer has our name same" in t.info for t in targets), "refused")
            assert not any(mesh.listener.up for mesh in meshes)

    asyncio.run(body())


async def greet(mesh, *, uid=99, name="guest"):
    """A session by hand, which sends no heartbeats."""
    reader, writer = await asyncio.open_connection(mesh.host, mesh.port)
    private = X25519PrivateKey.generate() if mesh.password else None
    writer.write(wire.frame(wire.HELLO, Hello(name, name, uid, 1, wire.public_key(private)).encode()))
    decoder = Decoder()
    frames: list[Any] = []
    while not frames:
        frames += decoder.feed(await reader.read(1000))
    session = wire.session(private, Hello.decode(frames[0][1]), mesh.password, outbound=True)
    writer.write(session.seal(wire.CONFIRM))
    return reader, writer, session


def test_who_is_silent_is_given_up():
    async def body():
        async with Fixture("secret") as (mesh,):
            _, writer, _ = await greet(mesh)
            await until(lambda: mesh.listener.up == ["guest"], "connected")
            await until(lambda: mesh.listener.down == ["guest"], "given up")
            assert not mesh.connections
            writer.close()

    asyncio.run(body())


def test_who_has_started_anew_replaces_himself():
    async def body():
        async with Fixture("") as (mesh,):
            _, first, _ = await greet(mesh, uid=1)
            await until(lambda: mesh.listener.up == ["guest"], "connected")
            _, second, _ = await greet(mesh, uid=2)
            await until(lambda: mesh.listener.up == ["guest", "guest"], "again")
            assert mesh.connections["guest"].hello.uid == 2
            first.close()
            second.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0\0", wire.frame(wire.HELLO, b"{}"), wire.frame(wire.TOPOLOGY, b"[]")],
    ids=["HTTP", "empty frame", "no greeting", "no greeting first"],
)
def test_strangers_are_shown_out(data):
    async def body():
        async with Fixture("") as (mesh,):
            reader, writer = await asyncio.open_connection(mesh.host, mesh.port)
            writer.write(data)
            async with asyncio.timeout(5):
                while await reader.read(1000):
                    pass
            assert not mesh.listener.up
            writer.close()

    asyncio.run(body())


def test_nonsense_of_a_peer_ends_the_session():
    async def body():
        async with Fixture("") as (mesh,):
            _, writer, session = await greet(mesh)
            writer.write(session.seal(wire.IPAM, b"nonsense"))
            await until(lambda: mesh.listener.down == ["guest"], "ended")
            writer.close()

    asyncio.run(body())


def test_frames_come_out_whole_however_they_arrive():
    stream = wire.frame(1, b"one") + wire.frame(2) + wire.frame(3, b"x" * 300)
    for step in (1, 2, 7, len(stream)):
        decoder = Decoder()
        found = [one for start in range(0, len(stream), step) for one in decoder.feed(stream[start : start + step])]
        assert found == [(1, b"one"), (2, b""), (3, b"x" * 300)]


def test_what_is_repeated_or_of_another_kind_does_not_open():
    one, other = Session(b"k" * 32, outbound=True), Session(b"k" * 32, outbound=False)
    sealed = one.seal(wire.IPAM, b"body")[5:]
    assert other.open(wire.IPAM, sealed) == b"body"
    for kind in (wire.IPAM, wire.TOPOLOGY):
        with pytest.raises(WireError):
            other.open(kind, sealed)
    assert b"body" not in one.seal(wire.IPAM, b"body")


def link(peer):
    return Link(peer, "192.0.2.1:6783", True, True)


def test_a_way_by_another_peer_and_none_when_that_is_gone():
    topology = Topology(Peer("a", "a", 1))
    topology.set_links([link("b")])
    assert topology.merge([Peer("b", "b", 2, 1, (link("a"), link("c"))), Peer("c", "c", 3, 1, (link("b"),))])
    assert topology.next_hop("c") == "b"
    assert topology.knows("c")
    assert [peer.name for peer in topology.unknown_to("b")] == ["a"], "b has heard of c itself"
    assert [peer.name for peer in topology.unknown_to("c")] == ["a"]
    assert [Peer.decode(peer.encode()) for peer in topology.peers()] == topology.peers()
    assert not topology.merge([Peer("c", "c", 3, 1, (link("b"),))]), "no news"
    topology.set_links([])
    assert (topology.knows("c"), topology.next_hop("c")) == (False, "")
    assert [peer.name for peer in topology.peers()] == ["a"]


def test_a_peer_that_comes_back_is_ahead_of_what_was_said_of_it():
    topology = Topology(Peer("a", "a", uid=2))
    topology.set_links([link("b")])
    topology.merge([Peer("b", "b", 5, 1, (link("a"),)), Peer("a", "a", 1, 40, ())])
    assert topology.own.version == 41
    assert topology.own.links == (link("b"),)
