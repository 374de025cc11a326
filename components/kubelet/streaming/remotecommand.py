"""exec and attach: copies a session's streams to and from named channels, over SPDY or WebSocket.

The channels and the final Status are those of remotecommand v4 and v5 (KEP-4006,
https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Protocol

from kubewire.components.base import jsontext
from kubewire.components.kubelet.streaming.descriptors import read_chunks, write_all
from kubewire.components.kubelet.streaming.target import ExecSession, TargetError

#: Seconds to wait for the output of background processes after the command itself has ended.
_DRAIN_SECONDS = 2.0
#: Seconds to wait after the end of a command for the first size of the client's terminal.
_SIZE_SECONDS = 0.25


class ChannelsClosed(Exception):
    """The client is gone."""


class Channels(Protocol):
    """A connection with the channels stdin, stdout, stderr, error and resize.

    structured: the client reads the final status as JSON, and not as the text of a failure.
    """

    @property
    def structured(self) -> bool: ...

    async def receive(self) -> tuple[str, bytes | None]:
        """The next message of stdin or resize; None instead of data means the end of that channel.

        Raises ChannelsClosed."""
        ...

    async def send(self, channel: str, data: bytes) -> None:
        """Sends data. Raises ChannelsClosed."""
        ...

    async def finish(self) -> None:
        """Closes the connection in an orderly way."""
        ...


def success() -> dict[str, Any]:
    """The Status of a command that exited with 0."""
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> dict[str, Any]:
    """The Status of a command that exited with another code; clients read details.causes."""
    text = f"command terminated with exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {text}",
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
    """Sends the final Status and closes the connection."""
    said = final_message(status, structured=channels.structured)
    with suppress(ChannelsClosed):
        if said:
            await channels.send("error", said)
        await channels.finish()


def final_message(status: dict[str, Any], *, structured: bool) -> bytes:
    """What the error channel says at the end; before v4, nothing of a success."""
    text: str = json.dumps(status) if structured else status.get("message", "")
    return text.encode()


async def report_failure(channels: Channels, error: TargetError) -> None:
    """Sends the Status of a command that could not start."""
    await report(channels, internal_error(error.message))


async def run(session: ExecSession, channels: Channels, *, tty: bool = False) -> None:
    """Copies the streams until the process ends or the client is gone, then closes the session.

    tty: the client has a terminal, and says its size as soon as it is connected.
    """
    sized = asyncio.Event()
    outputs = [
        asyncio.ensure_future(_output(descriptor, name, channels))
        for name, descriptor in (("stdout", session.stdout), ("stderr", session.stderr))
        if descriptor >= 0
    ]
    incoming = asyncio.ensure_future(_input(session, channels, sized))
    ended = asyncio.ensure_future(session.wait())
    try:
        await asyncio.wait({ended, incoming}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return  # the client is gone; close() ends the process
        if outputs:
            await asyncio.wait(outputs, timeout=_DRAIN_SECONDS)
        if tty:
            await _wait_for_size(sized)
        # aiohttp waits for the client's answer to a close frame only if nobody else is reading;
        # otherwise the connection may end before a client has answered, which it takes for a loss.
        incoming.cancel()
        await asyncio.gather(incoming, return_exceptions=True)
        code = ended.result()
        await report(channels, exited(code) if code else success())
    finally:
        for task in (*outputs, incoming, ended):
            task.cancel()
        await asyncio.gather(*outputs, incoming, ended, return_exceptions=True)
        await session.close()


async def _wait_for_size(sized: asyncio.Event) -> None:
    """Lets the client say its terminal's size before the connection is closed: kubectl logs an
    error if it cannot. A client that has none to say is not waited for any longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SIZE_SECONDS):
            await sized.wait()


async def _output(descriptor: int, name: str, channels: Channels) -> None:
    with suppress(ChannelsClosed):
        async for chunk in read_chunks(descriptor):
            await channels.send(name, chunk)


async def _input(session: ExecSession, channels: Channels, sized: asyncio.Event) -> None:
    """Copies stdin and resizes, and returns when the client is gone; the end of stdin is no end."""
    while True:
        try:
            channel, data = await channels.receive()
        except ChannelsClosed:
            return
        if channel == "resize" and data:
            sized.set()
            await _resize(session, data)
        elif channel == "stdin" and session.stdin >= 0:
            if data is None:
                session.close_stdin()
                continue
            with suppress(BrokenPipeError, ConnectionResetError):
                await write_all(session.stdin, data)


#: The longest resize message, in bytes, and the most rows or columns of a terminal (unsigned short
#: in struct winsize, ioctl_tty(2)).
_LONGEST_SIZE = 1024
_MOST_CELLS = 0xFFFF


async def _resize(session: ExecSession, data: bytes) -> None:
    """Resizes the terminal; a malformed message is ignored."""
    try:
        size = jsontext.parse_object(data[:_LONGEST_SIZE])
    except ValueError:
        return
    rows = size.get("Height")
    columns = size.get("Width")
    if not (isinstance(rows, int) and isinstance(columns, int)):
        return
    # A client sends 0 if its own terminal has no size; upstream's HandleResizing ignores that too.
    if 0 < rows <= _MOST_CELLS and 0 < columns <= _MOST_CELLS:
        await session.resize(rows, columns)
