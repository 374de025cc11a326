"""What a pod needs of its node: requests of resources, and ports. Pure.

The scheduler chooses a node by it, and the kubelet admits the pod by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.quantity import milli_value, value

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, PodSpec

_SIDECAR = "Always"

#: Resource -> amount: milli-units of cpu, whole units of everything else.
Requests = dict[str, int]


@dataclass(frozen=True)
class HostPort:
    """A port on the node that a container asks for."""

    protocol: str
    address: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        """Whether both need the same port; the address 0.0.0.0 takes it on every address."""
        if (self.protocol, self.port) != (other.protocol, other.port):
            return False
        return self.address == other.address or "0.0.0.0" in (self.address, other.address)


def amount(resource: str, quantity: str | int) -> int:
    return milli_value(quantity) if resource == "cpu" else value(quantity)


def total_requests(spec: PodSpec, defaults: Mapping[str, int]) -> Requests:
    """Sums the requests of a pod as the kubelet and upstream's scheduler do.

    The result is the larger of what the containers need together and what any init container needs
    while the sidecars started before it run, plus the overhead. Requests on the level of the pod
    override it (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/).
    """
    running: Requests = {}
    for container in spec.get("containers") or []:
        _add(running, _requests(container, defaults))
    sidecars: Requests = {}
    peak: Requests = {}
    for container in spec.get("initContainers") or []:
        own = _requests(container, defaults)
        if container.get("restartPolicy") == _SIDECAR:
            _add(sidecars, own)
            _add(running, own)
            own = {}
        _raise(peak, {key: own.get(key, 0) + sidecars.get(key, 0) for key in {*own, *sidecars}})
    _raise(running, peak)
    pod_level = (spec.get("resources") or {}).get("requests") or {}
    running |= {key: amount(key, quantity) for key, quantity in pod_level.items()}
    _add(
        running,
        {key: amount(key, quantity) for key, quantity in (spec.get("overhead") or {}).items()},
    )
    return running


def _requests(container: Container, defaults: Mapping[str, int]) -> Requests:
    given = (container.get("resources") or {}).get("requests") or {}
    return {**defaults, **{key: amount(key, quantity) for key, quantity in given.items()}}


def _add(total: Requests, more: Mapping[str, int]) -> None:
    for key, number in more.items():
        total[key] = total.get(key, 0) + number


def _raise(total: Requests, floor: Mapping[str, int]) -> None:
    for key, number in floor.items():
        total[key] = max(total.get(key, 0), number)


def host_ports(spec: PodSpec) -> tuple[HostPort, ...]:
    init = spec.get("initContainers") or []
    sidecars = [item for item in init if item.get("restartPolicy") == _SIDECAR]
    ports = [
        port
        for item in [
            *(spec.get("containers") or []),
            *sidecars,
        ]
        for port in item.get("ports") or []
    ]
    return tuple(
        HostPort(
            port.get("protocol", "TCP"),
            port.get("hostIP") or "0.0.0.0",
            int(port["hostPort"]),
        )
        for port in ports
        if port.get("hostPort")
    )
