"""UDP has no end of a connection: an entry keeps sending to an endpoint that is gone, or past a
Service that had none when the first packet came. Which entries must go is a function of the table
and the Services (upstream's pkg/proxy/conntrack/cleanup.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kubewire.components.kube_proxy.state.model import Endpoints, Services

UDP = 17


class Address(NamedTuple):
    """ip in its canonical form."""

    ip: str
    port: int


@dataclass(frozen=True)
class Flow:
    """An entry of the conntrack table: where it was sent, who answers. identity: what names it to
    the kernel."""

    protocol: int
    original_destination: Address
    reply_source: Address
    identity: bytes = b""


@dataclass(frozen=True)
class Wanted:
    """For each address of a UDP Service, and each node port at any address: the endpoints that may
    answer."""

    addresses: Mapping[Address, frozenset[Address]]
    node_ports: Mapping[int, frozenset[Address]]


def wanted(services: Services, endpoints: Endpoints) -> Wanted:
    """Every serving endpoint counts: policies, topology and termination must not cut a flow that
    works, as they do not cut TCP. A Service without any endpoint is left alone."""
    addresses: dict[Address, frozenset[Address]] = {}
    node_ports: dict[int, frozenset[Address]] = {}
    for name, service in services.items():
        if service.protocol != "udp":
            continue
        serving = frozenset(Address(ep.ip, ep.port) for ep in endpoints.get(name, ()) if ep.serving)
        if not serving:
            continue
        for ip in (service.cluster_ip, *service.load_balancer_ips, *service.external_ips):
            addresses[Address(ip, service.port)] = serving
        if service.node_port:
            node_ports[service.node_port] = serving
    return Wanted(addresses, node_ports)


def stale(flows: Iterable[Flow], wanted: Wanted) -> list[Flow]:
    """The flows that lead to one of our addresses and are answered by nobody who should."""
    return [flow for flow in flows if flow.protocol == UDP and _is_stale(flow, wanted)]


def _is_stale(flow: Flow, wanted: Wanted) -> bool:
    to, by = flow.original_destination, flow.reply_source
    for serving in (wanted.addresses.get(to), wanted.node_ports.get(to.port)):
        if serving is not None and by not in serving:
            return True
    return False
