"""The interface between the streaming protocols (exec, attach, port-forward) and the pods.

streaming/ implements SPDY and WebSocket and knows about pods only what is defined here. The kubelet
implements it with the runtime (pod/container_target.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class TargetError(Exception):
    """The request cannot be carried out.

    status: the HTTP status. 404 is an unknown pod or container, 400 a request that the runtime
    refuses, and 500 a process that could not start, with runc's message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ExecSession(Protocol):
    """A process in a container, or an attachment to one, and this side's ends of its streams.

    The descriptors are non-blocking ends of pipes, -1 for a stream that was not requested. Only the
    session may close them: after another close, the number may already belong to another stream.
    stdout and stderr end when the last process that holds them has closed them. With a terminal
    there is no stderr, and the runtime copies between the terminal and stdin and stdout.
    """

    @property
    def stdin(self) -> int: ...
    @property
    def stdout(self) -> int: ...
    @property
    def stderr(self) -> int: ...

    def close_stdin(self) -> None:
        """Sends end of file to the process; stdin is -1 from then on."""

    async def wait(self) -> int:
        """Waits for the end. Returns the exit code, 128 + N for signal N; 0 for an attachment,
        whose client reads the pod's status instead."""

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size (TIOCSWINSZ, which sends SIGWINCH); does nothing without one."""

    async def close(self) -> None:
        """Closes the streams; ends an exec'ed process that still runs, but not an attached one."""


class ContainerTarget(Protocol):
    """The operations on a pod. container: "" for the default container. All raise TargetError."""

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> ExecSession: ...

    async def attach(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> ExecSession: ...

    async def port_connect(
        self,
        namespace: str,
        pod: str,
        port: int,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a TCP connection to localhost:port inside the pod's network namespace.

        Raises OSError if nothing listens there.
        """
