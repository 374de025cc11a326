"""kube-proxy as a process of node1, before a small API server: starting it, asking it, waiting for what it does."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from tests.components.kube_proxy import scratch

CONFIG = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
clientConnection: {kubeconfig: /run/kubeconfig}
iptables: {syncPeriod: 300ms, minSyncPeriod: 100ms}
"""


def service(name: str, ip: str, port: int = 80, protocol: str = "TCP", node_port: int = 0) -> dict[str, Any]:
    entry = {"port": port, "protocol": protocol, "name": "p"} | ({"nodePort": node_port} if node_port else {})
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [entry], "type": "NodePort" if node_port else "ClusterIP"}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": spec}


def endpoint_slice(name: str, pods: str, protocol: str = "TCP") -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [scratch.PODS[pod][1]], "nodeName": scratch.PODS[pod][0], "conditions": {"ready": True}}
            for pod in pods
        ],
        "ports": [{"name": "p", "port": 8080, "protocol": protocol}],
    }


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of condition, which is asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds} s: {condition}")
        await asyncio.sleep(0.02)


async def start(*more: str) -> asyncio.subprocess.Process:
    argv = ["-m", "kubewire.components.kube_proxy", "--config", "/run/config", "--hostname-override", "node1", *more]
    return await asyncio.create_subprocess_exec(sys.executable, *argv)


async def get(url: str) -> tuple[int, str]:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()
    except aiohttp.ClientError as error:
        return 0, str(error)


def fabric_flush(command: str = "iptables") -> None:
    os.system(f"for t in nat filter mangle; do {command} -t $t -F; {command} -t $t -X; done")


def fabric_save(command: str = "iptables-save") -> str:
    return os.popen(command).read()


def open_flow() -> Any:
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.settimeout(0.2)
    flow.connect(("10.96.0.53", 53))
    return flow


def exchange(flow: Any) -> str:
    try:
        flow.send(b"x")
        return str(flow.recv(512).decode())
    except OSError:
        return ""
