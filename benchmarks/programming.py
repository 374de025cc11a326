"""Measures the time from an API write to the rule in a node's kernel: an EndpointSlice of one
Service gets another address, and the nat table of worker-1 is read until it has the DNAT rule to
this address (lab of 3 workers, iptables mode).

usage: python benchmarks/programming.py [WRITES]      (needs root)
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from measure import kubewire, machine, row

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, SERVICES
from kubewire.lab.handle import RunningLab
from kubewire.lab.state import running

NAME = "perf-programming"
SERVICE = {
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {"ports": [{"name": "p", "port": 80}]},
}
#: Prints the nanosecond at which the rule was seen, at most 10 s from now. A look takes 3 to 10 ms.
LOOK = """
for _ in $(seq 2000); do
    iptables-save -t nat | grep -q -- "--to-destination $1:80" && exec date +%s%N
done
"""


def endpoint_slice(address: str) -> dict[str, object]:
    return {
        "metadata": {
            "name": "probe-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "probe"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "p", "port": 80, "protocol": "TCP"}],
    }


async def measured(lab: RunningLab, writes: int) -> list[float]:
    milliseconds = []
    async with Client.from_kubeconfig(lab.kubeconfig) as client:
        await client.create(SERVICES, SERVICE)
        await client.create(ENDPOINTSLICES, endpoint_slice("10.250.0.1"))
        for number in range(2, 2 + writes):
            address = f"10.250.0.{number}"
            look = lab.start("worker-1", argv=["sh", "-c", LOOK, "sh", address])
            # kube-proxy waits a second between syncs (minSyncPeriod 1s), so the writes are made one
            # at a time.
            await asyncio.sleep(1.5)
            began = time.time_ns()
            await client.patch(
                ENDPOINTSLICES,
                "probe-1",
                {"endpoints": endpoint_slice(address)["endpoints"]},
                "default",
            )
            done = await asyncio.to_thread(look.wait, 15.0)
            milliseconds.append((int(done.stdout) - began) / 1e6)
    return milliseconds


def main(writes: int) -> None:
    try:
        kubewire("up", "--name", NAME)
        milliseconds = asyncio.run(measured(RunningLab(*running(NAME)), writes))
    finally:
        kubewire("down", "--name", NAME)
    print(machine())
    print(row("EndpointSlice write to iptables rule on a worker", milliseconds, "ms"))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
