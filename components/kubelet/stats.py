"""/stats/summary, with the figures that /proc has per process, because containers have no cgroups
(https://kubernetes.io/docs/reference/instrumenting/node-metrics/)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.pod.worker import PodWorker
from kubewire.components.kubelet.records import ContainerRecord

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def summary(node_name: str, workers: Iterable[PodWorker], now: float) -> dict[str, Any]:
    """A statsapi.Summary of the pods; a container is represented by its first process only."""
    stamp = pods.format_time(now)
    return {
        "node": {"nodeName": node_name, "memory": _node_memory(stamp)},
        "pods": [_pod(worker, stamp) for worker in workers],
    }


def _node_memory(stamp: str) -> dict[str, Any]:
    table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    amounts = {key: int(table[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable")}
    return {
        "time": stamp,
        "availableBytes": amounts["MemAvailable"],
        "workingSetBytes": amounts["MemTotal"] - amounts["MemAvailable"],
    }


def _pod(worker: PodWorker, stamp: str) -> dict[str, Any]:
    pod = worker.state.pod
    sandbox = worker.state.record.sandbox
    stats: dict[str, Any] = {
        "podRef": {
            "name": pods.name(pod),
            "namespace": pods.namespace(pod),
            "uid": pods.uid(pod),
        },
        "startTime": stamp,
        "containers": [_container(record, stamp) for record in worker.state.record.running()],
    }
    if sandbox and sandbox.netns and sandbox.pid:
        stats["network"] = {"time": stamp, **_interface(sandbox.pid)}
    return stats


def _container(record: ContainerRecord, stamp: str) -> dict[str, Any]:
    stats: dict[str, Any] = {
        "name": record.name,
        "startTime": pods.format_time(record.started_at),
    }
    try:
        # The second field, the program's name in parentheses, may itself contain spaces (proc(5)).
        fields = Path(f"/proc/{record.pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return stats
    seconds = (int(fields[11]) + int(fields[12])) / _TICK
    resident = int(fields[21]) * _PAGE
    stats["cpu"] = {"time": stamp, "usageCoreNanoSeconds": int(seconds * 1e9)}
    stats["memory"] = {"time": stamp, "workingSetBytes": resident, "rssBytes": resident}
    return stats


def _interface(pid: int) -> dict[str, Any]:
    """The counters of eth0 in the network namespace of the process."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() == "eth0":
            counters = numbers.split()
            return {
                "name": "eth0",
                "rxBytes": int(counters[0]),
                "rxErrors": int(counters[2]),
                "txBytes": int(counters[8]),
                "txErrors": int(counters[10]),
            }
    return {}
