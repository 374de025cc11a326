"""Makes Services and endpoints for benchmarks, in kube-proxy's model and as API objects."""

from __future__ import annotations

import asyncio
from typing import Any

from kubewire.components.kube_proxy.state.model import (
    Endpoint,
    Node,
    ServicePort,
    ServicePortName,
    State,
)
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NAMESPACES, SERVICES

PODS = "10.128.0.0/9"
NODE = Node("node1", ("172.18.0.3",))
#: Numbers of Services start here: ClusterIPs before belong to the cluster.
FIRST = 256


def cluster_ip(number: int) -> str:
    return f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def pod_ip(number: int) -> str:
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def changed_ip(turn: int) -> str:
    """An address of a pod that no Service selects yet."""
    return f"10.250.{turn >> 8 & 255}.{turn & 255}"


def pods_of(service: int, endpoints: int) -> list[str]:
    return [pod_ip(pod) for pod in range(service * endpoints, service * endpoints + endpoints)]


def state(services: int, endpoints: int) -> State:
    names = {
        ServicePortName("ns", f"svc-{number}", "http"): number
        for number in range(FIRST, FIRST + services)
    }
    return State(
        {name: ServicePort(cluster_ip(number), 80, "tcp") for name, number in names.items()},
        {
            name: tuple(
                Endpoint(ip, 8080, f"node{place % 50}")
                for place, ip in enumerate(pods_of(number, endpoints))
            )
            for name, number in names.items()
        },
        NODE,
    )


def slice_of(number: int, addresses: list[str]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"svc-{number}-1",
            "namespace": "ns",
            "labels": {"kubernetes.io/service-name": f"svc-{number}"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}} for address in addresses
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


async def fill(client: Client, services: int, endpoints: int) -> None:
    """Creates Services, each with an EndpointSlice, in the namespace ns."""
    await client.create(NAMESPACES, {"metadata": {"name": "ns"}})
    numbers = iter(range(FIRST, FIRST + services))

    async def worker() -> None:
        for number in numbers:
            ports = [{"name": "http", "port": 80, "targetPort": 8080}]
            spec = {"clusterIP": cluster_ip(number), "ports": ports}
            await client.create(
                SERVICES,
                {"metadata": {"name": f"svc-{number}", "namespace": "ns"}, "spec": spec},
            )
            await client.create(ENDPOINTSLICES, slice_of(number, pods_of(number, endpoints)))

    await asyncio.gather(*(worker() for _ in range(8)))


async def change(client: Client, number: int, endpoints: int, address: str) -> None:
    """Replaces the address of a Service's last endpoint."""
    addresses = [*pods_of(number, endpoints)[:-1], address]
    patch = {"endpoints": slice_of(number, addresses)["endpoints"]}
    await client.patch(ENDPOINTSLICES, f"svc-{number}-1", patch, "ns")
