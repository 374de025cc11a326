"""Watches: order, selection, bookmarks, expiry, and restarts under traffic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from kubewire.components.apiserver.http.watching import Watcher
from kubewire.components.apiserver.store import Key, Store
from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.resources import CONFIGMAPS
from tests.components.apiserver.conftest import Run
from tests.components.apiserver.running import RunningApiServer


def configmap(name: str, namespace: str = "default", **labels: str) -> Any:
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}}


async def lines(client: Client, path: str, **params: str) -> AsyncGenerator[dict[str, Any], None]:
    """The raw events of a watch."""
    url = client.credentials.server + path
    async with client.session().get(url, params={"watch": "1"} | params) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Transfer-Encoding"] == "chunked"
        async for line in response.content:
            yield orjson.loads(line)


def test_a_watch_continues_where_a_list_ended(run: Run) -> None:
    async def act(client: Client) -> None:
        before = await client.list(CONFIGMAPS, "default")
        made = await client.create(CONFIGMAPS, configmap("watched"))
        changed = await client.patch(CONFIGMAPS, "watched", {"data": {"a": "1"}}, "default")
        watch = client.watch(CONFIGMAPS, "default", resource_version=before.resource_version)
        first, second = await anext(watch), await anext(watch)
        assert (first.type, first.object) == ("ADDED", made)
        assert (second.type, second.object) == ("MODIFIED", changed)
        await client.delete(CONFIGMAPS, "watched", "default")
        third = await anext(watch)
        assert (third.type, third.object["data"]) == ("DELETED", {"a": "1"})
        assert int(third.object["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
        await watch.aclose()

    run(act)


def test_leaving_and_entering_a_selection_is_deleted_and_added(run: Run) -> None:
    async def act(client: Client) -> None:
        version = (await client.list(CONFIGMAPS)).resource_version
        watch = client.watch(CONFIGMAPS, resource_version=version, label_selector="side=in")
        await client.create(CONFIGMAPS, configmap("mover", side="out"))
        for side in ("in", "in", "out"):
            patch = {"metadata": {"labels": {"side": side}}, "data": {"at": str(time.time())}}
            await client.patch(CONFIGMAPS, "mover", patch, "default")
        seen = [await anext(watch) for _ in range(3)]
        assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert seen[2].object["metadata"]["labels"] == {"side": "in"}
        await watch.aclose()

    run(act)


@pytest.mark.parametrize("version", ["", "0"])
def test_a_watch_without_a_version_starts_with_what_is_there(run: Run, version: str) -> None:
    async def act(client: Client) -> None:
        await client.create(CONFIGMAPS, configmap(f"there-{version or 'none'}", "kube-public"))
        listed = await client.list(CONFIGMAPS, "kube-public")
        watch = lines(client, CONFIGMAPS.path("kube-public"), resourceVersion=version)
        names = [(await anext(watch))["object"]["metadata"]["name"] for _ in listed.items]
        assert names == [item["metadata"]["name"] for item in listed.items]
        await watch.aclose()

    run(act)


def test_a_watch_list_ends_its_initial_events_with_a_bookmark(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(CONFIGMAPS, configmap("initial", "kube-node-lease"))
        watch = lines(
            client,
            CONFIGMAPS.path("kube-node-lease"),
            sendInitialEvents="true",
            allowWatchBookmarks="true",
            resourceVersionMatch="NotOlderThan",
        )
        assert (await anext(watch))["type"] == "ADDED"
        bookmark = await anext(watch)
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["kind"] == "ConfigMap"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await watch.aclose()

    run(act)


def test_a_watch_ends_at_its_timeout_with_a_bookmark(run: Run) -> None:
    async def act(client: Client) -> None:
        version = (await client.list(CONFIGMAPS)).resource_version
        watch = lines(
            client, CONFIGMAPS.path(), timeoutSeconds="1", resourceVersion=version, allowWatchBookmarks="true"
        )
        events = [event async for event in watch]
        assert [event["type"] for event in events] == ["BOOKMARK"]
        assert int(events[0]["object"]["metadata"]["resourceVersion"]) >= int(version)

    run(act)


def test_a_watch_of_tables_sends_rows(run: Run) -> None:
    async def act(client: Client) -> None:
        version = (await client.list(CONFIGMAPS)).resource_version
        url = client.credentials.server + CONFIGMAPS.path("default")
        params = {"watch": "1", "resourceVersion": version}
        headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        await client.create(CONFIGMAPS, configmap("row"))
        async with client.session().get(url, params=params, headers=headers) as response:
            event = orjson.loads(await response.content.readline())
        assert event["object"]["kind"] == "Table"
        assert event["object"]["rows"][0]["cells"][0] == "row"

    run(act)


def test_a_version_of_the_future_is_expired(run: Run) -> None:
    async def act(client: Client) -> None:
        with pytest.raises(ApiError) as error:
            await anext(client.watch(CONFIGMAPS, resource_version="99999999"))
        assert (error.value.status, error.value.reason) == (410, "Expired")
        assert error.value.message.startswith("too old resource version: 99999999 (")

    run(act)


def test_a_write_reaches_hundreds_of_watchers_in_order(run: Run) -> None:
    async def act(client: Client) -> None:
        version = (await client.list(CONFIGMAPS)).resource_version
        watches = [lines(client, CONFIGMAPS.path("default"), resourceVersion=version) for _ in range(200)]

        async def follow(watch: AsyncIterator[dict[str, Any]]) -> list[str]:
            return [(await anext(watch))["object"]["metadata"]["name"] for _ in range(5)]

        followers = [asyncio.create_task(follow(watch)) for watch in watches]
        for number in range(5):
            await client.create(CONFIGMAPS, configmap(f"fan-{number}"))
        for names in await asyncio.gather(*followers):
            assert names == [f"fan-{number}" for number in range(5)]

    run(act)


def test_watchers_go_on_over_a_kill_and_miss_nothing() -> None:
    """The server is killed under traffic: every acknowledged write is there, and informers see each of them."""

    async def body(server: RunningApiServer) -> None:
        client = Client.from_kubeconfig(server.kubeconfig)
        seen: set[str] = set()
        relists: list[int] = []

        def handler(old: Any, new: Any) -> None:
            if new is not None:
                seen.add(new["metadata"]["name"])

        informer = Informer(client, CONFIGMAPS, handler=handler)
        listing = client.list

        async def counted(*args: Any, **kwargs: Any) -> Any:
            relists.append(1)
            return await listing(*args, **kwargs)

        client.list = counted  # type: ignore[method-assign]
        task = asyncio.create_task(informer.run())
        await wait_synced(informer)
        acknowledged: list[str] = []

        async def write() -> None:
            for number in range(300):
                name = f"w{number}"
                while name not in acknowledged:
                    try:
                        await client.create(CONFIGMAPS, configmap(name))
                        acknowledged.append(name)
                    except ApiUnavailable:
                        await asyncio.sleep(0.01)
                    except ApiError as error:
                        assert error.reason == "AlreadyExists"
                        acknowledged.append(name)

        writer = asyncio.create_task(write())
        for _ in range(2):
            while not writer.done() and len(acknowledged) % 100 < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.restart)
        await writer
        async with asyncio.timeout(15):
            while not set(acknowledged) <= seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        names = {item["metadata"]["name"] for item in (await listing(CONFIGMAPS, "default")).items}
        assert set(acknowledged) <= names
        assert len(relists) == 1, "the history survives the restart: nobody has to list again"
        task.cancel()
        await client.close()

    with RunningApiServer() as server:
        asyncio.run(body(server))


def test_a_store_of_its_own_past_expires_old_watches() -> None:
    """After the file is lost, versions start anew; a client with an old one is told to list again."""
    with RunningApiServer() as server:

        async def newest() -> str:
            async with Client.from_kubeconfig(server.kubeconfig) as client:
                for number in range(5):
                    made = await client.create(CONFIGMAPS, configmap(f"c{number}"))
                return str(made["metadata"]["resourceVersion"])

        async def watch(version: str) -> None:
            async with Client.from_kubeconfig(server.kubeconfig) as client:
                await anext(client.watch(CONFIGMAPS, resource_version=version))

        version = asyncio.run(newest())
        server.kill()
        for file in server.folder.glob("store.db*"):
            file.unlink()
        server.start()
        with pytest.raises(ApiError) as error:
            asyncio.run(watch(version))
        assert error.value.status == 410


def test_sigterm_ends_watches_and_exits_with_zero() -> None:
    with RunningApiServer() as server:

        async def body() -> int:
            async with Client.from_kubeconfig(server.kubeconfig) as client:
                version = (await client.list(CONFIGMAPS)).resource_version
                watch = asyncio.create_task(drain(client.watch(CONFIGMAPS, resource_version=version)))
                await asyncio.sleep(0)
                code = await asyncio.to_thread(server.stop)
                async with asyncio.timeout(5):
                    await watch
                return code

        async def drain(events: AsyncIterator[Any]) -> None:
            try:
                async for _ in events:
                    pass
            except ApiUnavailable:
                pass

        assert asyncio.run(body()) == 0


async def _behind() -> tuple[int, bool]:
    """A watcher that has not caught up, and 40 changes of a megabyte: how much it holds, and whether it has ended."""
    store = Store(":memory:")
    selection: Any = SimpleNamespace(served=SimpleNamespace(storage="configmaps"))
    view: Any = SimpleNamespace(selection=selection, encode=lambda event: event.stored.body)
    watcher = Watcher(view, store)
    for number in range(40):
        obj = configmap(f"n{number}") | {"data": {"a": "x" * 1024 * 1024}}
        store.create(Key("configmaps", "default", f"n{number}"), obj)
    return sum(map(len, watcher._waiting)), watcher.ended.done()


def test_a_watcher_that_never_catches_up_is_dropped() -> None:
    """Who does not read what was there before holds no more events than one who does not read the live ones."""
    assert asyncio.run(_behind()) == (0, True)


def test_a_client_that_reads_nothing_of_what_was_there_is_dropped(server: RunningApiServer, run: Run) -> None:
    async def act(client: Client) -> None:
        for number in range(12):
            obj = configmap(f"large{number}", "default", large="1") | {"data": {"a": "x" * 900_000}}
            await client.create(CONFIGMAPS, obj)
        context = client.credentials.ssl_context()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, limit=1024)
        writer.write(b"GET /api/v1/configmaps?watch=1&labelSelector=large%3D1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        await reader.readexactly(10)
        for number in range(24):
            patch = {"data": {"a": f"{number}" + "y" * 900_000}}
            await client.patch(CONFIGMAPS, f"large{number % 12}", patch, "default")
        async with asyncio.timeout(20):
            received = 0
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                while True:
                    received += len(await reader.readexactly(1024))
        assert received < 20_000_000
        writer.close()
        for number in range(12):
            await client.delete(CONFIGMAPS, f"large{number}", "default")

    run(act)
