"""Chooses how frames reach each peer: VXLAN ("fastdp"), or datagrams ("sleeve") if VXLAN does not
get through.

Each peer sends heartbeats both ways: a frame of a private EtherType over VXLAN, and a datagram on
UDP 6783. The receiver confirms each of them over TCP, and a way counts as working while
confirmations arrive. (github.com/weaveworks/weave, router/overlay_switch.go, fastdp.go, sleeve.go.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubewire.components.base import serving
from kubewire.components.networks.weave import sleeve, wire
from kubewire.components.networks.weave.dataplane import DEVICE, PCAP
from kubewire.components.networks.weave.mesh import Connection, Timing
from kubewire.components.networks.weave.sleeve import Macs, Tunnel

log = logging.getLogger("weave-net")

FASTDP = "fastdp"
SLEEVE = "sleeve"
#: IEEE 802's first EtherType for local experiments: no other program handles these frames.
ETHERTYPE = 0x88B5
_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_SO_ATTACH_FILTER = 26
_SMALLEST_FRAME = 60
_LARGEST_FRAME = 65536
_NEVER = float("-inf")


@dataclass
class Way:
    """The state of the ways to one peer. fast, slow: when it last confirmed VXLAN and datagrams."""

    connection: Connection
    tunnel: Tunnel
    since: float
    fast: float = _NEVER
    slow: float = _NEVER
    beaten: float = _NEVER


class Overlay:
    """changed is called when a connection switches to another way. fastdp: False for
    WEAVE_NO_FASTDP."""

    def __init__(
        self, name: str, timing: Timing, changed: Callable[[], None], *, fastdp: bool = True
    ) -> None:
        self._name = name
        self._timing = timing
        self._changed = changed
        self._fastdp = fastdp
        self._ways: dict[Connection, Way] = {}
        self.macs = Macs()
        self._fast_socket: socket.socket | None = None
        self._pcap: socket.socket | None = None
        self._udp: socket.socket | None = None

    def begin(self, connection: Connection) -> None:
        tag = connection.local_connection ^ connection.hello.connection
        tunnel = Tunnel(tag, connection.session.key, self._name, connection.peer)
        self._ways[connection] = Way(connection, tunnel, time.monotonic())

    def end(self, connection: Connection) -> None:
        self._ways.pop(connection, None)

    def heard(self, connection: Connection, kind: int) -> None:
        """The peer confirms a heartbeat over TCP."""
        if way := self._ways.get(connection):
            if kind == wire.FAST_HEARD:
                way.fast = time.monotonic()
            else:
                way.slow = time.monotonic()
            self._review(way)

    def hail(self, connection: Connection) -> None:
        """Sends a heartbeat over VXLAN at once, because the FDB entry for the peer exists now."""
        if way := self._ways.get(connection):
            self._beat(way)

    async def run(self) -> None:
        """Sends heartbeats until cancelled."""
        while True:
            await asyncio.sleep(self._timing.interval(len(self._ways)))
            for way in list(self._ways.values()):
                self._beat(way)
                self._review(way)

    def _answer(self, way: Way, kind: int) -> None:
        """Confirms a heartbeat, and sends one back: an earlier one may have been sent before the
        peer listened."""
        way.connection.send(kind)
        if not way.connection.way and time.monotonic() - way.beaten > self._timing.heartbeat / 10:
            self._beat(way)

    def _beat(self, way: Way) -> None:
        way.beaten = time.monotonic()
        if self._fast_socket is not None and self._fastdp:
            with contextlib.suppress(OSError):
                self._fast_socket.send(_heartbeat(self._name, way.connection.peer, way.tunnel.tag))
        if way.connection.way != FASTDP:
            self._send(way, way.tunnel.pack(sleeve.HEARTBEAT))

    def _review(self, way: Way) -> None:
        now = time.monotonic()
        lost = self._timing.patience(len(self._ways))
        best = FASTDP if now - way.fast < lost else SLEEVE if now - way.slow < lost else ""
        patience = self._timing.heartbeat * 1.5 if self._fastdp else 0
        if best == SLEEVE and way.fast == _NEVER and now - way.since < patience:
            return  # VXLAN may still be confirmed
        if best != way.connection.way:
            log.info(
                "->[%s|%s]: overlay: %s",
                way.connection.address,
                way.connection.hello.nickname,
                best or "none",
            )
            way.connection.way = best
            self._changed()

    def listen(self) -> None:
        """Listens for datagrams. Raises OSError if the port is in use."""
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.bind(("0.0.0.0", sleeve.PORT))
        asyncio.get_running_loop().add_reader(
            self._udp,
            serving.callback(self._datagrams, log, "sleeve"),
        )

    def devices_made(self) -> None:
        """Listens on a recreated VXLAN device. Raises OSError."""
        self._fast_socket = self._replaced(
            self._fast_socket,
            DEVICE,
            self._fast_frames,
            only=ETHERTYPE,
        )

    def pcap_made(self) -> None:
        """Listens on the veth, where the bridge floods frames and sends those for sleeve peers.
        Raises OSError."""
        self._pcap = self._replaced(self._pcap, PCAP, self._captured)

    def pcap_removed(self) -> None:
        self._close(self._pcap)
        self._pcap = None

    def close(self) -> None:
        for open_socket in (self._fast_socket, self._pcap, self._udp):
            self._close(open_socket)

    def _replaced(
        self, old: socket.socket | None, device: str, reader: Callable[[], None], only: int = 0
    ) -> socket.socket:
        self._close(old)
        new = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        new.setblocking(False)
        if only:
            _attach_filter(new, only)
        new.bind((device, _ETH_P_ALL))
        asyncio.get_running_loop().add_reader(new, serving.callback(reader, log, device))
        return new

    def _close(self, old: socket.socket | None) -> None:
        if old is not None:
            asyncio.get_running_loop().remove_reader(old)
            old.close()

    def _fast_frames(self) -> None:
        assert self._fast_socket is not None
        for frame in _frames(self._fast_socket):
            (tag,) = struct.unpack_from("!Q", frame, 14)
            if way := self._by_tag(tag):
                self._answer(way, wire.FAST_HEARD)

    def _captured(self) -> None:
        """Sends frames from the bridge to one sleeve peer, or to all."""
        assert self._pcap is not None
        for frame in _frames(self._pcap):
            behind = self.macs.behind(frame)
            for way in self._ways.values():
                if way.connection.way == SLEEVE and behind in ("", way.connection.peer):
                    self._send(way, way.tunnel.pack(sleeve.FRAME, frame))

    def _datagrams(self) -> None:
        assert self._udp is not None
        with contextlib.suppress(OSError):  # EAGAIN ends the loop
            while True:
                datagram, _ = self._udp.recvfrom(_LARGEST_FRAME)
                way = self._by_tag(sleeve.tag_of(datagram))
                if way and (content := way.tunnel.unpack(datagram)):
                    self._received(way, *content)

    def _received(self, way: Way, kind: int, data: bytes) -> None:
        if kind == sleeve.HEARTBEAT:
            self._answer(way, wire.SLEEVE_HEARD)
        elif kind == sleeve.FRAME and self._pcap is not None and len(data) > 14:
            self.macs.learn(data, way.connection.peer)
            with contextlib.suppress(OSError):
                self._pcap.send(data)

    def _by_tag(self, tag: int) -> Way | None:
        return next((way for way in self._ways.values() if way.tunnel.tag == tag), None)

    def _send(self, way: Way, datagram: bytes) -> None:
        if self._udp is not None:
            with contextlib.suppress(OSError):
                self._udp.sendto(datagram, (way.connection.ip, sleeve.PORT))


def _heartbeat(own: str, peer: str, tag: int) -> bytes:
    """A frame to the peer's bridge. Its source MAC belongs to no device, because bridges on the way
    learn it."""
    sender = bytearray.fromhex(own.replace(":", ""))
    sender[0] ^= 0x40
    head = bytes.fromhex(peer.replace(":", "")) + sender + struct.pack("!HQ", ETHERTYPE, tag)
    return head.ljust(_SMALLEST_FRAME, b"\0")


def _frames(packet_socket: socket.socket) -> list[bytes]:
    """All received frames, without those that this process sent."""
    frames: list[bytes] = []
    with contextlib.suppress(OSError):
        while True:
            frame, address = packet_socket.recvfrom(_LARGEST_FRAME)
            if address[2] != _PACKET_OUTGOING and len(frame) > 22:
                frames.append(frame)
    return frames


def _attach_filter(packet_socket: socket.socket, ethertype: int) -> None:
    """Attaches a classic BPF program that accepts whole frames of this EtherType and no others."""
    program = [
        (0x28, 0, 0, 12),
        (0x15, 0, 1, ethertype),
        (0x06, 0, 0, _LARGEST_FRAME),
        (0x06, 0, 0, 0),
    ]
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    )
    about = struct.pack("HL", len(program), ctypes.addressof(code))
    packet_socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, about)
