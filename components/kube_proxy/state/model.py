"""What every backend works from: Services and endpoints, resolved, in one IP family.

The names follow upstream's pkg/proxy (ServicePortName, ServicePort, Endpoint).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

IPV4, IPV6 = "IPv4", "IPv6"


class ServicePortName(NamedTuple):
    """One port of one Service; str() is the text that chain names are hashed from:
    `ns/name:port`."""

    namespace: str
    name: str
    port: str
    protocol: str = "TCP"

    def __str__(self) -> str:
        return (
            f"{self.namespace}/{self.name}:{self.port}"
            if self.port
            else f"{self.namespace}/{self.name}"
        )


@dataclass(frozen=True)
class ServicePort:
    """A Service's port. protocol is "tcp", "udp" or "sctp"; sticky_seconds 0 means no session
    affinity."""

    cluster_ip: str
    port: int
    protocol: str
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    load_balancer_source_ranges: tuple[str, ...] = ()
    sticky_seconds: int = 0
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0

    @property
    def externally_accessible(self) -> bool:
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        # Traffic from pods and from the node itself to an external address takes the Cluster
        # policy even when the external policy is Local (KEP-2086's short circuit).
        return not self.internal_local or self.externally_accessible

    @property
    def uses_local_endpoints(self) -> bool:
        return self.internal_local or (self.external_local and self.externally_accessible)


@dataclass(frozen=True)
class Endpoint:
    """One address and port behind a ServicePort, with the conditions of its EndpointSlice."""

    ip: str
    port: int
    node_name: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class Node:
    """The node we run on. ips has one address per family it has, in the order of its status."""

    name: str
    ips: tuple[str, ...] = ()
    zone: str = ""
    pod_cidrs: tuple[str, ...] = ()


Services = Mapping[ServicePortName, ServicePort]
Endpoints = Mapping[ServicePortName, tuple[Endpoint, ...]]


@dataclass(frozen=True)
class State:
    """Everything a backend renders, in one family. services and endpoints stay as they are until
    sync() returns. changed: the names that may differ from the sync before, so that work can be
    proportional to them; None: any."""

    services: Services
    endpoints: Endpoints
    node: Node
    changed: frozenset[ServicePortName] | None = None
    #: The ranges ClusterIPs are taken from, of both families; () when nobody asked for them.
    service_cidrs: tuple[str, ...] = ()
