"""A small API server for component tests: list and watch of whatever a test puts in. Not Kubernetes'."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from kubewire.components.kubeapi.resources import KubeObject, Resource


class FakeApi:
    """Objects by resource; put() and remove() are seen by watchers. No authentication, plain HTTP."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], KubeObject]] = {}
        self._watchers: dict[str, list[asyncio.Queue[dict[str, Any]]]] = {}
        self._version = 1
        self.runner: web.AppRunner | None = None

    def put(self, resource: Resource[Any], obj: KubeObject) -> None:
        self._version += 1
        metadata = obj["metadata"] | {"resourceVersion": str(self._version)}
        metadata.setdefault("uid", f"{resource.plural}-{metadata.get('namespace', '')}-{metadata['name']}")
        stored = {"kind": resource.kind, "apiVersion": resource.api_version} | obj | {"metadata": metadata}
        known = self._objects.setdefault(resource.plural, {})
        key = metadata.get("namespace", ""), metadata["name"]
        self._tell(resource.plural, "MODIFIED" if key in known else "ADDED", stored)
        known[key] = stored

    def remove(self, resource: Resource[Any], name: str, namespace: str = "") -> None:
        self._version += 1
        obj = self._objects[resource.plural].pop((namespace, name))
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._tell(resource.plural, "DELETED", obj)

    def _tell(self, plural: str, event: str, obj: KubeObject) -> None:
        for queue in self._watchers.get(plural, []):
            queue.put_nowait({"type": event, "object": obj})

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """The server's URL."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._get)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, host, port)
        await site.start()
        return f"http://{host}:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self.runner:
            await self.runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rsplit("/", 1)[-1]
        if request.query.get("watch"):
            return await self._watch(request, plural)
        items = list(self._objects.get(plural, {}).values())
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        since = int(request.query["resourceVersion"])
        for obj in self._objects.get(plural, {}).values():
            if int(obj["metadata"]["resourceVersion"]) > since:
                queue.put_nowait({"type": "ADDED", "object": obj})
        watchers = self._watchers.setdefault(plural, [])
        watchers.append(queue)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            watchers.remove(queue)


def kubeconfig(url: str) -> str:
    """The text of a kubeconfig for start()'s URL."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
    )
