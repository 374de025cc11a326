"""Two API servers, one node: each gives the same NodePort to a Service of its own, for nobody compares. Each feeds a
kube-proxy there. Who is programmed last has the port, without a word anywhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.components.apiserver.running import RunningApiServer
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.process import endpoint_slice, service, until
from tests.components.kube_proxy.scratch import HOSTS, PODS, Fabric

PORT = 30055
CONFIG = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
clusterCIDR: 10.244.0.0/16
clientConnection: {{kubeconfig: {kubeconfig}}}
healthzBindAddress: 127.0.0.1:{health}
metricsBindAddress: 127.0.0.1:{metrics}
iptables: {{syncPeriod: 300ms, minSyncPeriod: 100ms}}
nftables: {{syncPeriod: 300ms, minSyncPeriod: 100ms}}
"""


def _create(server: RunningApiServer, name: str, cluster_ip: str, pod: str) -> str:
    addresses = [{"type": "InternalIP", "address": HOSTS["node1"]}]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}, "status": {"addresses": addresses}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}
    exposed = {"apiVersion": "v1", "kind": "Service"} | service(name, cluster_ip, node_port=PORT)
    backend = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"} | endpoint_slice(name, pod)
    objects = {"apiVersion": "v1", "kind": "List", "items": [node, namespace, exposed, backend]}
    command = [
        "kubectl",
        "--kubeconfig",
        str(server.kubeconfig),
        f"--cache-dir={server.folder}/cache",
        "create",
        "-f",
        "-",
    ]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _conflict(mode: str) -> Any:
    def work(fabric: Fabric) -> list[Any]:
        async def start(number: int, kubeconfig: Path) -> asyncio.subprocess.Process:
            config = Path(f"/run/config-{number}")
            ports = {"health": 10256 + number * 100, "metrics": 10249 + number * 100}
            config.write_text(CONFIG.format(mode=mode, kubeconfig=kubeconfig, **ports))
            argv = ["-m", "kubewire.components.kube_proxy", "--config", str(config), "--hostname-override", "node1"]
            return await asyncio.create_subprocess_exec(sys.executable, *argv)

        def who() -> str:
            return fabric.ask("client", HOSTS["node1"], PORT, timeout=0.5).endpoint

        async def life() -> list[Any]:
            seen: list[Any] = []
            with RunningApiServer() as first, RunningApiServer() as second:
                for server, name, ip, pod in ((first, "one", "10.96.0.31", "a"), (second, "two", "10.96.0.32", "b")):
                    seen.append("service/" + name in _create(server, name, ip, pod))
                proxies = [await start(0, first.kubeconfig)]
                await until(lambda: who() == "a")
                proxies.append(await start(1, second.kubeconfig))
                await until(lambda: who() == "b")
                proxies[0].terminate()
                seen.append(await proxies[0].wait())
                seen.append(who())
                proxies[0] = await start(0, first.kubeconfig)
                await until(lambda: who() == "a")
                for proxy in proxies:
                    proxy.terminate()
                    seen.append(await proxy.wait())
            return seen

        for pod in ("a", "b"):
            fabric.serve(pod)
        fabric.answer_forever()
        found: list[Any] = fabric.inside("node1", lambda: asyncio.run(life()))
        return found

    return scratch.run(work, seconds=90)


@pytest.mark.packet
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_both_accept_the_port_and_who_is_programmed_last_has_it(mode: str) -> None:
    assert PODS["a"] != PODS["b"]
    assert _conflict(mode) == [True, True, 0, "b", 0, 0]
