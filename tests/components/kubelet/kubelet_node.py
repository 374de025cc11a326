"""A node in namespaces of its own: API server, fork server, kubelet, bridge CNI; for tests of the whole.

@on_node makes a test of `async def test_x(node: Node)` that runs inside; the fixture scratch_node (conftest.py)
is the handle of the child process. When the child ends the kernel removes everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kernel import namespaces as ns
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS, EVENTS, NODES, PODS, SERVICEACCOUNTS, KubeObject
from kubewire.components.runtime.api import AsyncRuntimeClient, Process
from tests.scratch import code_visible

CHECKOUT = Path(__file__).resolve().parents[3]
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"
NODE_IP = "172.18.0.3"
DEADLINE = 15.0

CONFLIST: Any = {
    "cniVersion": "1.0.0",
    "name": "test",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    ],
}

CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
staticPodPath: /etc/kubernetes/manifests
crashLoopBackOff: {maxContainerRestartPeriod: 300s}
"""


def simple_pod(name: str, *containers: dict[str, Any], namespace: str = "default", **spec: Any) -> Any:
    """Containers default to a shell that sleeps and ends on SIGTERM."""
    listed = [{"image": "busybox:1.36", **item} for item in containers] or [{**sleeper(), "name": "app"}]
    body = {
        "nodeName": "worker-1",
        "terminationGracePeriodSeconds": 3,
        "tolerations": [{"operator": "Exists"}],
        "containers": listed,
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": body}


def sleeper(name: str = "app") -> Any:
    return {"name": name, "image": "busybox:1.36", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]}


def server(name: str = "app", **fields: Any) -> Any:
    """A small HTTP server on port 8080 that serves /srv/www (an emptyDir or nothing)."""
    command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/tmp"]
    return {"name": name, "image": "busybox:1.36", "command": command, **fields}


