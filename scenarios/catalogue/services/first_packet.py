"""Measures how long the first packet of a connection takes with the rules of N Services.

In iptables mode it measures two Services: the one whose rule comes first in KUBE-SERVICES, and the
one whose rule comes last. In nftables mode the same two are measured, although a map lookup finds
both. For each size and mode, a new network namespace gets the rules that kube-proxy writes for N
UDP Services. A socket sends one datagram to a ClusterIP from a port that has not been used before,
and another socket, which listens on all addresses, receives it. The time between includes two
system calls, the way through the rules and the translation. Prints lines of name, number of
Services, and the median in microseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from kubewire.components.kernel import namespaces
from kubewire.components.kube_proxy.backends import BACKENDS
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.model import (
    IPV4,
    Endpoint,
    Node,
    ServicePort,
    ServicePortName,
    State,
)

_PODS = "10.128.0.0/9"
_PORT = 8080
_SOURCE = "10.128.0.1"
_FIRST_PORT = 20000


def main(argv: Sequence[str]) -> int:
    """Measures. argv: number of packets, then the numbers of Services."""
    packets, *sizes = map(int, argv)
    for size in sizes:
        for mode in ("iptables", "nftables"):
            for name, microseconds in _measured(mode, size, packets).items():
                print(f"{mode}, {name} Service", size, f"{microseconds:.1f}", sep="\t", flush=True)
    return 0


def _measured(mode: str, size: int, packets: int) -> dict[str, float]:
    """Measures in a child process, whose network namespace ends with it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(write, json.dumps(_measure(mode, size, packets)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{mode} with {size} Services could not be measured")
    found: dict[str, float] = json.loads(text)
    return found


def _measure(mode: str, size: int, packets: int) -> dict[str, float]:
    namespaces.unshare(namespaces.CLONE_NEWNET)
    # All pods are local addresses, and a route leads to ClusterIPs, so packets stay on loopback.
    for command in (
        "link set lo up",
        f"route add local {_PODS} dev lo",
        "route add 10.96.0.0/12 dev lo",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    config = KubeProxyConfiguration(mode=mode, cluster_cidr=_PODS)
    backend = BACKENDS[mode](IPV4, config, Metrics(), localhost_node_ports=False)
    asyncio.run(backend.sync(_state(size), full=True))
    ways = {"first": _cluster_ip(0), "last": _cluster_ip(size - 1)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", _PORT))
        server.settimeout(5)
        for port in range(_FIRST_PORT, _FIRST_PORT + packets):
            for name, address in ways.items():
                found[name].append(_first_packet(server, port, address))
    return {name: statistics.median(times) for name, times in found.items()}


def _first_packet(server: socket.socket, port: int, address: str) -> float:
    """Sends a packet; returns the microseconds until it was received."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((_SOURCE, port))
        began = time.perf_counter_ns()
        client.sendto(b"first", (address, 80))
        server.recv(16)
        return (time.perf_counter_ns() - began) / 1000


def _state(size: int) -> State:
    names = [ServicePortName("ns", f"svc-{number:05}", "p", "UDP") for number in range(size)]
    services = {}
    endpoints = {}
    for number, name in enumerate(names):
        services[name] = ServicePort(_cluster_ip(number), 80, "udp")
        endpoints[name] = (Endpoint(f"10.129.{number >> 8}.{number & 255}", _PORT),)
    return State(services, endpoints, Node("node1"))


def _cluster_ip(number: int) -> str:
    return f"10.{96 + (number + 256 >> 16)}.{number + 256 >> 8 & 255}.{number + 256 & 255}"
