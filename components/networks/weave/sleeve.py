"""Frames in UDP 6783: the format of datagrams, and which MAC is behind which peer. Pure.

    datagram   tag of the connection (8 bytes), counter (8), body; the body begins with its kind (1)

With a password the body is encrypted by ChaCha20-Poly1305. Each direction has its own key and the
counter is the nonce, so no nonce is used twice. (github.com/weaveworks/weave, router/sleeve.go.
Sleeve needs no kernel support, and only UDP from the network.)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PORT = 6783
FRAME = 0
HEARTBEAT = 1
_HEAD = struct.Struct("!QQ")
_WINDOW = 1024
_MULTICAST = 1


def tag_of(datagram: bytes) -> int:
    """The tag of the connection that a datagram claims to belong to; 0 if it is too short."""
    return int(_HEAD.unpack_from(datagram)[0]) if len(datagram) > _HEAD.size else 0


@dataclass
class Window:
    """The replay window: accepts each counter once, and none far behind the highest (RFC 4303
    section 3.4.3)."""

    highest: int = -1
    seen: set[int] = field(default_factory=set)

    def takes(self, counter: int) -> bool:
        if counter <= self.highest - _WINDOW or counter in self.seen:
            return False
        self.seen.add(counter)
        if counter > self.highest:
            self.highest = counter
            if len(self.seen) > 2 * _WINDOW:
                self.seen = {old for old in self.seen if old > counter - _WINDOW}
        return True


class Tunnel:
    """The datagrams of one connection. key: the session's, b"" without a password. own, other: the
    peers' names."""

    def __init__(self, tag: int, key: bytes, own: str, other: str) -> None:
        self.tag = tag
        self._sent = 0
        self._window = Window()
        self._seal = _cipher(key, own)
        self._open = _cipher(key, other)

    def pack(self, kind: int, data: bytes = b"") -> bytes:
        head = _HEAD.pack(self.tag, self._sent)
        body = bytes([kind]) + data
        self._sent += 1
        return head + (
            self._seal.encrypt(b"\0\0\0\0" + head[8:], body, head) if self._seal else body
        )

    def unpack(self, datagram: bytes) -> tuple[int, bytes] | None:
        """Kind and data; None if the datagram was not made by the other peer, or is a
        repetition."""
        head = datagram[: _HEAD.size]
        body = datagram[_HEAD.size :]
        if self._open:
            try:
                body = self._open.decrypt(b"\0\0\0\0" + head[8:], body, head)
            except InvalidTag:
                return None
        if not body or not self._window.takes(_HEAD.unpack(head)[1]):
            return None
        return body[0], body[1:]


def _cipher(key: bytes, sender: str) -> ChaCha20Poly1305 | None:
    if not key:
        return None
    return ChaCha20Poly1305(
        HKDF(SHA256(), 32, salt=None, info=f"weave sleeve {sender}".encode()).derive(key),
    )


class Macs:
    """The peer behind which each MAC was last seen, for peers that are reached by datagrams."""

    def __init__(self) -> None:
        self._peers: dict[bytes, str] = {}

    def learn(self, frame: bytes, peer: str) -> None:
        if not frame[6] & _MULTICAST:
            self._peers[frame[6:12]] = peer

    def behind(self, frame: bytes) -> str:
        """The peer behind which the frame's destination is; "" if all peers must get the frame."""
        return "" if frame[0] & _MULTICAST else self._peers.get(frame[:6], "")

    def forget(self, peer: str) -> list[str]:
        """Forgets the MACs behind a peer and returns them."""
        gone = [mac for mac, holder in self._peers.items() if holder == peer]
        for mac in gone:
            del self._peers[mac]
        return [mac.hex(":") for mac in gone]
