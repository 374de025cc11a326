"""What the kubelet knows about a pod's processes, as the runtime last reported it.

Records are frozen: a change makes a new record. Plan and status are therefore computed from one
consistent state, even if a process ends meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTAINER_ID_PREFIX = "kubewire://"


@dataclass(frozen=True)
class SandboxRecord:
    """A sandbox: the pause process and the network namespace pinned for it.

    created_at: seconds since 1970, as all times here. netns: "" on the host network.
    """

    id: str
    attempt: int
    netns: str
    ips: tuple[str, ...]
    created_at: float
    pid: int = 0
    ready: bool = True


@dataclass(frozen=True)
class ContainerRecord:
    """A run of a container. exit_code: None while it runs. signal: 0 for a normal exit."""

    name: str
    id: str
    image: str
    image_id: str
    attempt: int
    sandbox_id: str
    spec_hash: str
    created_at: float
    started_at: float
    pid: int = 0
    finished_at: float = 0.0
    exit_code: int | None = None
    signal: int = 0
    reason: str = ""
    message: str = ""

    @property
    def running(self) -> bool:
        return self.exit_code is None

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0

    @property
    def container_id(self) -> str:
        return CONTAINER_ID_PREFIX + self.id


@dataclass(frozen=True)
class Waiting:
    """Why a container does not run, for example ContainerCreating or CrashLoopBackOff."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class PodRecord:
    """A pod's sandbox, and each container's latest run and the run before."""

    sandbox: SandboxRecord | None = None
    current: Mapping[str, ContainerRecord] = field(default_factory=dict)
    previous: Mapping[str, ContainerRecord] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)

    @property
    def ips(self) -> tuple[str, ...]:
        return self.sandbox.ips if self.sandbox else ()

    def running(self) -> list[ContainerRecord]:
        return [record for record in self.current.values() if record.running]


@dataclass(frozen=True)
class ProbeView:
    """The latest probe results by container name. A name is missing without a probe or a result."""

    started: Mapping[str, bool] = field(default_factory=dict)
    ready: Mapping[str, bool] = field(default_factory=dict)
    alive: Mapping[str, bool] = field(default_factory=dict)

    def failed(self, names: Iterable[str]) -> list[str]:
        """The containers that must be restarted: their liveness or startup probe has failed."""
        dead = (self.alive, self.started)
        return [name for name in names if any(view.get(name) is False for view in dead)]
