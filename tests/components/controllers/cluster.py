"""A control plane in processes (API server, controllers, scheduler) with nodes that only pretend: a fake kubelet
in a thread registers them, renews leases and marks pods Running and Ready through the API."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.events import timestamp
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.resources import LEASES, NODES, PODS, KubeObject
from tests.components.apiserver.running import CHECKOUT, RunningApiServer

DEADLINE = 60.0


class FakeKubelet:
    """silent: names of nodes that renew no lease, post no status and touch no pod. unready: label app of pods
    that never become ready."""

    def __init__(self, kubeconfig: str, nodes: Iterable[Any]) -> None:
        self.silent: set[str] = set()
        self.unready: set[str] = set()
        self._kubeconfig, self._nodes = kubeconfig, list(nodes)
        self._loop = asyncio.new_event_loop()
        self._addresses: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(DEADLINE)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(DEADLINE)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        self._loop.close()

    async def _serve(self) -> None:
        async with Client.from_kubeconfig(self._kubeconfig) as self._client:
            for node in self._nodes:
                await self._client.create(NODES, node)
            self._started.set()
            informer = Informer(self._client, PODS, handler=self._on_pod)
            try:
                await asyncio.gather(informer.run(), self._leases())
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _leases(self) -> None:
        while True:
            for node in self._nodes:
                if node["metadata"]["name"] not in self.silent:
                    await self._heartbeat(node["metadata"]["name"])
            await asyncio.sleep(0.5)

    async def _heartbeat(self, name: str) -> None:
        try:
            await self._renew(name)
            await self._post_ready(name)
        except ApiError as error:
            if error.status not in (0, 404, 409):  # the API server is away, or a test deleted the node: next time
                raise

    async def _post_ready(self, name: str) -> None:
        """As a kubelet does at each nodeStatusUpdateFrequency: what others have made of its Ready is put right."""
        status = (await self._client.get(NODES, name))["status"]
        standing: dict[str, Any] = {item["type"]: item for item in status.get("conditions") or []}
        if standing.get("Ready", {}).get("status") != "True":
            await self._client.patch(NODES, name, {"status": {"conditions": [ready_condition()]}}, subresource="status")

    async def _renew(self, name: str) -> None:
        spec = {"holderIdentity": name, "renewTime": f"{timestamp()[:-1]}.{time.time_ns() // 1000 % 10**6:06}Z"}
        try:
            await self._client.patch(LEASES, name, {"spec": spec}, "kube-node-lease")
        except ApiError as error:
            if error.status != 404:
                raise
            metadata = {"name": name, "namespace": "kube-node-lease"}
            lease: Any = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await self._client.create(LEASES, lease)

    def _on_pod(self, old: Any, new: Any) -> None:
        node = (new or {}).get("spec", {}).get("nodeName")
        if new is None or not node or node in self.silent:
            return
        task = asyncio.create_task(self._tend(new))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tend(self, pod: KubeObject) -> None:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        while True:
            try:
                if metadata.get("deletionTimestamp"):
                    await self._client.delete(PODS, name, namespace, grace_period_seconds=0, uid=metadata["uid"])
                elif pod["status"].get("phase") == "Pending":
                    status = self._running(pod)
                    await self._client.patch(PODS, name, {"status": status}, namespace, subresource="status")
            except ApiUnavailable:
                await asyncio.sleep(0.05)  # the API server is away at the moment; no event will come again for this
                continue
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
            return

    def _running(self, pod: KubeObject) -> Any:
        uid, count = pod["metadata"]["uid"], len(self._addresses)
        address = self._addresses.setdefault(uid, f"10.244.{count // 250}.{count % 250 + 2}")
        if (pod["metadata"].get("labels") or {}).get("finish"):
            return {"phase": pod["metadata"]["labels"]["finish"], "podIP": address, "podIPs": [{"ip": address}]}
        ready = (pod["metadata"].get("labels") or {}).get("app") not in self.unready
        kept = [item for item in pod["status"].get("conditions") or [] if item["type"] == "PodScheduled"]
        now = timestamp()
        return {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": [
                *kept,
                {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now},
            ],
        }


def ready_condition() -> Any:
    now = timestamp()
    return {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }


def fake_node(name: str, **given: Any) -> Any:
    """labels, taints, cpu."""
    conditions = [ready_condition()]
    resources = {"cpu": given.get("cpu", "8"), "memory": "16Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **given.get("labels", {})}},
        "spec": {"taints": given["taints"]} if given.get("taints") else {},
        "status": {"capacity": resources, "allocatable": resources, "conditions": conditions},
    }


class Cluster:
    """`with Cluster(nodes) as cluster:`; cluster.kubectl("get", "pods"); cluster.wait(lambda: ...)."""

    def __init__(self, nodes: Iterable[Any], *, controller_flags: Iterable[str] = ()) -> None:
        self.api = RunningApiServer()
        self._flags = list(controller_flags)
        self._nodes = list(nodes)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        self.api.__enter__()
        self.kubeconfig = str(self.api.kubeconfig)
        # The rights of upstream's roles, and no more.
        self._identities = {
            "controllers": self.api.kubeconfig_for("system:kube-controller-manager"),
            "scheduler": self.api.kubeconfig_for("system:kube-scheduler"),
        }
        self.start("controllers")
        self.start("scheduler")
        self.kubelet = FakeKubelet(self.kubeconfig, self._nodes)
        self.kubelet.start()
        self.wait(lambda: self.objects("serviceaccounts", "-n", "default"), "ServiceAccount default")
        return self

    def __exit__(self, *_: object) -> None:
        self.kubelet.stop()
        for name in list(self.processes):
            self.stop(name)
        self.api.__exit__(None, None, None)

    def start(self, name: str) -> None:
        flags = {
            "controllers": [
                "--use-service-account-credentials",
                "--allocate-node-cidrs",
                "--cluster-cidr=10.244.0.0/16",
                f"--root-ca-file={self.api.authority.certificate}",
                *self._flags,
            ],
            "scheduler": [],
        }[name]
        with (self.api.folder / f"{name}.log").open("ab") as output:
            command = [sys.executable, "-m", f"components.{name}", "--kubeconfig", str(self._identities[name])]
            self.processes[name] = subprocess.Popen(
                [*command, "--secure-port=0", *flags],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def stop(self, name: str) -> int:
        """SIGTERM; its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(DEADLINE)

    def log(self, name: str) -> str:
        return (self.api.folder / f"{name}.log").read_text()

    def kubectl(self, *args: str, stdin: str = "", check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, f"--cache-dir={self.api.folder}/cache", *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {args}: {done.stderr}\n{self.log('controllers')[-3000:]}"
        return done.stdout + ("" if check else done.stderr)

    def apply(self, *objects: KubeObject) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(listed))

    def run_readme(self, component: str) -> dict[str, str]:
        """Runs the kubectl lines of a component's README; output by line."""
        text = (CHECKOUT / "components" / component / "README.md").read_text()
        lines = text.partition("```sh\n")[2].partition("```")[0].splitlines()
        assert lines, "the README has no example"
        return {line: self.kubectl(*shlex.split(line)[1:]) for line in lines}

    def objects(self, *args: str) -> list[KubeObject]:
        """kubectl get ... -o json."""
        found: list[KubeObject] = json.loads(self.kubectl("get", *args, "-o", "json"))["items"]
        return found

    def wait(self, condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE) -> Any:
        """The condition's first true value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.05)
        logs = "".join(f"\n--- {name}\n{self.log(name)[-2000:]}" for name in self.processes)
        raise AssertionError(f"waited in vain for {what}{logs}")
