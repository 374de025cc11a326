"""What a pod needs of its node: requests of resources, and ports. Pure.

The scheduler chooses a node by it, and the kubelet admits the pod by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kubewire.components.kubeapi.amounts import Amount
from kubewire.components.kubeapi.quantity import milli_value, value

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, PodSpec

_SIDECAR = "Always"

#: A number of units, or an exact amount.
N = TypeVar("N", int, Amount)
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

    Requests on the level of the pod override those of its containers.
    """
    running = together(spec, lambda container: _requests(container, defaults))
    pod_level = (spec.get("resources") or {}).get("requests") or {}
    running |= {key: amount(key, quantity) for key, quantity in pod_level.items()}
    _add(
        running,
        {key: amount(key, quantity) for key, quantity in (spec.get("overhead") or {}).items()},
    )
    return running


def together(spec: Mapping[str, Any], own: Callable[[Any], dict[str, N]]) -> dict[str, N]:
    """What the containers of a pod need, given what each needs alone.

    It is the larger of what they need together and what any init container needs while the
    sidecars started before it run
    (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/).
    """
    running: dict[str, N] = {}
    for container in spec.get("containers") or []:
        _add(running, own(container))
    sidecars: dict[str, N] = {}
    peak: dict[str, N] = {}
    for container in spec.get("initContainers") or []:
        needed = own(container)
        if container.get("restartPolicy") == _SIDECAR:
            _add(sidecars, needed)
            _add(running, needed)
            needed = {}
        beside = dict(sidecars)
        _add(beside, needed)
        _raise(peak, beside)
    _raise(running, peak)
    return running


def _requests(container: Container, defaults: Mapping[str, int]) -> Requests:
    given = (container.get("resources") or {}).get("requests") or {}
    return {**defaults, **{key: amount(key, quantity) for key, quantity in given.items()}}


def _add(total: dict[str, N], more: Mapping[str, N]) -> None:
    for key, number in more.items():
        total[key] = total[key] + number if key in total else number


def _raise(total: dict[str, N], floor: Mapping[str, N]) -> None:
    for key, number in floor.items():
        if key not in total or number > total[key]:
            total[key] = number


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
