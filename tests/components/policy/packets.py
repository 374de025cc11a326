"""The truth tables on packets: what an engine must do, case by case, in one sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.model import State
from tests.components.policy import truth
from tests.components.policy.ground import Ground, Try, differences, tries
from tests.components.policy.matrix import PODS, PORTS, Case, Step

#: host names must not have a slash.
HOSTS = {pod: pod.replace("/", "-") for pod in PODS}
EVERYTHING = tries(HOSTS.values(), [(protocol, port) for port, protocol in PORTS])

Enforce = Callable[[State], Awaitable[Any]]


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
