"""The lab as scenarios see it: protocols that kubewire.lab implements and the engine uses.

`scenarios` never imports `lab`, so the engine can be tested with a fake lab. Everything that a
scenario does to a running lab goes through these protocols, and through the Kubernetes API that
`LabHandle.kubeconfig` names.

A target is the name of a host ("worker-1", "router", "client") or "pod:NAMESPACE/NAME[/CONTAINER]".
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
    """One machine of the topology.

    address: its address in the lab's primary IP family, without prefix length ("172.18.0.3").
    secondary: its address in the other family in a dual-stack lab, else "".
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
    """A command that has ended: its exit code (128 + N if signal N killed it) and its output."""

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
        """Waits until the program ends. Raises TimeoutError after timeout seconds; the program goes
        on then."""
        ...

    def stop(self) -> Completed:
        """Ends the program with SIGTERM, and with SIGKILL if it does not end. Idempotent."""
        ...


class LabHandle(Protocol):
    """A running lab. Methods may be called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def state_dir(self) -> Path:
        """The state directory on the machine's side; no host of the lab sees it."""
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
        """Runs a command to its end. Raises TimeoutError, after killing the command, and
        LookupError if the target does not exist."""
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
        """Starts a command (argv) or a Python function (main="package.module:function", which gets
        args as a list).

        fds: descriptor number in the program -> open descriptor of this process that it inherits.

        A function runs in a fork of the lab's fork server, in the target's network, mount and UTS
        namespaces. Its module is imported before a pod's root file system is entered.
        """
        ...

    def component(self, name: str, host: str, action: ComponentAction) -> None:
        """Ends a component with SIGKILL (kill) or SIGTERM (stop), or starts it again (start). A
        component that was ended stays down until it is started."""
        ...


class LabFactory(Protocol):
    """Makes a context that starts a lab on entering and ends it on leaving, in every case.

    A factory may have a method missing(feature) -> str (events/options.py, MissingFeature), which
    says why labs here lack a feature that a scenario requires; the pytest plugin calls it.
    """

    def __call__(self, spec: LabSpec, name: str) -> AbstractContextManager[LabHandle]: ...
