"""Client and informer against a small API server on loopback that can break on command."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.components.kubeapi.resources import PODS, KubeObject


def pod(name: str, version: int, **labels: str) -> Any:
    metadata = {"name": name, "namespace": "default", "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}


class FakeServer:
    """Lists self.pods; a watch sends what is put into self.events; "break" cuts the connection."""

    def __init__(self) -> None:
        self.pods: list[KubeObject] = []
        self.version = 1
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.watches: list[str] = []
        self.lists = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            self.lists += 1
            items = [{k: v for k, v in p.items() if k == "metadata"} for p in self.pods]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        self.watches.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.events.get()) != "break":
            await response.write(orjson.dumps(event) + b"\n")
        assert request.transport is not None
        request.transport.abort()
        return response


async def with_server(handler: Any, body: Callable[[Client], Awaitable[Any]]) -> Any:
    application = web.Application()

    async def route(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        return response

    application.router.add_route("*", "/{path:.*}", route)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Client(Credentials(server=f"http://127.0.0.1:{port}")) as client:
            return await asyncio.wait_for(body(client), 20)
    finally:
        await runner.cleanup()


def follow(
    server: FakeServer, script: Callable[[Informer[Any], asyncio.Queue[tuple[str, str]]], Awaitable[None]]
) -> None:
    async def body(client: Client) -> None:
        seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        def handler(old: Any, new: Any) -> None:
            what = "added" if old is None else "deleted" if new is None else "changed"
            seen.put_nowait((what, (new or old or {})["metadata"]["name"]))

        informer = Informer(client, PODS, handler=handler)
        task = asyncio.ensure_future(informer.run())
        try:
            await script(informer, seen)
        finally:
            task.cancel()

    asyncio.run(with_server(server, body))


def test_the_store_follows_list_and_watch() -> None:
    server = FakeServer()
    server.pods = [pod("a", 1)]

    async def script(informer: Informer[Any], seen: asyncio.Queue[tuple[str, str]]) -> None:
        assert await seen.get() == ("added", "a")
        server.events.put_nowait({"type": "ADDED", "object": pod("b", 2)})
        server.events.put_nowait({"type": "MODIFIED", "object": pod("b", 3)})
        server.events.put_nowait({"type": "DELETED", "object": pod("a", 4)})
        assert [await seen.get() for _ in range(3)] == [("added", "b"), ("changed", "b"), ("deleted", "a")]
        assert set(informer.store) == {("default", "b")}
        assert informer.store["default", "b"]["kind"] == "Pod"

    follow(server, script)


def test_a_broken_watch_goes_on_from_the_last_version_seen_without_a_new_list() -> None:
    server = FakeServer()

    async def script(informer: Informer[Any], seen: asyncio.Queue[tuple[str, str]]) -> None:
        server.events.put_nowait({"type": "ADDED", "object": pod("a", 7)})
        assert await seen.get() == ("added", "a")
        server.events.put_nowait("break")
        server.events.put_nowait({"type": "ADDED", "object": pod("b", 8)})
        assert await seen.get() == ("added", "b")
        assert server.lists == 1
        assert server.watches == ["1", "7"]

    follow(server, script)


def test_a_version_that_is_too_old_leads_to_a_list_whose_difference_is_told() -> None:
    server = FakeServer()
    server.pods = [pod("gone", 1), pod("kept", 1)]

    async def script(informer: Informer[Any], seen: asyncio.Queue[tuple[str, str]]) -> None:
        assert [await seen.get(), await seen.get()] == [("added", "gone"), ("added", "kept")]
        server.pods, server.version = [pod("kept", 1), pod("fresh", 9)], 9
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        server.events.put_nowait({"type": "ERROR", "object": status})
        assert [await seen.get(), await seen.get()] == [("deleted", "gone"), ("added", "fresh")]

    follow(server, script)


def test_an_object_larger_than_a_read_buffer_arrives_whole() -> None:
    server = FakeServer()

    async def script(informer: Informer[Any], seen: asyncio.Queue[tuple[str, str]]) -> None:
        server.events.put_nowait({"type": "ADDED", "object": pod("big", 2, big="x" * 1_000_000)})
        await seen.get()
        assert len(informer.store["default", "big"]["metadata"]["labels"]["big"]) == 1_000_000

    follow(server, script)


def test_a_status_answer_becomes_an_error_with_its_reason() -> None:
    async def refuse(_: web.Request) -> web.Response:
        body = {"kind": "Status", "code": 404, "reason": "NotFound", "message": 'pods "x" not found'}
        return web.json_response(body, status=404)

    async def body(client: Client) -> None:
        with pytest.raises(ApiError, match='pods "x" not found') as caught:
            await client.get(PODS, "x", "default")
        assert (caught.value.status, caught.value.reason) == (404, "NotFound")

    asyncio.run(with_server(refuse, body))


def test_no_server_is_an_unavailable_error_that_names_the_address() -> None:
    async def body() -> None:
        async with Client(Credentials(server="http://127.0.0.1:1")) as client:
            with pytest.raises(ApiUnavailable, match=r"GET http://127.0.0.1:1/api/v1/namespaces/default/pods/x"):
                await client.get(PODS, "x", "default")

    asyncio.run(body())
