"""kube-proxy with thousands of Services: a full sync from cold next to the bare tool with the same text; then the whole
program before a real API server: start to first sync, memory, and how long from an EndpointSlice write to the rule.

Everything runs in network namespaces of its own; no packet is sent but between the processes on its loopback.

usage: python benchmarks/services.py sync|program iptables|nftables [SERVICES [ENDPOINTS [CHANGES]]]     (as root)
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import machine, row

from components.kube_proxy.backends import BACKENDS
from components.kube_proxy.config import KubeProxyConfiguration
from components.kube_proxy.iptables import rules as iptables_rules
from components.kube_proxy.local_traffic import LocalSource
from components.kube_proxy.metrics import Metrics
from components.kube_proxy.model import IPV4, Endpoint, Node, ServicePort, ServicePortName, State
from components.kube_proxy.nftables import plan as nftables_plan
from components.kube_proxy.nftables import rules as nftables_rules
from components.machinery.client import Client
from components.machinery.resources import ENDPOINTSLICES, NAMESPACES, SERVICES
from tests.components.apiserver.running import CHECKOUT, RunningApiServer
from tests.scratch import isolated

PODS, CONFIG = "10.128.0.0/9", {"cluster_cidr": "10.128.0.0/9"}
NODE = Node("node1", ("172.18.0.3",))
RUNS = 3
_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES = 12, 270, 1, 7
_SO_RCVBUFFORCE = 33


def cluster_ip(number: int) -> str:
    return f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def pod_ip(number: int) -> str:
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def state(services: int, endpoints: int) -> State:
    names = [ServicePortName("ns", f"svc-{number}", "http") for number in range(services)]
    return State(
        {name: ServicePort(cluster_ip(number), 80, "tcp") for number, name in enumerate(names, 256)},
        {
            name: tuple(Endpoint(pod_ip(pod), 8080, f"node{pod % 50}") for pod in _pods(number, endpoints))
            for number, name in enumerate(names, 256)
        },
        NODE,
    )


def _pods(service: int, endpoints: int) -> range:
    return range(service * endpoints, service * endpoints + endpoints)


def full_sync(mode: str, services: int, endpoints: int) -> tuple[float, float]:
    """Seconds: the backend from its construction on, in an empty namespace; of that, on the processor."""
    wanted = state(services, endpoints)
    began, used = time.monotonic(), time.process_time()
    backend = BACKENDS[mode](IPV4, KubeProxyConfiguration(mode=mode, **CONFIG), Metrics(), localhost_node_ports=False)
    asyncio.run(backend.sync(wanted, full=True))
    return time.monotonic() - began, time.process_time() - used


def bare_tool(mode: str, services: int, endpoints: int) -> float:
    """Seconds of `iptables-restore` or `nft -f` with the text of the same rules."""
    wanted = state(services, endpoints)
    local = LocalSource(PODS)
    if mode == "nftables":
        argv = ["nft", "-f", "-"]
        text = nftables_plan.render(wanted.services, wanted.endpoints, NODE, nftables_rules.Config(local_source=local))
    else:
        argv = ["iptables-restore", "--noflush"]
        text = iptables_rules.render(wanted.services, wanted.endpoints, NODE, iptables_rules.Config(local_source=local))
    began = time.monotonic()
    subprocess.run(argv, input=text.encode(), check=True)
    return time.monotonic() - began


def sync(mode: str, services: int, endpoints: int) -> None:
    ours = [isolated(full_sync, mode, services, endpoints, timeout=600) for _ in range(RUNS)]
    bare = [isolated(bare_tool, mode, services, endpoints, timeout=600)]
    what = f"{mode}, {services} Services x {endpoints}"
    print(row(f"{what}: full sync from cold", [seconds for seconds, _ in ours], "s"))
    print(row(f"{what}: of that on the processor", [seconds for _, seconds in ours], "s"))
    print(row(f"{what}: the bare tool, same text", bare, "s"), flush=True)


class RuleEvents:
    """What nf_tables announces after each commit."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        # A first load announces everything at once.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 29)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        self._socket.setblocking(False)

    async def seen(self, packed: bytes, seconds: float = 10.0) -> float:
        """When an announcement had these bytes."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            while True:
                if packed in await loop.sock_recv(self._socket, 1 << 20):
                    return time.monotonic()


def slice_of(number: int, addresses: list[str]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"svc-{number}-1",
            "namespace": "ns",
            "labels": {"kubernetes.io/service-name": f"svc-{number}"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


async def fill(client: Client, services: int, endpoints: int) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "ns"}})
    numbers = iter(range(256, 256 + services))

    async def worker() -> None:
        for number in numbers:
            ports = [{"name": "http", "port": 80, "targetPort": 8080}]
            spec = {"clusterIP": cluster_ip(number), "ports": ports}
            await client.create(SERVICES, {"metadata": {"name": f"svc-{number}", "namespace": "ns"}, "spec": spec})
            addresses = [pod_ip(pod) for pod in _pods(number, endpoints)]
            await client.create(ENDPOINTSLICES, slice_of(number, addresses))

    await asyncio.gather(*(worker() for _ in range(8)))


def proxy(kubeconfig: Path, mode: str, log: Path) -> subprocess.Popen[bytes]:
    flags = ["--kubeconfig", str(kubeconfig), "--hostname-override", "node1", "--proxy-mode", mode]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "components.kube_proxy", *flags, "--cluster-cidr", PODS],
            cwd=CHECKOUT,
            stdout=output,
            stderr=output,
        )


def memory(pid: int) -> float:
    """MiB of resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def changes(client: Client, services: int, endpoints: int, count: int) -> list[float]:
    events, found = RuleEvents(), []
    for turn in range(count):
        number = 256 + turn * 7 % services
        address = f"10.250.{turn >> 8}.{turn & 255}"
        addresses = [pod_ip(pod) for pod in _pods(number, endpoints - 1)] + [address]
        waiting = asyncio.create_task(events.seen(socket.inet_aton(address)))
        # A change alone: kube-proxy keeps a second between syncs after a burst of two.
        await asyncio.sleep(1.2)
        began = time.monotonic()
        patch = {"endpoints": slice_of(number, addresses)["endpoints"]}
        await client.patch(ENDPOINTSLICES, f"svc-{number}-1", patch, "ns")
        found.append((await waiting - began) * 1000)
    return found


