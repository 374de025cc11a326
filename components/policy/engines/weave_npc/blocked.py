"""What Weave NPC says of the connections that it blocks: a line in its log and a counter.

The kernel sends the first packet of each to NFLOG group 86 before it is dropped. Upstream reads
them through ulogd.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

_TCP, _UDP = 6, 17
_SYN, _ACK = 0x02, 0x10


@dataclass(frozen=True)
class Blocked:
    """A connection attempt. protocol: tcp or udp."""

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int

    def __str__(self) -> str:
        """As weave-npc logs it."""
        return (
            f"{self.protocol.upper()} connection from {self.source}:{self.source_port} to "
            f"{self.destination}:{self.destination_port} blocked by Weave NPC."
        )


def blocked(packet: bytes) -> Blocked | None:
    """The attempt that an IPv4 packet makes: a TCP segment with SYN alone, or a UDP datagram. None
    for others."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    length, protocol = (packet[0] & 0xF) * 4, packet[9]
    transport = packet[length:]
    if protocol not in {_TCP, _UDP} or len(transport) < (14 if protocol == _TCP else 4):
        return None
    if protocol == _TCP and transport[13] & (_SYN | _ACK) != _SYN:
        return None
    source_port, destination_port = struct.unpack_from(">HH", transport)
    return Blocked(
        "tcp" if protocol == _TCP else "udp",
        str(ipaddress.IPv4Address(packet[12:16])),
        source_port,
        str(ipaddress.IPv4Address(packet[16:20])),
        destination_port,
    )
