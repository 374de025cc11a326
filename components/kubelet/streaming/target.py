"""The joint between the streaming protocols (exec, attach, port-forward) and the kubelet that has the pods.

streaming/ speaks SPDY and WebSocket with the API server and knows of pods only what stands here; the kubelet
(container_target.py) implements it on the runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class TargetError(Exception):
    """The request cannot be carried out. status is the HTTP status for it: 404 unknown pod or container,
    400 it does not run, 500 it could not be started (the message is then runc's, e.g. executable not found)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ExecSession(Protocol):
    """A process in a container, or the attachment to one, and our ends of its streams.

    Descriptors are non-blocking ends of pipes (of socket pairs for attach); -1 where a stream was not asked
    for. The session closes them: a number that somebody else closed may belong to another stream by then. stdout
    and stderr reach their end when the last process that holds them has closed them. With a terminal there is no
    stderr, and stdin and stdout are copied from and to the terminal by the runtime.
    """

    @property
    def stdin(self) -> int: ...
    @property
    def stdout(self) -> int: ...
    @property
    def stderr(self) -> int: ...

    def close_stdin(self) -> None:
        """End of file for the process; stdin is -1 from then on."""

    async def wait(self) -> int:
        """The exit code, 128 + N after signal N; 0 for an attachment: its client looks at the pod's status."""

    async def resize(self, rows: int, columns: int) -> None:
        """TIOCSWINSZ and SIGWINCH; nothing without a terminal."""

    async def close(self) -> None:
        """Ends an exec'ed process that still runs (an attached one goes on) and closes what is open."""


class ContainerTarget(Protocol):
    """container "" is the pod's first (or annotated default) container. All raise TargetError."""

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
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection to localhost:port made inside the pod's network namespace.

        Raises OSError when nothing listens there (upstream's text is the caller's business)."""
