"""/stats/summary (https://kubernetes.io/docs/reference/instrumenting/node-metrics/).

The usage of a node is that of its containers: all nodes of a lab share the machine's memory and
processors, so the machine's own figures would be the same for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.pod.worker import PodWorker
from kubewire.components.kubelet.records import ContainerRecord
from kubewire.components.kubelet.usage import Meter, Process, read


def processes(workers: Iterable[PodWorker]) -> list[Process]:
    """The running containers of all pods."""
    return [_process(record) for worker in workers for record in worker.state.record.running()]


def _process(record: ContainerRecord) -> Process:
    return Process(record.id, record.pid, record.started_at)


def summary(
    node_name: str,
    workers: Iterable[PodWorker],
    meter: Meter,
    now: float,
) -> dict[str, Any]:
    """A statsapi.Summary of the node and its pods."""
    stamp = pods.format_time(now)
    listed = [_pod(worker, meter, stamp, now) for worker in workers]
    node: dict[str, Any] = {"nodeName": node_name}
    node |= _total([item for pod in listed for item in pod["containers"]], stamp)
    node["memory"]["availableBytes"] = _available()
    return {"node": node, "pods": listed}


def _available() -> int:
    table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(table["MemAvailable"].split()[0]) * 1024


def _total(containers: Iterable[dict[str, Any]], stamp: str) -> dict[str, Any]:
    sums = {"usageNanoCores": 0, "usageCoreNanoSeconds": 0, "workingSetBytes": 0, "rssBytes": 0}
    for container in containers:
        figures = {**container.get("cpu", {}), **container.get("memory", {})}
        sums = {key: number + figures.get(key, 0) for key, number in sums.items()}
    cpu = {key: sums[key] for key in ("usageNanoCores", "usageCoreNanoSeconds")}
    memory = {key: sums[key] for key in ("workingSetBytes", "rssBytes")}
    return {"cpu": {"time": stamp, **cpu}, "memory": {"time": stamp, **memory}}


def _pod(worker: PodWorker, meter: Meter, stamp: str, now: float) -> dict[str, Any]:
    pod = worker.state.pod
    sandbox = worker.state.record.sandbox
    stats: dict[str, Any] = {
        "podRef": {
            "name": pods.name(pod),
            "namespace": pods.namespace(pod),
            "uid": pods.uid(pod),
        },
        "startTime": stamp,
    }
    running = worker.state.record.running()
    stats["containers"] = [_container(record, meter, stamp, now) for record in running]
    stats |= _total(stats["containers"], stamp)
    if sandbox and sandbox.netns and sandbox.pid:
        stats["network"] = {"time": stamp, **_interface(sandbox.pid)}
    return stats


def _container(
    record: ContainerRecord,
    meter: Meter,
    stamp: str,
    now: float,
) -> dict[str, Any]:
    stats: dict[str, Any] = {
        "name": record.name,
        "startTime": pods.format_time(record.started_at),
    }
    usage = read(record.pid)
    if usage is None:
        return stats
    rate = meter.rate(_process(record), usage.cpu, now)
    stats["cpu"] = {"time": stamp, "usageNanoCores": rate, "usageCoreNanoSeconds": usage.cpu}
    stats["memory"] = {
        "time": stamp,
        "workingSetBytes": usage.memory,
        "rssBytes": usage.memory,
    }
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
