"""The processes that an earlier kubelet left running.

Processes whose pod still exists are adopted (pod/state.py). The others are ended here, and their
addresses and directories are freed.
"""

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
    """Groups processes: pod uid -> its processes, oldest first."""
    groups: dict[str, list[Process]] = {}
    for process in sorted(processes, key=lambda item: item.started_at):
        if uid := launch.pod_uid(process):
            groups.setdefault(uid, []).append(process)
    return groups


def sandboxes(processes: Iterable[Process]) -> dict[str, str]:
    """The sandboxes among the processes: sandbox id -> path of its network namespace."""
    pauses = [process for process in processes if launch.is_sandbox(process)]
    records = [launch.sandbox_record(process) for process in pauses]
    return {record.id: record.netns for record in records}


async def end_pod(
    uid: str,
    processes: list[Process],
    runtime: AsyncRuntimeClient,
    network: PodNetwork,
    directories: Directories,
) -> None:
    """Ends a pod that was deleted while no kubelet ran, and frees its address and directory."""
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
    left_behind: Mapping[str, list[Process]],
    wanted: frozenset[str],
    runtime: AsyncRuntimeClient,
    network: PodNetwork,
    directories: Directories,
) -> None:
    """Ends all pods that are not wanted, at the same time, and removes their directories.

    Directories of unwanted pods that left no process behind are removed as well.
    """
    await asyncio.gather(
        *(
            end_pod(uid, processes, runtime, network, directories)
            for uid, processes in left_behind.items()
            if uid not in wanted
        )
    )
    base = directories.root / "pods"
    for path in base.iterdir() if base.is_dir() else ():
        if path.name not in wanted:
            tear_down(path.name, directories)
