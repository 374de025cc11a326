"""The process of an engine's agent: its log, its end by signal, its page of metrics, its client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kubewire.components.base import daemon, health
from kubewire.components.base.prometheus import Registry
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError

_EXPECTED = (OSError, CommandError, KubeconfigError)


@dataclass(frozen=True)
class Serving:
    """Where an agent shows its metrics. address: HOST:PORT, with an empty HOST for all addresses.
    page: the path."""

    address: str
    page: str
    registry: Registry


def main(
    program: str, kubeconfig: str, serving: Serving, work: Callable[[Client], Awaitable[None]]
) -> int:
    """Does the agent's work until a signal. Returns 0 after SIGTERM, 1 if it cannot start."""
    daemon.log_to_stderr(0)
    return asyncio.run(
        daemon.until_asked(_run(program, kubeconfig, serving, work), program, _EXPECTED)
    )


async def _run(
    program: str, kubeconfig: str, serving: Serving, work: Callable[[Client], Awaitable[None]]
) -> None:
    log = logging.getLogger(program)
    host, _, port = serving.address.rpartition(":")
    pages = {serving.page: lambda: health.Page(serving.registry.text().encode())}
    log.info("Starting %s", program)
    async with Client.from_kubeconfig(kubeconfig, user_agent=program) as client:
        server = await health.serve_pages(pages, host or "0.0.0.0", int(port), log)
        async with server:
            await work(client)
