"""Packets that rules with the target NFLOG send to a group: a netlink socket that receives them.

Layout: include/uapi/linux/netfilter/nfnetlink_log.h. The kernel copies the first bytes of each
packet; the packet itself goes on, so a slow reader loses log entries and delays nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.components.kernel.nfnetlink.netlink import attribute
from kubewire.components.kernel.nfnetlink.packets import BIND, COPY_PACKET, PacketSocket

_SUBSYS_ULOG = 4
_CONFIG = 1
_CFG_CMD, _CFG_MODE = 1, 2
_MARK, _IN, _OUT, _PAYLOAD, _PREFIX = 2, 4, 5, 9, 10


@dataclass(frozen=True)
class Logged:
    """A packet. data: its first bytes, from the IP header on. prefix: the rule's --nflog-prefix.
    mark: the packet's. incoming, outgoing: indexes of its interfaces, 0 for none."""

    data: bytes
    prefix: str = ""
    mark: int = 0
    incoming: int = 0
    outgoing: int = 0


class LogSocket(PacketSocket):
    """Receives the packets of a group."""

    def __init__(self, group: int, copied: int = 128) -> None:
        """copied: bytes of each packet. Raises OSError if another socket has the group, or the
        kernel has no nfnetlink_log."""
        super().__init__(_SUBSYS_ULOG, group, f"NFLOG group {group}")
        try:
            self.configure(_CONFIG, attribute(_CFG_CMD, bytes([BIND])))
            mode = struct.pack(">IBB", copied, COPY_PACKET, 0)
            self.configure(_CONFIG, attribute(_CFG_MODE, mode))
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise

    def received(self) -> Iterator[Logged]:
        """What has come since the last call, without waiting."""
        return map(_logged, self.waiting())


def _logged(found: dict[int, bytes]) -> Logged:
    return Logged(
        data=found.get(_PAYLOAD, b""),
        prefix=found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
        mark=int.from_bytes(found.get(_MARK, b""), "big"),
        incoming=int.from_bytes(found.get(_IN, b""), "big"),
        outgoing=int.from_bytes(found.get(_OUT, b""), "big"),
    )