def program(mode: str, services: int, endpoints: int, count: int) -> None:
    def body() -> dict[str, Any]:
        os.environ["HOME"] = "/tmp"
        with RunningApiServer() as api:
            return asyncio.run(_program(api.kubeconfig, mode, services, endpoints, count))

    seen = isolated(body, timeout=900)
    what = f"{mode}, {services} Services x {endpoints}"
    print(row(f"{what}: exec to first sync", [seen["first"]], "s"))
    print(row(f"{what}: memory then", [seen["memory"]], "MiB"))
    milliseconds = sorted(seen["changes"])
    print(row(f"{what}: EndpointSlice write to rule", milliseconds, "ms"))
    print(f"p99 {milliseconds[-max(1, len(milliseconds) // 100)]:.0f} ms", flush=True)


async def _program(kubeconfig: Path, mode: str, services: int, endpoints: int, count: int) -> dict[str, Any]:
    log = Path(tempfile.mkdtemp()) / "kube-proxy.log"
    async with Client.from_kubeconfig(kubeconfig) as client:
        await fill(client, services, endpoints)
        events = RuleEvents()
        last = socket.inet_aton(pod_ip(_pods(255 + services, endpoints)[-1]))
        began = time.monotonic()
        process = proxy(kubeconfig, mode, log)
        try:
            first = await events.seen(last, 120) - began
            await asyncio.sleep(3)  # what it took for the sync is given back or not, but settled
            used = memory(process.pid)
            found = await changes(client, services, endpoints, count)
        finally:
            process.terminate()
            process.wait()
    return {"first": first, "memory": used, "changes": found}


def main(argv: list[str]) -> None:
    what, mode, *numbers = argv
    services, endpoints, count = [int(text) for text in numbers] + [5000, 3, 30][len(numbers) :]
    print(machine())
    if what == "sync":
        sync(mode, services, endpoints)
    else:
        program(mode, services, endpoints, count)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1:])
