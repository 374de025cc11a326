"""The protocol on TCP 6783: frames, the greeting, and with a password encrypted sessions. Pure.

    frame      length (4 bytes, of what follows), kind (1 byte), body
    first      HELLO: JSON in clear text, which carries the X25519 public keys
    then       CONFIRM, and all others; with a password each body is encrypted by ChaCha20-Poly1305

The session key is HKDF-SHA256 of the X25519 secret and the password. The secret is new for every
connection, so recorded traffic stays secret if the password leaks later; the password proves that
the other side is a peer, because without it CONFIRM cannot be encrypted.
(github.com/weaveworks/mesh uses gob instead of JSON, and NaCl boxes keyed by SHA-256 of the same
two.)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kubewire.components.base import jsontext

PROTOCOL = "weave"
VERSION = 2
(
    HELLO,
    CONFIRM,
    HEARTBEAT,
    TOPOLOGY,
    IPAM,
    UNICAST,
    SECURITY_ASSOCIATION,
    FAST_HEARD,
    SLEEVE_HEARD,
) = range(9)
_HEAD = struct.Struct("!IB")
_LARGEST = 1 << 22


class WireError(Exception):
    """The other side does not speak the protocol; the text is for logs and `status connections`."""


def frame(kind: int, body: bytes = b"") -> bytes:
    return _HEAD.pack(1 + len(body), kind) + body


class Decoder:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of each frame that is complete. Raises WireError."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._data)
            if not 1 <= length <= _LARGEST:
                raise WireError(f"a frame of {length} bytes")
            if len(self._data) < 4 + length:
                return
            body = self._data[_HEAD.size : 4 + length]
            self._data = self._data[4 + length :]
            yield kind, body


@dataclass(frozen=True)
class Hello:
    """connection: the sender's random number for this connection. public_key: hex, "" without a
    password."""

    name: str
    nickname: str
    uid: int
    connection: int
    public_key: str = ""

    def check(self) -> None:
        """Raises ValueError."""
        texts = (self.name, self.nickname, self.public_key)
        numbers = (self.uid, self.connection)
        if not all(isinstance(text, str) and len(text) < 256 for text in texts):
            raise ValueError("name, nickname and public key are strings")
        if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
            raise ValueError("uid and connection are numbers of 64 bits")

    def encode(self) -> bytes:
        return json.dumps({"protocol": PROTOCOL, "version": VERSION, **self.__dict__}).encode()

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        """Raises WireError."""
        try:
            data = jsontext.parse_object(body)
            protocol = data.pop("protocol")
            version = data.pop("version")
            hello = cls(**data)
            hello.check()
        except (ValueError, TypeError, KeyError):
            raise WireError("not a peer's greeting") from None
        if (protocol, version) != (PROTOCOL, VERSION):
            raise WireError(f"protocol {protocol} {version}, ours is {PROTOCOL} {VERSION}")
        return hello


class Session:
    """A connection after its greetings: encrypts and decrypts bodies. key: b"" without a
    password."""

    def __init__(self, key: bytes, *, outbound: bool) -> None:
        self.key = key
        self._cipher = ChaCha20Poly1305(key) if key else None
        # Each direction has its own prefix and counter, so no nonce is used twice.
        self._sending, self._receiving = (
            (b"\0\0\0\1", b"\0\0\0\2") if outbound else (b"\0\0\0\2", b"\0\0\0\1")
        )
        self._sent = self._received = 0

    def seal(self, kind: int, body: bytes = b"") -> bytes:
        if self._cipher is None:
            return frame(kind, body)
        nonce = self._sending + self._sent.to_bytes(8)
        self._sent += 1
        return frame(kind, self._cipher.encrypt(nonce, body, bytes([kind])))

    def open(self, kind: int, body: bytes) -> bytes:
        """Raises WireError if the body was not made with the session's key."""
        if self._cipher is None:
            return body
        nonce = self._receiving + self._received.to_bytes(8)
        self._received += 1
        try:
            return self._cipher.decrypt(nonce, body, bytes([kind]))
        except InvalidTag:
            raise WireError("Unable to decrypt TCP msg") from None


def public_key(private: X25519PrivateKey | None) -> str:
    return private.public_key().public_bytes_raw().hex() if private else ""


def session(
    private: X25519PrivateKey | None, other: Hello, password: str, *, outbound: bool
) -> Session:
    """Raises WireError, in mesh's words, if only one of the two has a password."""
    if private is None and other.public_key:
        raise WireError("no password specificed, but peer requested an encrypted connection")
    if private is not None and not other.public_key:
        raise WireError("password specified, but peer requested an unencrypted connection")
    if private is None:
        return Session(b"", outbound=outbound)
    try:
        secret = private.exchange(
            X25519PublicKey.from_public_bytes(bytes.fromhex(other.public_key)),
        )
    except ValueError:
        raise WireError("not a public key") from None
    key = HKDF(SHA256(), 32, salt=None, info=b"weave session").derive(secret + password.encode())
    return Session(key, outbound=outbound)
