"""A peer made of a socket and bytes, at 127.0.0.2, and a daemon for it on the loopback of a namespace."""

import asyncio
import contextlib
from pathlib import Path

from kubewire.components.bgp import messages
from kubewire.components.kernel import command
from tests.components.bgp.fabric import Node

PEER, OTHER = "127.0.0.2", "127.0.0.3"
ORIGIN, AS_PATH = b"\x40\x01\x01\x00", b"\x40\x02\x06\x02\x01\x00\x00\xfd\xe9"
NEXT_HOP = b"\x40\x03\x04\x0a\x00\x01\x02"
GOOD = ORIGIN + AS_PATH + NEXT_HOP
KEEPALIVE = messages.message(messages.KEEPALIVE, b"")
CAPABILITIES = b"\x02\x06\x01\x04\x00\x01\x00\x01\x02\x06\x41\x04\x00\x00\xfd\xe9"


def opened(capabilities=CAPABILITIES, hold=90):
    head = b"\x04\xfd\xe9" + hold.to_bytes(2, "big") + b"\x0a\x00\x01\x02"
    return messages.message(messages.OPEN, head + bytes([len(capabilities)]) + capabilities)


def update(nlri=b"", attributes=GOOD, withdrawn=b""):
    sizes = len(withdrawn).to_bytes(2, "big"), len(attributes).to_bytes(2, "big")
    return messages.message(messages.UPDATE, sizes[0] + withdrawn + sizes[1] + attributes + nlri)


class HostileNode(Node):
    """The daemon in the test's own namespace, with passive peers at PEER and OTHER."""

    def argv(self, *argv):
        return [*map(str, argv)]

    async def uplink(self):
        await command.run(["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1-peer"], check=True)
        await command.run(["ip", "addr", "add", "10.0.1.1/24", "dev", "eth1"], check=True)
        await command.run(["sh", "-c", "ip link set eth1-peer up && ip link set eth1 up"], check=True)

    @classmethod
    async def begin(cls, name="node", announce=()):
        node = cls(name)
        await node.uplink()
        peers = [
            {"name": name, "address": address, "remoteAS": 65001, "passive": True, "gracefulRestart": False}
            for name, address in (("bad", PEER), ("other", OTHER))
        ]
        await node.start_daemon(
            {"localAS": 64512, "routerID": "10.0.1.1", "listen": ["0.0.0.0"], "peers": peers, "announce": [*announce]}
        )
        return node

    def resident(self):
        """KiB."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def open_files(self):
        return sum(1 for _ in Path(f"/proc/{self.daemon.pid}/fd").iterdir())

    def threads(self):
        return sum(1 for _ in Path(f"/proc/{self.daemon.pid}/task").iterdir())


class HostilePeer:
    """A connection to the daemon from an address."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, address=PEER):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return cls(*await asyncio.open_connection("127.0.0.1", 179, local_addr=(address, 0)))
            await asyncio.sleep(0.05)

    @classmethod
    async def established(cls, address=PEER, opening=None):
        """Again and again: the daemon may still be ending the session before (a collision, RFC 4271, 6.8)."""
        while True:
            peer = await cls.connect(address)
            peer.send((opening or opened()) + KEEPALIVE)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                if await peer.heard() == messages.OPEN and await peer.heard() == messages.KEEPALIVE:
                    return peer
            peer.close()
            await asyncio.sleep(0.02)

    def send(self, data):
        self.writer.write(data)

    async def message(self):
        head = await self.reader.readexactly(messages.HEADER)
        length, kind = int.from_bytes(head[16:18], "big"), head[18]
        return kind, await self.reader.readexactly(length - messages.HEADER)

    async def heard(self):
        return (await self.message())[0]

    async def notification(self):
        """Code, subcode and data of the NOTIFICATION that ends the connection; None when it just ends."""
        found = None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(10):
                while True:
                    kind, body = await self.message()
                    if kind == messages.NOTIFICATION:
                        found = body[0], body[1], body[2:]
        return found

    def close(self):
        self.writer.close()