class Node:
    """The child's side."""

    def __init__(self) -> None:
        self.kubeconfig = Path("/run/kubeconfig")
        self.client: Client
        self.kubelet: subprocess.Popen[bytes] | None = None

    # Bring-up

    def build(self) -> None:
        self._mounts()
        lines = [
            "link set lo up",
            "link add eth0 type bridge",
            f"addr add {NODE_IP}/16 dev eth0",
            "link set eth0 up",
            "route add default via 172.18.0.1",
        ]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        Path("/opt/cni/bin").mkdir(parents=True, exist_ok=True)
        for plugin in Path("/usr/lib/cni").iterdir():
            with contextlib.suppress(FileExistsError):
                Path("/opt/cni/bin", plugin.name).symlink_to(plugin)
        from tests.components.apiserver.running import RunningApiServer

        self.api = RunningApiServer("--service-cluster-ip-range", "10.96.0.0/12")
        self.api.start()
        kubelet_certificate = self.api.authority.issue("worker-1", addresses=(NODE_IP, "127.0.0.1"))
        pki = Path("/var/lib/kubelet/pki")
        pki.mkdir(parents=True)
        Path("/etc/kubernetes/manifests").mkdir(parents=True)
        (pki / "kubelet.crt").write_bytes(kubelet_certificate.certificate.read_bytes())
        (pki / "kubelet.key").write_bytes(kubelet_certificate.key.read_bytes())
        Path("/run/config.yaml").write_text(CONFIG)
        self.runtime_process = self._start(
            "kubewire.components.runtime", "--socket", "/run/runtime.sock", "--state", "/run/rt"
        )
        _until(lambda: Path("/run/runtime.sock").exists(), "the fork server's socket")
        self.start_kubelet()

    def _mounts(self) -> None:
        ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
        ns.mount("proc", "/proc", "proc")
        ns.mount("sysfs", "/sys", "sysfs")
        with code_visible():
            for path in ("/run", "/tmp"):
                ns.mount("tmpfs", path, "tmpfs")
        for path in ("etc", "opt", "var"):
            base = Path("/run/overlay", path)
            for part in ("upper", "work"):
                (base / part).mkdir(parents=True)
            ns.mount("overlay", f"/{path}", "overlay", 0, f"lowerdir=/{path},upperdir={base}/upper,workdir={base}/work")
        Path("/run/netns").mkdir()

    def _start(self, module: str, *args: str) -> subprocess.Popen[bytes]:
        with Path(f"/run/{module}.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *args],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def start_kubelet(self) -> None:
        self.kubelet = self._start(
            "kubewire.components.kubelet",
            "--kubeconfig", str(self.api.kubeconfig_for("system:node:worker-1", "system:nodes")),
            "--hostname-override", "worker-1",
            "--node-ip", NODE_IP,
            "--config", "/run/config.yaml",
            "--container-runtime-endpoint", "unix:///run/runtime.sock",
            "--client-ca-file", str(self.api.authority.certificate),
            "--node-labels", "topology.kubernetes.io/zone=a",
            "-v", "4",
        )  # fmt: skip

    def kill_kubelet(self) -> None:
        assert self.kubelet is not None
        self.kubelet.kill()
        self.kubelet.wait()

    def set_network(self, config: dict[str, Any] | None) -> None:
        path = Path("/etc/cni/net.d/10-test.conflist")
        path.parent.mkdir(parents=True, exist_ok=True)
        if config is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps(config))

    def logs(self) -> str:
        return "\n".join(f"--- {path}\n{path.read_text()[-6000:]}" for path in sorted(Path("/run").glob("*.log")))

    # What tests do

    async def until(self, condition: Callable[[], Awaitable[Any]], what: str, seconds: float = DEADLINE) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := await condition():
                    return found
            except ApiError as error:
                if error.status not in (0, 404):
                    raise
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}\n{self.logs()}")
            await asyncio.sleep(0.02)

    async def ready_node(self) -> Any:
        self.set_network(CONFLIST)
        return await self.until(lambda: self.node_condition("True"), "the node is ready")

    async def node_condition(self, status: str) -> KubeObject | None:
        node: Any = await self.client.get(NODES, "worker-1")
        ready = condition(node, "Ready")
        return node if ready and ready["status"] == status else None

    async def get(self, name: str, namespace: str = "default") -> Any:
        return await self.client.get(PODS, name, namespace)

    async def create(self, pod: KubeObject) -> Any:
        return await self.client.create(PODS, pod)

    async def pod_where(
        self, name: str, test: Callable[[KubeObject], Any], what: str, seconds: float = DEADLINE
    ) -> Any:
        async def check() -> KubeObject | None:
            pod = await self.get(name)
            return pod if test(pod) else None

        try:
            found: Any = await self.until(check, f"pod {name}: {what}", seconds)
            return found
        except AssertionError as error:
            pod = await self.get(name)
            events = [f"{e['reason']}: {e['message']}" for e in await self.events(name)]
            raise AssertionError(f"{error}\n{json.dumps(pod.get('status'), indent=1)}\n{events}") from error

    async def running(self, pod: KubeObject) -> Any:
        """Created and Ready."""
        created = await self.create(pod)
        return await self.pod_where(created["metadata"]["name"], is_ready, "is ready")

    async def events(self, name: str) -> list[KubeObject]:
        listed: Any = await self.client.list(EVENTS, "default", field_selector=f"involvedObject.name={name}")
        return listed.items

    async def event(self, name: str, reason: str, text: str = "") -> Any:
        async def check() -> KubeObject | None:
            found = [e for e in await self.events(name) if e["reason"] == reason and text in e["message"]]
            return found[0] if found else None

        found: Any = await self.until(check, f"event {reason} of {name}: {text}")
        return found

    async def gone(self, name: str, seconds: float = DEADLINE) -> None:
        async def check() -> bool:
            try:
                await self.get(name)
            except ApiError as error:
                return error.status == 404
            return False

        await self.until(check, f"pod {name} is gone", seconds)

    async def delete(self, name: str, grace: int | None = None) -> None:
        await self.client.delete(PODS, name, "default", grace_period_seconds=grace)

    @contextlib.asynccontextmanager
    async def runtime(self) -> AsyncIterator[AsyncRuntimeClient]:
        client = await AsyncRuntimeClient.connect("/run/runtime.sock")
        try:
            yield client
        finally:
            await client.close()

    async def processes(self, pod: KubeObject) -> list[Process]:
        async with self.runtime() as client:
            return await client.list({"io.kubernetes.pod.uid": pod["metadata"]["uid"]})

    async def output(self, pod: KubeObject, container: str, *argv: str) -> str:
        """What a command in a container says."""
        from kubewire.components.runtime.api import ProcessSpec

        container_id = status(pod, container)["containerID"].removeprefix("kubewire://")
        async with self.runtime() as client:
            done = await client.run(ProcessSpec(argv=argv, container=container_id), timeout=10)
        return (done.stdout + done.stderr).decode()


