"""A pod as its worker sees it: the object, the record of its processes, and how they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.backoff import Backoff
from kubewire.components.kubelet.pod import launch
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, SandboxRecord, Waiting
from kubewire.components.runtime.api import Process

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod


@dataclass
class PodState:
    """A pod's state. record is replaced and never changed, so that readers see a consistent one."""

    pod: Pod
    record: PodRecord = field(default_factory=PodRecord)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    #: The runs that the runtime still remembers: container name -> runtime ids, oldest first.
    kept: dict[str, list[str]] = field(default_factory=dict)
    #: Sandbox id -> runtime id of its pause process.
    pauses: dict[str, str] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return pods.uid(self.pod)

    def set_sandbox(self, sandbox: SandboxRecord | None, process_id: str = "") -> None:
        self.record = replace(self.record, sandbox=sandbox)
        if sandbox and process_id:
            self.pauses[sandbox.id] = process_id

    def sandbox_ended(self) -> None:
        if self.record.sandbox:
            dead = replace(self.record.sandbox, ready=False, pid=0)
            self.record = replace(self.record, sandbox=dead)

    def started(self, current: ContainerRecord) -> None:
        """Records a new run of a container; the run before becomes its lastState."""
        before = self.record.current.get(current.name)
        previous = dict(self.record.previous)
        if before is not None:
            previous[current.name] = before
        runs = {**self.record.current, current.name: current}
        self.record = replace(self.record, current=runs, previous=previous)
        self.kept.setdefault(current.name, []).append(current.id)
        self.set_waiting(current.name, None)

    def ended(self, finished: ContainerRecord) -> None:
        known = self.record.current.get(finished.name)
        if known is not None and known.id == finished.id and known.running:
            runs = {**self.record.current, finished.name: finished}
            self.record = replace(self.record, current=runs)

    def set_waiting(self, name: str, waiting: Waiting | None) -> None:
        if self.record.waiting.get(name) == waiting:
            return
        table = dict(self.record.waiting)
        table.pop(name, None)
        if waiting:
            table[name] = waiting
        self.record = replace(self.record, waiting=table)

    def forgettable(self, name: str) -> list[str]:
        """Takes the runs before the previous one off the list, and returns their runtime ids."""
        ids = self.kept.get(name, [])
        old = ids[:-2]
        self.kept[name] = ids[-2:]
        return old


def adopt(
    pod: Pod,
    processes: list[Process],
    messages: Mapping[str, str] | None = None,
) -> PodState:
    """The state of a pod that an earlier kubelet ran. processes: as the runtime lists them, oldest
    first. messages: runtime id -> termination message."""
    state = PodState(pod)
    for process in processes:
        if launch.is_sandbox(process):
            state.set_sandbox(launch.sandbox_record(process), process.id)
        elif launch.container_name(process):
            state.started(launch.container_record(process, (messages or {}).get(process.id, "")))
    return state
