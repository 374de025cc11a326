"""Compares the pod networks with each other, and with a bare veth pair in the same run.

usage: python benchmarks/networks.py [NETWORK ...]

Needs root. All networks together take about eight minutes. Each network runs in a new lab of three
workers, in which three things are measured:

  start        time from creating a pod on a given node to Ready, while 200 others run (20 pods, one
               after another)
  throughput   iperf3, one TCP connection, to a pod on another node, 3 s, median of 3
  round trip   ping -f, 30,000 packets; and the machine's busy time per packet, less that of the start

The scenario node-joins-and-leaves checks for every network that a pod on a new node can be reached
within 2 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from measure import kubewire, machine

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import PODS, KubeObject

NETWORKS = (
    "flannel/vxlan",
    "flannel/host-gw",
    "calico/vxlan",
    "calico/bgp",
    "weave/vxlan",
    "aws-vpc/secondary-ip",
    "azure/transparent",
    "azure/overlay",
)
#: Room for 200 pods on three nodes.
MORE = {"aws-vpc": {"instanceType": "m5.4xlarge", "maxPods": 234}, "azure": {"maxPods": 110}}
NAME, PODS_BEFORE, STARTS, PINGS, STREAMS = "bench-net", 200, 20, 30000, 3
PAUSE, NETSHOOT = "registry.k8s.io/pause:3.10", "nicolaka/netshoot"


def pod(name: str, node: str, image: str = PAUSE, *command: str) -> KubeObject:
    container = {"name": "app", "image": image} | ({"command": list(command)} if command else {})
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }


def is_ready(one: KubeObject) -> bool:
    conditions = one.get("status", {}).get("conditions") or ()
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


async def ready_within(client: Client, wanted: set[str]) -> None:
    """Waits until these pods in the default namespace are Ready. Raises TimeoutError after a
    minute."""
    async with asyncio.timeout(60):
        listed = await client.list(PODS, "default")
        left = wanted - {one["metadata"]["name"] for one in listed.items if is_ready(one)}
        if left:
            async for event in client.watch(
                PODS,
                "default",
                resource_version=listed.resource_version,
            ):
                if event.type == "MODIFIED" and is_ready(event.object):
                    left.discard(event.object["metadata"]["name"])
                    if not left:
                        return


async def start(client: Client, name: str, node: str) -> float:
    """Starts a pod; returns the seconds from the request to Ready."""
    began = time.monotonic()
    await client.create(PODS, pod(name, node))
    await ready_within(client, {name})
    return time.monotonic() - began


def busy() -> float:
    """Seconds for which the machine's processors have been busy."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def busy_while(work: Callable[[], object]) -> float:
    before = busy()
    work()
    return busy() - before


def round_trip(ping: Callable[[int], str]) -> tuple[float, float]:
    """Microseconds of a round trip, and of CPU time for it. ping: the command for a number of
    packets."""
    start = min(busy_while(lambda: ping(1)) for _ in range(3))
    before = busy()
    text = ping(PINGS)
    used = busy() - before - start
    found = re.search(r"= [\d.]+/([\d.]+)/", text)
    assert found, text
    return float(found[1]) * 1000, used / PINGS * 1e6


def gigabits(text: str) -> float:
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e9


BARE = """
set -e; mount -t tmpfs none /run; mkdir /run/netns
ip netns add a; ip netns add b
ip link add va netns a type veth peer name vb netns b
for n in a b; do ip -n $n link set lo up; ip -n $n link set v$n up; done
ip -n a addr add 10.0.0.1/24 dev va; ip -n b addr add 10.0.0.2/24 dev vb
"""
_STREAM = """
ip netns exec b iperf3 -s -D >/dev/null 2>&1
until ip netns exec a iperf3 -c 10.0.0.2 -t 3 -J; do :; done
"""


def bare() -> tuple[float, float, float]:
    """Throughput in Gbit/s, round trip and CPU time in us of a veth pair between two namespaces."""

    def run(script: str) -> str:
        command = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            BARE + script,
        ]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    stream = median(gigabits(run(_STREAM)) for _ in range(STREAMS))
    latency, processor = round_trip(
        lambda count: run(f"ip netns exec a ping -f -q -c {count} 10.0.0.2"),
    )
    return stream, latency, processor


@asynccontextmanager
async def lab(network: str) -> AsyncIterator[Client]:
    plugin, _, backend = network.partition("/")
    spec = {"cni": {"plugin": plugin, "backend": backend, **MORE.get(plugin, {})}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(json.dumps(spec))
        file.flush()
        kubewire("up", "-f", file.name, "--name", NAME)
    try:
        async with Client.from_kubeconfig(f"/run/kubewire/{NAME}/kubeconfig") as client:
            yield client
    finally:
        kubewire("down", "--name", NAME)


def inside(name: str, *command: str) -> str:
    return kubewire("kubectl", "--name", NAME, "exec", name, "--", *command, timeout=120).stdout


async def measure(network: str) -> dict[str, float]:
    async with lab(network) as client:
        names = [f"before-{number}" for number in range(PODS_BEFORE)]
        for number, name in enumerate(names):
            await client.create(PODS, pod(name, f"worker-{number % 3 + 1}"))
        await ready_within(client, set(names))
        starts = sorted(
            [await start(client, f"one-{number}", "worker-1") for number in range(STARTS)],
        )
        await client.create(PODS, pod("a", "worker-1", NETSHOOT, "sleep", "1h"))
        await client.create(PODS, pod("b", "worker-2", NETSHOOT, "iperf3", "-s"))
        await ready_within(client, {"a", "b"})
        address = (await client.get(PODS, "b", "default"))["status"]["podIP"]
        there = f"until iperf3 -c {address} -n 1 >/dev/null 2>&1; do :; done"  # Ready is before it listens
        await asyncio.to_thread(inside, "a", "sh", "-c", there)
        iperf = ("iperf3", "-c", address, "-t", "3", "-J")
        stream = median(
            [gigabits(await asyncio.to_thread(inside, "a", *iperf)) for _ in range(STREAMS)],
        )
        latency, processor = await asyncio.to_thread(
            round_trip, lambda count: inside("a", "ping", "-f", "-q", "-c", str(count), address)
        )
        return {
            "start_p50": median(starts) * 1000,
            "start_most": starts[-1] * 1000,
            "stream": stream,
            "latency": latency,
            "processor": processor,
        }


def main() -> None:
    chosen = sys.argv[1:] or list(NETWORKS)
    print(machine(), flush=True)
    stream, latency, processor = bare()
    print(
        f"{'bare veth pair':22} {'':18} {stream:6.1f} Gbit/s  {latency:5.0f} us  {processor:5.0f} us of CPU",
        flush=True,
    )
    for network in chosen:
        found = asyncio.run(measure(network))
        print(
            f"{network:22} {found['start_p50']:5.0f} ms (most {found['start_most']:3.0f}) {found['stream']:6.1f} Gbit/s"
            f" ({found['stream'] / stream:.2f})  {found['latency']:5.0f} us ({found['latency'] / latency:.1f})"
            f"  {found['processor']:5.0f} us of CPU ({found['processor'] / processor:.1f})",
            flush=True,
        )
    if not sys.argv[1:]:
        began = time.monotonic()
        kubewire("run", "-j", "2", "every-network-keeps-them", timeout=600)
        print(f"every network x invariants: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