def status(pod: KubeObject, container: str) -> Any:
    both = [*pod["status"].get("containerStatuses", []), *pod["status"].get("initContainerStatuses", [])]
    return next((item for item in both if item["name"] == container), {})


def condition(obj: KubeObject, kind: str) -> dict[str, Any] | None:
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind), None)


def is_ready(obj: KubeObject) -> bool:
    found = condition(obj, "Ready")
    return found is not None and found["status"] == "True"


def _until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


Body = Callable[[Node], Awaitable[None]]
#: Known to the child because it is forked after all test modules are imported.
BODIES: dict[str, Body] = {}


def on_node(body: Body) -> Callable[[Scratch], None]:
    """Decorator: the test runs inside the scratch node."""
    key = f"{body.__module__}.{body.__qualname__}"
    BODIES[key] = body

    def test(scratch_node: Scratch) -> None:
        scratch_node.call(key)

    test.__doc__, test.__name__ = body.__doc__, body.__name__
    return pytest.mark.packet(test)


class Scratch:
    """The test's side."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._child = os.fork()
        if self._child == 0:
            ours.close()
            _inside(theirs)
        theirs.close()
        self._receive()

    def call(self, body: str) -> Any:
        """Runs one of BODIES; its failure is raised here."""
        _send(self._socket, body)
        return self._receive()

    def _receive(self) -> Any:
        ok, value = _receive(self._socket)
        if not ok:
            raise AssertionError(value)
        return value

    def close(self) -> None:
        self._socket.close()
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


def _send(channel: socket.socket, value: Any) -> None:
    raw = pickle.dumps(value)
    channel.sendall(struct.pack("!I", len(raw)) + raw)


def _receive(channel: socket.socket) -> Any:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = channel.recv(size - len(data))
            if not chunk:
                raise EOFError("the scratch node ended")
            data += chunk
        return data

    return pickle.loads(exactly(*struct.unpack("!I", exactly(4))))


def _inside(channel: socket.socket) -> None:
    """Never returns: a parent that only waits, so that the grandchild is PID 1 of its own namespace."""
    ns.set_parent_death_signal(signal.SIGKILL)
    ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(1)
    ns.set_parent_death_signal(signal.SIGKILL)
    node = Node()
    try:
        node.build()
        asyncio.run(_with_client(node, _prepare))
        _send(channel, (True, None))
        while True:
            body = BODIES[_receive(channel)]
            try:
                _send(channel, (True, asyncio.run(_with_client(node, body))))
            except BaseException:
                _send(channel, (False, traceback.format_exc()))
    except EOFError:
        pass
    except BaseException:
        _send(channel, (False, traceback.format_exc() + node.logs()))
    os._exit(0)


async def _prepare(node: Node) -> None:
    """What the controllers do for each namespace; there are none here."""
    ca = {"ca.crt": node.api.authority.certificate.read_text()}
    for resource, name, fields in (
        (SERVICEACCOUNTS, "default", {}),
        (CONFIGMAPS, "kube-root-ca.crt", {"data": ca}),
    ):
        head: Any = {"apiVersion": "v1", "kind": resource.kind, "metadata": {"name": name, "namespace": "default"}}
        with contextlib.suppress(ApiError):
            await node.client.create(resource, head | fields)


async def _with_client(node: Node, body: Body) -> None:
    async with Client.from_kubeconfig(node.api.kubeconfig) as client:
        node.client = client
        await body(node)
