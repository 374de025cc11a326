"""Measures the API server alone: CPU time from exec to ready, memory then, and CPU time of requests.

usage: python benchmarks/apiserver.py [ROUNDS [CHECKOUT ...]]

Several checkouts are measured alternately, so that the machine's load falls on all alike. CPU time
is that of the server's threads, so other processes disturb it least. Requests are those of a user
to whom one ClusterRoleBinding gives everything. Needs no root and no lab.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_BATCH = 25
_NAMESPACE = "/api/v1/namespaces/bench"
_RBAC = "rbac.authorization.k8s.io"
_READY = "from exec to ready"


def _pod(name: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "nginx:1",
        "ports": [{"containerPort": 80, "name": "http"}],
        "env": [{"name": "A", "value": "b"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
        "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web", "tier": "front"}},
        "spec": {"containers": [container], "volumes": [{"name": "d", "emptyDir": {}}]},
    }


def _service(name: str) -> dict[str, Any]:
    port = {"port": 80, "targetPort": "http", "name": "http"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [port]},
    }


_RUNNING = {"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}}
_REQUESTS: Mapping[str, Callable[[_Client, str], None]] = {
    "pod create": lambda client, name: client.send("POST", f"{_NAMESPACE}/pods", _pod(name)),
    "pod status patch": lambda client, name: client.send(
        "PATCH", f"{_NAMESPACE}/pods/{name}/status", _RUNNING, "application/merge-patch+json"
    ),
    "pod get": lambda client, name: client.send("GET", f"{_NAMESPACE}/pods/{name}"),
    "service create": lambda client, name: client.send(
        "POST", f"{_NAMESPACE}/services", _service(name)
    ),
}


class _Client:
    """One connection with a client certificate."""

    def __init__(self, server: Any, user: str, *groups: str) -> None:
        issued = server.authority.issue(user, groups=groups)
        context = ssl.create_default_context(cafile=str(server.authority.certificate))
        context.load_cert_chain(issued.certificate, issued.key)
        self._connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)

    def send(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> None:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": kind})
        response = self._connection.getresponse()
        said = response.read()
        if response.status >= 400 and response.status != 409:
            raise RuntimeError(f"{method} {path}: {response.status} {said.decode()}")


def _cpu(pid: int) -> float:
    """CPU time of all threads that still run, in seconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _memory(pid: int) -> float:
    """Resident set size in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1]) / 1024


def _setting(server: Any) -> _Client:
    """A namespace, its ServiceAccount, and a user who may do everything by RBAC."""
    admin = _Client(server, "root", "system:masters")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
    admin.send("POST", "/api/v1/namespaces", namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    admin.send("POST", f"{_NAMESPACE}/serviceaccounts", account)
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": _RBAC}],
    }
    if "--authorization-mode" in server.argv():
        admin.send("POST", f"/apis/{_RBAC}/v1/clusterrolebindings", binding)
    return _Client(server, "jane", "dev")


def _serve() -> None:
    """Runs in the checkout's own environment: a line on stdin is a measurement, one on stdout its
    values as JSON."""
    from tests.components.apiserver.running import RunningApiServer

    with RunningApiServer() as server:
        client = _setting(server)
        rounds: Counter[str] = Counter()
        for line in sys.stdin:
            what = line.strip()
            if what == _READY:
                with RunningApiServer() as other:
                    values = {"cpu": _cpu(other.pid), "memory": _memory(other.pid)}
            else:
                before = _cpu(server.pid)
                for index in range(_BATCH):
                    # In the same round of another kind these names are those of its pods.
                    _REQUESTS[what](client, f"x{rounds[what]}-{index}")
                values = {"cpu": (_cpu(server.pid) - before) / _BATCH}
            rounds[what] += 1
            print(json.dumps(values), flush=True)


class _Checkout:
    """A checkout and the process that measures it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, list[float]] = {}
        environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}:{folder}"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, what: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        measured = json.loads(self._process.stdout.readline())
        self.values.setdefault(what, []).append(measured["cpu"])
        if "memory" in measured:
            self.values.setdefault("memory when ready", []).append(measured["memory"])

    def end(self) -> None:
        self._process.communicate()


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        _serve()
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    folders = [Path(name).resolve() for name in sys.argv[2:]] or [Path(__file__).parents[1]]
    checkouts = [_Checkout(folder) for folder in folders]
    for number in range(rounds + 1):
        for what in (*_REQUESTS, _READY):
            for checkout in checkouts if number % 2 else reversed(checkouts):
                checkout.measure(what)
    for checkout in checkouts:
        checkout.end()
        print(f"{checkout.folder.name}, {time.strftime('%Y-%m-%d')}, {rounds} rounds:")
        for what, values in checkout.values.items():
            scale, unit = (1, "MiB") if "memory" in what else (1e3, "ms of CPU")
            # The first round warms up: compiled files, caches, the first connection.
            median, least = statistics.median(values[1:]), min(values[1:])
            print(f"  {what}: {median * scale:.3f} {unit} (least {least * scale:.3f})")


if __name__ == "__main__":
    main()
