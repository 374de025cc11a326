"""Frames on the fork server's unix stream socket: a length of 4 bytes (little endian), then JSON.

Descriptors only go from client to server, by SCM_RIGHTS with the first byte of a frame (unix(7)).
The frame's "fds" has their names in order ("stdin", "log", "ns:net", "fd:3"). The socket is a
stream and not SOCK_SEQPACKET, because an environment with the variables of a thousand Services is
larger than a socket buffer.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

MAX_FDS = 64
#: The largest frame; containerd has this limit for a CRI message (defaults.DefaultMaxRecvMsgSize).
MAX_FRAME = 16 * 1024 * 1024
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class BadFrame(ValueError):
    """The data are not a frame, or its descriptors are missing; the stream is then unreadable."""


def encode(message: dict[str, Any]) -> bytes:
    """Encodes a message as a frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "little") + body


def send_once(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """Calls sendmsg(2) once, with the descriptors; returns the number of bytes sent."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Sends all data on a blocking socket."""
    sent = send_once(sock, data, fds)
    if sent < len(data):
        sock.sendall(data[sent:])


def receive_once(sock: socket.socket, size: int = 65536) -> tuple[bytes, list[int]]:
    """Calls recvmsg(2) once; returns bytes (none at the end of the stream) and descriptors.

    The caller owns the descriptors, which are close-on-exec. Raises BadFrame if there were more
    than MAX_FDS, or more than this process may have.
    """
    data, ancillary, flags, _address = sock.recvmsg(size, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            fds.extend(numbers)
    if flags & socket.MSG_CTRUNC:
        close_all(fds)
        text = f"more than {MAX_FDS} descriptors in a message, or more than this process may have"
        raise BadFrame(text)
    return data, fds


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


class FrameReader:
    """Turns bytes and descriptors into whole messages, without I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: list[int] = []

    def feed(
        self,
        data: bytes,
        fds: Sequence[int] = (),
    ) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Yields the messages that data completes, each with the descriptors that its "fds" names.

        The caller owns these descriptors. Raises BadFrame.
        """
        self._buffer += data
        self._fds.extend(fds)
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "little")
            if size > MAX_FRAME:
                raise BadFrame(f"a frame of {size} bytes, at most {MAX_FRAME} are taken")
            if len(self._buffer) < 4 + size:
                break
            message = _decoded(bytes(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
            count = len(message.get("fds", ()))
            if count > len(self._fds):
                raise BadFrame(f"{count} descriptors named, {len(self._fds)} came")
            taken = self._fds[:count]
            self._fds = self._fds[count:]
            yield message, taken
        # Descriptors come with the first byte of their frame, so those that are left belong to a
        # frame that is not complete.
        if len(self._fds) > (MAX_FDS if self._buffer else 0):
            raise BadFrame(f"{len(self._fds)} descriptors that no frame names")

    @property
    def holds_descriptors(self) -> bool:
        """Whether there are descriptors of an incomplete frame."""
        return bool(self._fds)

    def close(self) -> None:
        """Closes the descriptors of an incomplete frame."""
        close_all(self._fds)
        self._fds = []


def _decoded(body: bytes) -> dict[str, Any]:
    """Parses a frame's JSON object. Raises BadFrame if it is malformed or nested too deeply."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise BadFrame(f"not a JSON object: {type(message).__name__}")
    names = message.get("fds", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadFrame("fds: must be a list of names")
    if len(names) > MAX_FDS or len(set(names)) < len(names):
        raise BadFrame(f"fds: at most {MAX_FDS} names, each once")
    return message
