"""Several weave-nets, each in a network and mount namespace of its own, and the part of the API that they use."""

import asyncio
import base64
import sys
from pathlib import Path

from aiohttp import web

from kubewire.components.kubeapi.kubeconfig import Credentials, dump
from tests.components.networks.flannel.fabric import API_PORT, GATEWAY, Node, build_segment, until
from tests.components.networks.flannel.fake_api import FakeApi

RANGE = "10.32.0.0/24"


class Api(FakeApi):
    """Nodes as in flannel's tests, and one ConfigMap with resourceVersions; password: of the Secret weave-passwd."""

    def __init__(self, password=""):
        super().__init__()
        self.password = password
        self.configmap = None

    async def serve(self, host, port):
        app = web.Application()
        app.router.add_get("/api/v1/nodes", self._get)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._patch)
        there = "/api/v1/namespaces/kube-system/configmaps"
        app.router.add_get(there + "/weave-net", self._read)
        app.router.add_post(there, self._write)
        app.router.add_put(there + "/weave-net", self._write)
        app.router.add_get("/api/v1/namespaces/kube-system/secrets/weave-passwd", self._secret)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _read(self, _):
        if self.configmap is None:
            return web.json_response({"kind": "Status", "reason": "NotFound", "message": ""}, status=404)
        return web.json_response(self.configmap)

    async def _write(self, request):
        body = await request.json()
        now = self.configmap["metadata"]["resourceVersion"] if self.configmap else None
        if body["metadata"].get("resourceVersion") != now:
            reason = "AlreadyExists" if request.method == "POST" else "Conflict"
            return web.json_response({"kind": "Status", "reason": reason, "message": ""}, status=409)
        body["metadata"]["resourceVersion"] = str(int(now or 0) + 1)
        self.configmap = body
        return web.json_response(body)

    async def _secret(self, _):
        data = {"weave-passwd": base64.b64encode(self.password.encode()).decode()}
        return web.json_response({"metadata": {"name": "weave-passwd"}, "data": data})


def node_object(name, address):
    addresses = [{"type": "InternalIP", "address": address}]
    return {"metadata": {"name": name, "uid": name}, "spec": {}, "status": {"addresses": addresses, "conditions": []}}


class WeaveNode(Node):
    """A node with the real main as a process in it."""

    async def start_weave(self, count, *flags):
        folder = f"/run/{self.name}"
        config = Path(f"/tmp/{self.name}.kubeconfig")
        config.write_text(dump("fabric", Credentials(server=f"http://{GATEWAY}:{API_PORT}"), "weave-net"))
        self.agent = await asyncio.create_subprocess_exec(
            *self.argv(
                sys.executable, "-m", "kubewire.components.networks.weave", "--kubeconfig", str(config), "--nickname", self.name,
                "--interface", "eth0", "--ipalloc-range", RANGE, "--ipalloc-init", f"consensus={count}",
                "--cni-conf-dir", f"{folder}/net.d", "--cni-bin-dir", f"{folder}/bin", *flags,
            ),
            stderr=self.log.open("ab"),
        )  # fmt: skip

    async def kill(self):
        self.agent.kill()
        await self.agent.wait()

    async def http(self, path="status", method="GET"):
        return await self.sh(f"curl -s -X {method} http://127.0.0.1:6784/{path}")

    async def connections(self):
        return (await self.http("status/connections")).splitlines() if await self.answers() else []

    async def answers(self):
        done = await self.run("curl", "-sf", "http://127.0.0.1:6784/status", check=False)
        return done.returncode == 0

    async def exposed(self):
        """The bridge has its address: consensus is there."""
        return "inet " in await self.sh("ip -o -4 address show dev weave 2>/dev/null || true")

    async def is_meshed(self, count):
        return sum(" established " in line for line in await self.connections()) == count

    async def goes_by(self, way, count=1):
        return sum(f" {way} " in line for line in await self.connections()) == count


class Cluster:
    """count nodes w1, w2, ... (172.18.0.11, .12, ...) on one segment."""

    def __init__(self, count, *flags, password=""):
        self.api, self.flags = Api(password), flags
        self.nodes = [WeaveNode(f"w{number}", f"172.18.0.{10 + number}") for number in range(1, count + 1)]

    async def __aenter__(self):
        await build_segment()
        self._runner = await self.api.serve(GATEWAY, API_PORT)
        for node in self.nodes:
            await node.start()
            self.api.put(node_object(node.name, node.address))
        return self

    async def launch(self, *nodes):
        for node in nodes or self.nodes:
            await node.start_weave(len(self.nodes), *self.flags)

    async def up(self):
        """All launched, connected and with an address."""
        await self.launch()
        for node in self.nodes:
            await self.until(lambda node=node: node.is_meshed(len(self.nodes) - 1), f"{node.name} in the mesh")
            await self.until(node.exposed, f"{node.name} exposed")

    async def until(self, condition, what, timeout=20.0):
        try:
            return await until(condition, what, timeout)
        except AssertionError as error:
            logs = "\n".join(f"--- {node.name}\n{node.log.read_text()}" for node in self.nodes if node.log.exists())
            raise AssertionError(f"{error}\n{logs}") from error

    async def __aexit__(self, *_):
        for node in self.nodes:
            if node.agent and node.agent.returncode is None:
                await node.kill()
        await self._runner.cleanup()
