"""A thousand pods change at once: nothing is lost, nothing stands twice, at no moment."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NODES, PODS, SERVICEACCOUNTS, SERVICES, KubeObject
from tests.components.apiserver.running import CHECKOUT, RunningApiServer
from tests.components.controllers.cluster import fake_node

COUNT, NODE_COUNT, AT_ONCE, SECONDS = 1000, 4, 32, 100.0
CONTROLLERS = "--controllers=serviceaccount-controller,endpointslice-controller"


def address(number: int) -> str:
    return f"10.244.{number // 250}.{number % 250 + 2}"


def pod(number: int) -> Any:
    container = {"name": "c", "image": "nginx"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"p{number}", "namespace": "default", "labels": {"app": "many"}},
        "spec": {"nodeName": f"n{number % NODE_COUNT}", "containers": [container], "terminationGracePeriodSeconds": 0},
    }


def status(number: int, ready: bool) -> Any:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "phase": "Running",
        "podIP": address(number),
        "podIPs": [{"ip": address(number)}],
        "conditions": [condition],
    }


SERVICE: Any = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "many", "namespace": "default"},
    "spec": {"selector": {"app": "many"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


class Watched:
    """Every state of the Service's slices, in the order in which a watcher sees them."""

    def __init__(self) -> None:
        self.slices: dict[str, KubeObject] = {}
        self.twice: list[str] = []
        self.changed = asyncio.Event()

    def handle(self, old: Any, new: Any) -> None:
        name = (new or old or {})["metadata"]["name"]
        if new is None:
            self.slices.pop(name, None)
        else:
            self.slices[name] = new
        counts = Counter(self.addresses())
        self.twice += [one for one, count in counts.items() if count > 1]
        self.changed.set()

    def addresses(self, *, ready: bool | None = None) -> list[str]:
        return [
            endpoint["addresses"][0]
            for one in self.slices.values()
            for endpoint in one.get("endpoints") or ()
            if ready is None or endpoint["conditions"]["ready"] is ready
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def at_once(jobs: Iterable[Callable[[], Awaitable[object]]]) -> None:
    limit = asyncio.Semaphore(AT_ONCE)

    async def run(job: Callable[[], Awaitable[object]]) -> None:
        async with limit:
            await job()

    await asyncio.gather(*(run(job) for job in jobs))


async def account_exists(client: Client) -> None:
    """Pods are refused before the ServiceAccount they run as is there."""
    found = asyncio.Event()
    informer = Informer(client, SERVICEACCOUNTS, namespace="default", handler=lambda *_: found.set())
    following = asyncio.ensure_future(informer.run())
    await asyncio.wait_for(found.wait(), SECONDS)
    following.cancel()


async def story(kubeconfig: str) -> None:
    everybody = range(COUNT)
    async with Client.from_kubeconfig(kubeconfig) as client:

        def patch(number: int, ready: bool) -> Callable[[], Awaitable[object]]:
            change = {"status": status(number, ready)}
            return lambda: client.patch(PODS, f"p{number}", change, "default", subresource="status")

        watched = Watched()
        selector = "kubernetes.io/service-name=many"
        informer = Informer(client, ENDPOINTSLICES, label_selector=selector, handler=watched.handle)
        following = asyncio.ensure_future(informer.run())
        await at_once([partial(client.create, NODES, fake_node(f"n{n}")) for n in range(NODE_COUNT)])
        await account_exists(client)
        await client.create(SERVICES, SERVICE)
        await at_once([partial(client.create, PODS, pod(n)) for n in everybody])

        await at_once([patch(n, True) for n in everybody])
        await watched.until(lambda: sorted(watched.addresses(ready=True)) == sorted(map(address, everybody)))
        assert max(len(one["endpoints"]) for one in watched.slices.values()) <= 100
        assert len(watched.slices) >= -(-COUNT // 100)

        await at_once([patch(n, False) for n in everybody])
        await watched.until(lambda: sorted(watched.addresses(ready=False)) == sorted(map(address, everybody)))

        odd, even = everybody[1::2], everybody[::2]
        leave = [lambda n=n: client.delete(PODS, f"p{n}", "default", grace_period_seconds=0) for n in odd]
        await at_once([job for pair in zip(leave, [patch(n, True) for n in even], strict=False) for job in pair])
        await at_once([patch(even[-1], True)])
        await watched.until(lambda: sorted(watched.addresses()) == sorted(map(address, even)))
        await watched.until(lambda: len(watched.addresses(ready=True)) == len(even))
        assert watched.twice == []
        stored = await client.list(ENDPOINTSLICES, "default", label_selector=selector)
        found = [e["addresses"][0] for one in stored.items for e in one.get("endpoints") or ()]
        assert sorted(found) == sorted(map(address, even))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@contextmanager
def control_plane() -> Iterator[str]:
    """API server and the controllers under test; the kubeconfig's path."""
    with RunningApiServer() as api, (api.folder / "controllers.log").open("wb") as log:
        command = [sys.executable, "-m", "kubewire.components.controllers", "--kubeconfig", str(api.kubeconfig)]
        process = subprocess.Popen(
            [*command, "--secure-port=0", CONTROLLERS],
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
        )
        try:
            yield str(api.kubeconfig)
        finally:
            process.terminate()
            process.wait(20)


def test_a_thousand_pods_that_change_at_once_give_exact_slices():
    with control_plane() as kubeconfig:
        asyncio.run(story(kubeconfig))
