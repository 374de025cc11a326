"""The follower against a small API server on loopback."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.components.policy.follow import Follower
from kubewire.components.policy.model import Changes, ObjectKey, State
from tests.components.policy.objects import Object, namespace, network_policy, pod

CALICO = "/apis/projectcalico.org/v3/tiers"


class Cluster:
    """Answers lists with `objects`, and sends what send() is given to the watch of its path. Of
    Calico's kinds it serves those in `custom`."""

    def __init__(self, **objects: list[Object]) -> None:
        self.objects = {f"/{plural}": found for plural, found in objects.items()}
        self.events: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.custom: set[str] = set()
        self.version = 1

    def send(self, plural: str, what: str, obj: Object) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.events[f"/{plural}"].put_nowait({"type": what, "object": obj})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        last = f"/{request.path.rpartition('/')[2]}"
        if "projectcalico" in request.path and request.path not in self.custom:
            return web.json_response({"kind": "Status", "code": 404, "message": "no such kind"}, status=404)
        if request.query.get("watch") != "true":
            items = self.objects.get(last, [])
            for obj in items:
                obj["metadata"].setdefault("resourceVersion", "1")
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(orjson.dumps(await self.events[last].get()) + b"\n")


Calls = asyncio.Queue[tuple[State, Changes]]


@asynccontextmanager
async def client_of(cluster: Cluster) -> AsyncIterator[Client]:
    application = web.Application()
    application.router.add_get("/{path:.*}", cluster.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Client(Credentials(server=f"http://127.0.0.1:{runner.addresses[0][1]}")) as client:
            yield client
    finally:
        await runner.cleanup()


def follow(cluster: Cluster, kinds: list[str], script: Callable[[Follower, Calls], Awaitable[None]]) -> None:
    async def body() -> None:
        calls: Calls = asyncio.Queue()

        async def changed(state: State, changes: Changes) -> None:
            calls.put_nowait((state, changes))

        async with client_of(cluster) as client:
            follower = Follower(client, kinds, changed)
            task = asyncio.ensure_future(follower.run())
            try:
                await asyncio.wait_for(script(follower, calls), 60)
            finally:
                task.cancel()

    asyncio.run(body())


WEB = ObjectKey("Pod", "default", "web")
DENY = ObjectKey("NetworkPolicy", "default", "deny-all")


def cluster() -> Cluster:
    return Cluster(
        namespaces=[namespace("default")],
        pods=[pod("web", addresses=["10.244.1.2"])],
        networkpolicies=[network_policy("deny-all")],
    )


def test_the_first_call_has_everything_that_was_listed() -> None:
    async def script(follower: Follower, calls: Calls) -> None:
        state, changes = await calls.get()
        assert changes.endpoints == {WEB}
        assert changes.policies == {DENY}
        assert state.applied[WEB].ingress == (("default", (DENY,)),)
        await follower.synced.wait()
        assert calls.empty()

    follow(cluster(), ["NetworkPolicy"], script)


def test_a_change_is_told_once_and_one_without_effect_not_at_all() -> None:
    served = cluster()

    async def script(follower: Follower, calls: Calls) -> None:
        await calls.get()
        served.send("pods", "MODIFIED", pod("web", addresses=["10.244.1.2"], priority=7))
        served.send("networkpolicies", "DELETED", network_policy("deny-all"))
        state, changes = await calls.get()
        assert changes.policies == {DENY}
        assert changes.endpoints == {WEB}
        assert not state.policies

    follow(served, ["NetworkPolicy"], script)


def test_a_kind_that_is_not_served_is_waited_for_without_noise(caplog: pytest.LogCaptureFixture) -> None:
    served = cluster()
    tier = {"metadata": {"name": "security", "resourceVersion": "1"}, "spec": {"order": 5}}
    served.objects["/tiers"] = [tier]

    async def script(follower: Follower, calls: Calls) -> None:
        state, _ = await calls.get()
        assert "security" not in [one.name for one in state.tiers]
        served.custom.add(CALICO)
        state, changes = await calls.get()
        assert changes.tiers
        assert "security" in [one.name for one in state.tiers]

    follow(served, ["NetworkPolicy", "Tier"], script)
    assert not caplog.records


def test_the_state_stands_still_while_an_engine_works_with_it() -> None:
    served = cluster()
    began, told = asyncio.Event(), asyncio.Event()
    seen: asyncio.Queue[set[ObjectKey]] = asyncio.Queue()

    async def changed(state: State, changes: Changes) -> None:
        began.set()
        await told.wait()
        seen.put_nowait(set(state.endpoints))

    async def body() -> None:
        async with client_of(served) as client:
            follower = Follower(client, ["NetworkPolicy"], changed)
            (pods,) = [one for one in follower.informers if one.resource.kind == "Pod"]
            pods.add_handler(lambda old, new: told.set() if began.is_set() else None)
            task = asyncio.ensure_future(follower.run())
            await began.wait()
            served.send("pods", "ADDED", pod("late", addresses=["10.244.1.9"]))
            async with asyncio.timeout(60):
                assert await seen.get() == {WEB}
                assert await seen.get() == {WEB, ObjectKey("Pod", "default", "late")}
            task.cancel()

    asyncio.run(body())


def test_an_error_of_the_engine_ends_the_follower() -> None:
    async def changed(state: State, changes: Changes) -> None:
        raise OSError("no table")

    async def body() -> None:
        async with client_of(cluster()) as client:
            with pytest.raises(ExceptionGroup) as raised:
                await asyncio.wait_for(Follower(client, ["NetworkPolicy"], changed).run(), 60)
        assert str(raised.value.exceptions[0]) == "no table"

    asyncio.run(body())


def test_a_kind_that_no_one_knows_is_refused() -> None:
    with pytest.raises(KeyError, match="IngressPolicy"):
        Follower(Client(Credentials(server="http://127.0.0.1:1")), ["IngressPolicy"], NotImplemented)
