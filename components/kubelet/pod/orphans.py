"""What an earlier kubelet left running: to be adopted when its pod is still wanted, else ended and given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from kubewire.components.kubelet.pod import launch
from kubewire.components.kubelet.pod.network import PodNetwork, SandboxNetworkError
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.setup import tear_down
from kubewire.components.runtime.api import AsyncRuntimeClient, Process, RuntimeApiError

log = logging.getLogger(__name__)


def by_pod(processes: Iterable[Process]) -> dict[str, list[Process]]:
    """uid -> its processes, oldest first."""
    found: dict[str, list[Process]] = {}
    for process in sorted(processes, key=lambda item: item.started_at):
        if uid := launch.pod_uid(process):
            found.setdefault(uid, []).append(process)
    return found


def sandboxes(processes: Iterable[Process]) -> dict[str, str]:
    """Sandbox id -> the path of its network namespace."""
    records = [launch.sandbox_record(process) for process in processes if launch.is_sandbox(process)]
    return {record.id: record.netns for record in records}


async def end_pod(
    uid: str,
    processes: list[Process],
    runtime: AsyncRuntimeClient,
    network: PodNetwork,
    directories: Directories,
) -> None:
    """Kill, CNI DEL, unmount, remove: for a pod that was deleted while no kubelet was there to see it."""
    for process in sorted(processes, key=launch.is_sandbox):
        if launch.is_sandbox(process):
            record = launch.sandbox_record(process)
            try:
                if record.netns:
                    await network.detach(record.id, Path(record.netns))
            except SandboxNetworkError as error:
                log.warning("orphaned pod %s: %s", uid, error)
        try:
            await runtime.remove(process.id, force=True)
        except RuntimeApiError as error:
            log.warning("orphaned pod %s: %s", uid, error)
    tear_down(uid, directories)


async def end_unwanted(
    found: Mapping[str, list[Process]],
    wanted: frozenset[str],
    runtime: AsyncRuntimeClient,
    network: PodNetwork,
    directories: Directories,
) -> None:
    """All pods of found that are not wanted, at the same time; and directories of pods that left no process."""
    gone = [uid for uid in found if uid not in wanted]
    await asyncio.gather(*(end_pod(uid, found[uid], runtime, network, directories) for uid in gone))
    base = directories.root / "pods"
    for path in base.iterdir() if base.is_dir() else ():
        if path.name not in wanted:
            tear_down(path.name, directories)
