"""One API server per module, and the clients to talk to it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import SERVICEACCOUNTS
from tests.components.apiserver.running import RunningApiServer

T = TypeVar("T")
Run = Callable[[Callable[[Client], Awaitable[Any]]], Any]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningApiServer]:
    """Ready, with ServiceAccount default/default, which in a lab the controllers make."""
    with RunningApiServer() as running:
        account = {"metadata": {"name": "default", "namespace": "default"}}
        _run(running, lambda client: client.create(SERVICEACCOUNTS, account))
        yield running


def _run(server: RunningApiServer, act: Callable[[Client], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        async with Client.from_kubeconfig(server.kubeconfig) as client:
            async with asyncio.timeout(20):
                return await act(client)

    return asyncio.run(body())


@pytest.fixture
def run(server: RunningApiServer) -> Run:
    """run(act): act(client) in an event loop of its own; its result."""
    return lambda act: _run(server, act)


Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def kubectl(server: RunningApiServer) -> Kubectl:
    """kubectl("get", "pods", stdin=...); skipped where there is no kubectl."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")

    def call(*argv: str, stdin: str = "", kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "--kubeconfig", str(kubeconfig or server.kubeconfig), "--cache-dir", str(server.folder), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return call
