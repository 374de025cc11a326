"""The image regression-issue-74839: sends a TCP segment that is out of its peer's window.

When a connection to port 9000 is established, the server sends one such segment beside it.
conntrack calls it invalid and does not translate it, so unless kube-proxy drops it, it reaches the
client with the pod's own address, and the client resets the connection
(regression-issue-74839/main.go).
"""

from __future__ import annotations

import os
import socket
import struct
from functools import partial

from .golang import fatal, host_port, log
from .http import listen_tcp
from .loop import Loop
from .netexec import stop_on_sigterm

PORT = 9000
SYN, RST, PSH, ACK = 0x02, 0x04, 0x08, 0x10
_OUT_OF_WINDOW = 100_000
_DATA = b"boom!!!"
_SECONDS = 10.0
_HEAD = struct.Struct(">HHIIHHHH")


def checksum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(
    source: str, target: str, ports: tuple[int, int], seq: int, ack: int, window: int
) -> bytes:
    """A TCP segment with PSH, ACK and the data, and its checksum (RFC 9293, 3.1)."""
    flags = 5 << 12 | PSH | ACK
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    head = _HEAD.pack(*ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, flags, window, 0, 0)
    pseudo = addresses + struct.pack(">II", len(head) + len(_DATA), socket.IPPROTO_TCP)
    value = checksum(pseudo + head + _DATA)
    return _HEAD.pack(*ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, flags, window, value, 0) + _DATA


class Prober:
    """Watches the segments to an address, and sends the bad one after each handshake."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._pending: dict[tuple[str, int], int] = {}

    def received(self, client: str, packet: bytes) -> bytes | None:
        """The segment to send to the client, if any. packet: from TCP's header on."""
        if len(packet) < _HEAD.size:
            return None
        source, target, seq, ack, flags, window, *_ = _HEAD.unpack_from(packet)
        if target != PORT:
            return None
        if flags & SYN:
            self._pending[client, source] = seq + 1
            return None
        if flags & RST:
            log("ERROR: RST received")
        if not flags & ACK or (client, source) not in self._pending:
            return None
        log("connection established")
        expected = self._pending.pop((client, source))
        ports = (PORT, source)
        return segment(self.address, client, ports, ack - _OUT_OF_WINDOW, expected, window)


def addresses() -> list[str]:
    """The pod's addresses, from the downward API."""
    listed = os.environ.get("POD_IPS") or os.environ.get("POD_IP") or ""
    return [address for address in listed.split(",") if address]


def main(argv: list[str]) -> int:
    """Serves until SIGTERM."""
    found = addresses()
    if not found:
        raise fatal("No valid IP found")
    loop = Loop()
    stop_on_sigterm(loop, 2)
    for address in found:
        log(f"external ip: {address}")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        raw.bind((address, 0))
        log(f"probing {address}")
        loop.watch(raw.fileno(), read=partial(_probe, raw, Prober(address)))
    log(f"listen on 0.0.0.0:{PORT}")
    listener = listen_tcp(PORT)
    loop.watch(listener.fileno(), read=partial(_accept, loop, listener))
    loop.run()
    return 0


def _probe(raw: socket.socket, prober: Prober) -> None:
    packet, peer = raw.recvfrom(65536)
    # A raw IPv4 socket receives the IP header, too (ip(7), raw(7)); an IPv6 one does not (ipv6(7)).
    start = (packet[0] & 0xF) * 4 if raw.family == socket.AF_INET else 0
    answer = prober.received(peer[0], packet[start:])
    if answer is not None:
        try:
            raw.sendto(answer, (peer[0], 0))
            log("boom packet injected")
        except OSError as error:
            log(f"conn.WriteTo() error: {error}")


def _accept(loop: Loop, listener: socket.socket) -> None:
    sock, address = listener.accept()
    log(f"connection of {host_port(address)}")
    loop.later(_SECONDS, sock.close)
