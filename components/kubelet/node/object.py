"""Renders the Node object from measured facts. Pure, except for measure()."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.configuration import Settings

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ContainerImage,
        Node,
        NodeAddress,
        NodeCondition,
        NodeSpec,
        NodeStatus,
        Taint,
    )

KUBELET_VERSION = "v1.36.2"
RUNTIME_VERSION = "kubewire://1.0.0"


def network_not_ready(problem: str) -> str:
    """containerd's text for a network that is not ready. problem: the reason in the CNI's words."""
    return (
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
        f"message:Network plugin returns error: {problem}"
    )


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True)
class Machine:
    """Facts measured once at the start. memory and storage are in bytes."""

    cpus: int
    memory: int
    storage: int
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str


def measure(storage_of: Path) -> Machine:
    """Reads /proc, /etc/os-release and the file system that holds storage_of."""
    system = os.uname()
    usage = os.statvfs(storage_of)
    boot_id = _text("/proc/sys/kernel/random/boot_id")
    machine_id = _text("/etc/machine-id") or boot_id.replace("-", "")
    return Machine(
        os.cpu_count() or 1,
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        usage.f_blocks * usage.f_frsize,
        machine_id,
        _text("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id,
        system.release,
        _os_image(),
        _ARCHITECTURES.get(system.machine, system.machine),
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def capacity(machine: Machine, max_pods: int) -> dict[str, str]:
    """The node's capacity. Nothing is reserved, so these are also its allocatable amounts."""
    return {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory // 1024}Ki",
        "ephemeral-storage": f"{machine.storage // 1024}Ki",
        "hugepages-2Mi": "0",
        "pods": str(max_pods),
    }


def labels(settings: Settings, machine: Machine) -> dict[str, str]:
    return {
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": settings.node_name,
        **settings.node_labels,
    }


def node_object(settings: Settings, machine: Machine) -> Node:
    """The Node that registration creates, without its status."""
    spec: NodeSpec = {}
    if settings.taints:
        spec["taints"] = [_taint(item.key, item.value, item.effect) for item in settings.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.node_name,
            "labels": labels(settings, machine),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
    }


def _taint(key: str, value: str, effect: str) -> Taint:
    return (
        {"key": key, "effect": effect, "value": value} if value else {"key": key, "effect": effect}
    )


@dataclass(frozen=True)
class Health:
    """problems: why the node is not ready, in upstream's words; empty if it is ready."""

    problems: Sequence[str] = ()


#: type -> (reason, message) of the conditions that are False on a healthy node.
_PRESSURES = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def node_conditions(
    health: Health,
    old: Sequence[NodeCondition],
    now: float,
) -> list[NodeCondition]:
    """The conditions; lastTransitionTime is kept while a condition's status does not change."""
    pressures = _PRESSURES.items()
    conditions = [_condition(kind, "False", reason, text) for kind, (reason, text) in pressures]
    if health.problems:
        message = ", ".join(health.problems)
        listed = f"[{message}]" if len(health.problems) > 1 else message
        conditions.append(_condition("Ready", "False", "KubeletNotReady", listed))
    else:
        text = "kubelet is posting ready status"
        conditions.append(_condition("Ready", "True", "KubeletReady", text))
    stamp = pods.format_time(now)
    before = {item["type"]: item for item in old}
    for item in conditions:
        known = before.get(item["type"])
        item["lastTransitionTime"] = stamp
        if known is not None and known["status"] == item["status"]:
            item["lastTransitionTime"] = known.get("lastTransitionTime", stamp)
        item["lastHeartbeatTime"] = stamp
    return conditions


def _condition(kind: str, status: str, reason: str, message: str) -> NodeCondition:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def node_status(
    settings: Settings,
    machine: Machine,
    health: Health,
    images: Sequence[ContainerImage],
    old: NodeStatus,
    now: float,
) -> NodeStatus:
    """The fields of Node.status that the kubelet owns."""
    addresses: list[NodeAddress] = [
        {"type": "InternalIP", "address": ip} for ip in settings.node_ips
    ]
    addresses.append({"type": "Hostname", "address": settings.node_name})
    amounts = capacity(machine, settings.max_pods)
    return {
        "addresses": addresses,
        "capacity": amounts,
        "allocatable": {**amounts, "ephemeral-storage": str(machine.storage)},
        "conditions": node_conditions(health, old.get("conditions") or [], now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "images": list(images),
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": RUNTIME_VERSION,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
    }


def status_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether more than heartbeats differs, so that the status must be written at once."""

    def plain(status: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: status.get(key) for key in new}
        kept["conditions"] = {
            item["type"]: {key: held for key, held in item.items() if key != "lastHeartbeatTime"}
            for item in status.get("conditions") or []
            if item["type"] in (*_PRESSURES, "Ready")
        }
        return kept

    return plain(old) != plain(new)
