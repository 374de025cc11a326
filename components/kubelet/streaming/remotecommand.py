"""exec and attach: a session's streams over named channels, whatever carries them.

The channels and the final Status are those of remotecommand v4 and v5
(https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Protocol

from kubewire.components.base import jsontext
from kubewire.components.kubelet.streaming.descriptors import read_chunks, write_all
from kubewire.components.kubelet.streaming.target import ExecSession, TargetError

#: How long output of left-over background processes is waited for after the command itself has ended.
_DRAIN_SECONDS = 2.0


class ChannelsClosed(Exception):
    """The client is gone."""


class Channels(Protocol):
    """What remotecommand needs of a connection. Names: stdin, stdout, stderr, error, resize."""

    async def receive(self) -> tuple[str, bytes | None]:
        """The next message of stdin or resize; None as data means that this channel has ended.

        Raises ChannelsClosed."""
        ...

    async def send(self, channel: str, data: bytes) -> None:
        """Raises ChannelsClosed."""
        ...

    async def finish(self) -> None:
        """All is said: close in order."""
        ...


def success() -> dict[str, Any]:
    """The Status of a command that ended with 0."""
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> dict[str, Any]:
    """The Status of one that did not; clients find the code in details.causes."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def internal_error(message: str) -> dict[str, Any]:
    """The Status of a command that could not be started."""
    text = f"error executing command in container: {message}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {text}",
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    }


async def report(channels: Channels, status: dict[str, Any]) -> None:
    """Say how it ended, and close."""
    with suppress(ChannelsClosed):
        await channels.send("error", json.dumps(status).encode())
        await channels.finish()


async def report_failure(channels: Channels, error: TargetError) -> None:
    """A command that did not start."""
    await report(channels, internal_error(error.message))


async def run(session: ExecSession, channels: Channels) -> None:
    """Carry the session until its process has ended or the client is gone; the session is closed afterwards."""
    outputs = [
        asyncio.ensure_future(_output(descriptor, name, channels))
        for name, descriptor in (("stdout", session.stdout), ("stderr", session.stderr))
        if descriptor >= 0
    ]
    incoming = asyncio.ensure_future(_input(session, channels))
    ended = asyncio.ensure_future(session.wait())
    try:
        await asyncio.wait({ended, incoming}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return  # the client went away; close() ends the process
        if outputs:
            await asyncio.wait(outputs, timeout=_DRAIN_SECONDS)
        code = ended.result()
        await report(channels, exited(code) if code else success())
    finally:
        for task in (*outputs, incoming, ended):
            task.cancel()
        await asyncio.gather(*outputs, incoming, ended, return_exceptions=True)
        await session.close()


async def _output(descriptor: int, name: str, channels: Channels) -> None:
    with suppress(ChannelsClosed):
        async for chunk in read_chunks(descriptor):
            await channels.send(name, chunk)


async def _input(session: ExecSession, channels: Channels) -> None:
    """Returns only when the client is gone; a closed stdin is told to the process and no more."""
    while True:
        try:
            channel, data = await channels.receive()
        except ChannelsClosed:
            return
        if channel == "resize" and data:
            await _resize(session, data)
        elif channel == "stdin" and session.stdin >= 0:
            if data is None:
                session.close_stdin()
                continue
            with suppress(BrokenPipeError, ConnectionResetError):
                await write_all(session.stdin, data)


#: Bytes of a resize message, and rows or columns of a terminal (unsigned short of struct winsize).
_LONGEST_SIZE = 1024
_MOST_CELLS = 0xFFFF


async def _resize(session: ExecSession, data: bytes) -> None:
    """What is no size is ignored."""
    try:
        size = jsontext.parse_object(data[:_LONGEST_SIZE])
    except ValueError:
        return
    rows, columns = size.get("Height"), size.get("Width")
    if not (isinstance(rows, int) and isinstance(columns, int)):
        return
    # A client whose own terminal has no size says 0 (HandleResizing skips it too).
    if 0 < rows <= _MOST_CELLS and 0 < columns <= _MOST_CELLS:
        await session.resize(rows, columns)
