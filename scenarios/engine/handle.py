"""The lab as scenarios see it: what `lab` implements and the scenario engine uses.

`scenarios` never imports `lab`; everything a scenario does to a running lab goes through these protocols
(and through the Kubernetes API named by `LabHandle.kubeconfig`).

Targets are names of hosts ("worker-1", "router", "client") or "pod:NAMESPACE/NAME[/CONTAINER]".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kubewire.scenarios.engine.file.spec import LabSpec

Role = Literal["control-plane", "worker", "router", "outside"]
ComponentAction = Literal["kill", "stop", "start"]


@dataclass(frozen=True)
class Host:
    """One machine of the topology. address is its own, of the lab's primary family, without a mask ("172.18.0.3").

    secondary: the one of the other family in a dual-stack lab, else "".
    """

    name: str
    role: Role
    address: str
    secondary: str = ""

    @property
    def is_node(self) -> bool:
        """Whether the host is a Kubernetes node."""
        return self.role in ("control-plane", "worker")


@dataclass(frozen=True)
class Completed:
    """A command that has ended: exit code (128 + signal number when killed by one) and all it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output, decoded."""
        return self.stdout.decode(errors="replace")


class Background(Protocol):
    """A program started with LabHandle.start."""

    def wait(self, timeout: float | None = None) -> Completed:
        """Wait for its end; raises TimeoutError after timeout seconds, the program then still runs."""
        ...

    def stop(self) -> Completed:
        """SIGTERM, then SIGKILL when it does not end; does nothing more on one that has ended."""
        ...


class LabHandle(Protocol):
    """A running lab. Methods may be called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def state_dir(self) -> Path:
        """Of this process's side alone: no host of the lab sees it."""
        ...

    @property
    def kubeconfig(self) -> Path: ...

    @property
    def spec(self) -> LabSpec: ...

    def hosts(self) -> Sequence[Host]: ...

    def exec(
        self,
        target: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Completed:
        """Run a command to its end; raises TimeoutError (the command is killed), LookupError: no such target."""
        ...

    def start(
        self,
        target: str,
        *,
        main: str = "",
        args: Sequence[str] = (),
        argv: Sequence[str] = (),
        fds: Mapping[int, int] | None = None,
    ) -> Background:
        """Start a Python function (main="package.module:function", given args as a list) or a command (argv).

        fds: number in the program -> open descriptor here, from which it inherits.

        A function runs forked from the lab's fork server, inside the target's network, mount and UTS
        namespaces; the module is imported before a pod's root file system is entered.
        """
        ...

    def component(self, name: str, host: str, action: ComponentAction) -> None:
        """kill: SIGKILL and leave it down; stop: SIGTERM and leave it down; start: start it again."""
        ...


class LabFactory(Protocol):
    """Brings a lab up on entering and tears it down on leaving, whatever happened in between.

    May have missing(feature) -> str: why labs here cannot do what a scenario requires, "" when they can
    (kubewire.scenarios.engine.events.options.MissingFeature); the pytest plugin asks it.
    """

    def __call__(self, spec: LabSpec, name: str) -> AbstractContextManager[LabHandle]: ...
