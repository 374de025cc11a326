"""The truth tables on packets: what an engine must do, case by case, in one sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.model import State
from tests.components.networks.flows import Hosts
from tests.components.policy import truth
from tests.components.policy.ground import Ground, Try, differences, tries
from tests.components.policy.matrix import PODS, PORTS, Case, Step

#: host names must not have a slash.
HOSTS = {pod: pod.replace("/", "-") for pod in PODS}
EVERYTHING = tries(HOSTS.values(), [(protocol, port) for port, protocol in PORTS])

Enforce = Callable[[State], Awaitable[Any]]


def routed(network: str, veth: str) -> Ground:
    """A node that routes between the nine pods, each at the other end of a veth. network: the first three bytes of the
    pods' addresses; veth: the beginning of the names of the node's ends."""
    addresses = {host: f"{network}.{number}" for number, host in enumerate(HOSTS.values(), start=11)}
    hosts = Hosts("node", *addresses)
    hosts.sysctl("node", "net.ipv4.ip_forward=1")
    for number, (pod, address) in enumerate(addresses.items()):
        hosts.wire("node", f"{veth}{number}", pod, "eth0")
        hosts.sysctl("node", f"net.ipv4.conf.{veth}{number}.proxy_arp=1")
        hosts.ip("node", f"route add {address}/32 dev {veth}{number}")
        hosts.ip(pod, f"address add {address}/32 dev eth0", "route add default dev eth0")
    return Ground(hosts, addresses, [(protocol, port) for port, protocol in PORTS])


def failures(place: Ground, node: str, enforce: Enforce, cases: Iterable[Case]) -> dict[str, str]:
    """The cases that do not hold, with what is wrong. node: the host in which enforce runs."""
    addresses = {pod: place.addresses[host] for pod, host in HOSTS.items()}
    found: dict[str, str] = {}
    for case in cases:
        compiler = Compiler()
        for obj in truth.world(addresses):
            compiler.apply(obj)
        for number, step in enumerate(case.steps):
            truth.take(compiler, step, addresses)
            with place.hosts.inside(node):
                asyncio.run(_enforced(enforce, compiler.state))
            expected = _expected(step)
            if wrong := differences(place.reached(EVERYTHING, expected), expected):
                found[f"{case.id}, step {number}"] = wrong
    return found


async def _enforced(enforce: Enforce, state: State) -> None:
    await enforce(state)


def _expected(step: Step) -> list[Try]:
    by_host = {host: pod for pod, host in HOSTS.items()}
    return [
        one for one in EVERYTHING if step.allowed(by_host[one.source], by_host[one.destination], one.port, one.protocol)
    ]
