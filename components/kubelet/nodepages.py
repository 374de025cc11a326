"""Pages about the node on port 10250: /configz, /metrics/cadvisor and the files of /logs/.

`kubectl get --raw /api/v1/nodes/NAME/proxy/PATH` shows them.
"""

from __future__ import annotations

import dataclasses
import html
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kubewire.components.base.golang import format_duration
from kubewire.components.base.prometheus import Registry
from kubewire.components.kubelet import configuration, pods
from kubewire.components.kubelet.configuration import Settings
from kubewire.components.kubelet.node.object import Machine
from kubewire.components.kubelet.pod.worker import PodWorker

_MIB = 1 << 20


def configz(settings: Settings) -> dict[str, Any]:
    """The KubeletConfiguration in effect, from its file, the flags and the defaults."""
    body: dict[str, Any] = {}
    for key, (field, parse) in configuration.FIELDS.items():
        inner = body
        *parents, last = key.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = _shown(key, getattr(settings, field), parse)
    kind = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    return {"kubeletconfig": {**body, **kind}}


def _shown(key: str, value: Any, parse: Any) -> Any:
    if key == "crashLoopBackOff.maxContainerRestartPeriod":
        return format_duration(value.maximum)
    if key == "registerWithTaints":
        return [dataclasses.asdict(taint) for taint in value]
    if key == "containerRuntimeEndpoint":
        return f"unix://{value}"
    if key == "containerLogMaxSize":
        return f"{value // _MIB}Mi" if value % _MIB == 0 else str(value)
    if parse is configuration.duration:
        return format_duration(value)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


#: Metric -> its help and the keys of a container's stats that it shows.
_OF_CONTAINERS: Mapping[str, tuple[str, str, str]] = {
    "container_cpu_usage_seconds_total": (
        "Cumulative cpu time consumed in seconds.", "cpu", "usageCoreNanoSeconds"),
    "container_memory_working_set_bytes": (
        "Current working set in bytes.", "memory", "workingSetBytes"),
    "container_memory_rss": ("Size of RSS in bytes.", "memory", "rssBytes"),
}  # fmt: skip
_OF_NETWORKS: Mapping[str, tuple[str, str]] = {
    "container_network_receive_bytes_total": ("Cumulative count of bytes received", "rxBytes"),
    "container_network_receive_errors_total": (
        "Cumulative count of errors encountered while receiving", "rxErrors"),
    "container_network_transmit_bytes_total": (
        "Cumulative count of bytes transmitted", "txBytes"),
    "container_network_transmit_errors_total": (
        "Cumulative count of errors encountered while transmitting", "txErrors"),
}  # fmt: skip
_CONTAINER_LABELS = ("container", "id", "image", "name", "namespace", "pod")
_NETWORK_LABELS = ("id", "image", "interface", "name", "namespace", "pod")


def cadvisor(workers: Iterable[PodWorker], stats: Mapping[str, Any], machine: Machine) -> str:
    """/metrics/cadvisor. stats: /stats/summary of the same workers."""
    registry = Registry()
    registry.gauge("machine_cpu_cores", "Number of logical CPU cores.").set(machine.cpus)
    memory = registry.gauge("machine_memory_bytes", "Amount of memory installed on the machine.")
    memory.set(machine.memory)
    started = registry.gauge(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        *_CONTAINER_LABELS,
    )
    by_uid = {entry["podRef"]["uid"]: entry for entry in stats["pods"]}
    listed = [(worker, by_uid.get(worker.state.uid, {})) for worker in workers]
    for worker, pod_stats in listed:
        own = {entry["name"]: entry for entry in pod_stats.get("containers", ())}
        for record in worker.state.record.running():
            pod = worker.state.pod
            where = (pods.namespace(pod), pods.name(pod))
            labels = (record.name, f"/{record.id}", record.image, record.id, *where)
            started.set(record.started_at, *labels)
            _count_container(registry, own.get(record.name, {}), labels)
    for worker, pod_stats in listed:
        _count_network(registry, worker, pod_stats.get("network") or {})
    return registry.text()


def _count_container(registry: Registry, stats: Mapping[str, Any], labels: tuple[str, ...]) -> None:
    for name, (text, part, key) in _OF_CONTAINERS.items():
        value = (stats.get(part) or {}).get(key)
        if value is None:
            continue
        if name.endswith("_total"):
            registry.counter(name, text, *_CONTAINER_LABELS).inc(*labels, by=value / 1e9)
        else:
            registry.gauge(name, text, *_CONTAINER_LABELS).set(value, *labels)


def _count_network(registry: Registry, worker: PodWorker, stats: Mapping[str, Any]) -> None:
    sandbox = worker.state.record.sandbox
    if sandbox is None or "rxBytes" not in stats:
        return
    pod = worker.state.pod
    identity = (f"/{sandbox.id}", "", stats["name"], sandbox.id)
    labels = (*identity, pods.namespace(pod), pods.name(pod))
    for name, (text, key) in _OF_NETWORKS.items():
        registry.counter(name, text, *_NETWORK_LABELS).inc(*labels, by=stats[key])


def listing(folder: Path) -> str:
    """The page of a directory, as Go's http.FileServer makes it. Raises OSError."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    links = (f'<a href="{urllib.parse.quote(name)}">{html.escape(name)}</a>\n' for name in names)
    return f"<pre>\n{''.join(links)}</pre>\n"


def log_file(root: Path, relative: str) -> Path | None:
    """The file or directory of a path below root; None for one that leads out of it by "..".
    Links are followed, as those of /var/log/containers must be."""
    if ".." in Path(relative).parts:
        return None
    path = root / relative.lstrip("/")
    return path if path.exists() else None
