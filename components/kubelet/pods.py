"""Accessors for Pod objects, shared by all parts of the kubelet.

The kubelet keeps pods as the decoded JSON that the API server sent, with its defaults applied, and
makes no second copy of them. These functions name the fields that the kubelet reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.quantity import parse_quantity

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, EphemeralContainer, Pod, Probe

#: Kubernetes' default for spec.terminationGracePeriodSeconds.
DEFAULT_GRACE_PERIOD = 30


def uid(pod: Pod) -> str:
    return str(pod["metadata"]["uid"])


def name(pod: Pod) -> str:
    return str(pod["metadata"]["name"])


def namespace(pod: Pod) -> str:
    return str(pod["metadata"].get("namespace", "default"))


def full_name(pod: Pod) -> str:
    """NAME_NAMESPACE, the form of upstream's logs and runtime names."""
    return f"{name(pod)}_{namespace(pod)}"


def containers(pod: Pod) -> list[Container]:
    return pod["spec"].get("containers") or []


def init_containers(pod: Pod) -> list[Container]:
    return pod["spec"].get("initContainers") or []


def ephemeral_containers(pod: Pod) -> list[EphemeralContainer]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Pod) -> Iterator[Container]:
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def container(pod: Pod, container_name: str) -> Container | None:
    return next((item for item in all_containers(pod) if item["name"] == container_name), None)


def is_sidecar(item: Container) -> bool:
    """Whether an init container is a sidecar: one with restartPolicy Always (KEP-753)."""
    return item.get("restartPolicy") == "Always"


def restart_policy(pod: Pod) -> str:
    return str(pod["spec"].get("restartPolicy") or "Always")


def host_network(pod: Pod) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def deletion_requested(pod: Pod) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def grace_period(pod: Pod) -> int:
    """The seconds between SIGTERM and SIGKILL: those of the deletion, else those of the pod."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        return int(deletion)
    own = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_PERIOD if own is None else int(own)


def is_static(pod: Pod) -> bool:
    source = (pod["metadata"].get("annotations") or {}).get("kubernetes.io/config.source")
    return source is not None and source != "api"


def is_mirror(pod: Pod) -> bool:
    return "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})


def is_terminal(pod: Pod) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def probes(item: Container) -> dict[str, Probe]:
    """The container's probes by their kinds: startup, readiness and liveness, in this order."""
    given = {
        "startup": item.get("startupProbe"),
        "readiness": item.get("readinessProbe"),
        "liveness": item.get("livenessProbe"),
    }
    return {kind: probe for kind, probe in given.items() if probe}


def parse_time(text: str) -> datetime:
    """Parses RFC 3339 as the API writes it: 2026-01-02T03:04:05Z, with or without a fraction."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def format_time(moment: float) -> str:
    """Seconds since the epoch -> RFC 3339 in whole seconds, as metav1.Time."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_QOS_RESOURCES = ("cpu", "memory")


def qos_class(pod: Pod) -> str:
    """status.qosClass: Guaranteed, Burstable or BestEffort, by cpu and memory of all containers."""
    requests: dict[str, Decimal] = {}
    limits: dict[str, Decimal] = {}
    guaranteed = True
    for item in (*init_containers(pod), *containers(pod)):
        resources = item.get("resources") or {}
        own_limits = _sized(resources.get("limits"))
        # A missing request defaults to the limit.
        own_requests = {**own_limits, **_sized(resources.get("requests"))}
        guaranteed = guaranteed and len(own_limits) == len(_QOS_RESOURCES)
        for total, own in ((requests, own_requests), (limits, own_limits)):
            for resource, amount in own.items():
                total[resource] = total.get(resource, Decimal(0)) + amount
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed and requests == limits else "Burstable"


def _sized(resources: dict[str, str] | None) -> dict[str, Decimal]:
    given = resources or {}
    sizes = {key: parse_quantity(given[key]) for key in _QOS_RESOURCES if key in given}
    return {key: value for key, value in sizes.items() if value}
