"""The part of the Kubernetes API that flanneld uses: nodes, with list, watch and a patch of their status."""

import asyncio
import copy
from typing import Any

import orjson
from aiohttp import web


class FakeApi:
    """Nodes by name; every change goes to every open watch."""

    def __init__(self):
        self.nodes = {}
        self.version = 1
        self.patches = []
        self.log = []
        self._watches = []

    def put(self, node):
        """Create or replace a Node."""
        name = node["metadata"]["name"]
        self._record("MODIFIED" if name in self.nodes else "ADDED", node)

    def remove(self, name):
        self._record("DELETED", self.nodes[name])

    def annotations(self, name):
        return self.nodes[name]["metadata"]["annotations"]

    def _record(self, kind, node):
        self.version += 1
        node = copy.deepcopy(node)
        node["metadata"]["resourceVersion"] = str(self.version)
        name = node["metadata"]["name"]
        if kind == "DELETED":
            del self.nodes[name]
        else:
            self.nodes[name] = node
        self.log.append((self.version, {"type": kind, "object": node}))
        for queue in self._watches:
            queue.put_nowait(self.log[-1][1])

    async def serve(self, host, port):
        app = web.Application()
        app.router.add_get("/api/v1/nodes", self._get)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._patch)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _get(self, request):
        if request.query.get("watch") != "true":
            body = {"metadata": {"resourceVersion": str(self.version)}, "items": list(self.nodes.values())}
            return web.Response(body=orjson.dumps(body), content_type="application/json")
        answer = web.StreamResponse()
        await answer.prepare(request)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for version, event in self.log:
            if version > int(request.query["resourceVersion"]):
                queue.put_nowait(event)
        self._watches.append(queue)
        try:
            while True:
                await answer.write(orjson.dumps(await queue.get()) + b"\n")
        finally:
            self._watches.remove(queue)

    async def _patch(self, request):
        name = request.match_info["name"]
        patch = await request.json()
        assert request.content_type == "application/strategic-merge-patch+json"
        self.patches.append((name, patch))
        if name not in self.nodes:
            status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": f'nodes "{name}" not found'}
            return web.Response(status=404, body=orjson.dumps(status), content_type="application/json")
        node = copy.deepcopy(self.nodes[name])
        node["metadata"].setdefault("annotations", {}).update((patch.get("metadata") or {}).get("annotations") or {})
        conditions = node.setdefault("status", {}).setdefault("conditions", [])
        for condition in (patch.get("status") or {}).get("conditions") or []:
            conditions[:] = [one for one in conditions if one["type"] != condition["type"]] + [condition]
        self._record("MODIFIED", node)
        return web.Response(body=orjson.dumps(self.nodes[name]), content_type="application/json")
