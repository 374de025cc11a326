"""Measures how soon the kernel of a node follows its BGP peers. The node has two uplinks, each to a
router, in a separate sandbox.

usage: PYTHONPATH=src:. python benchmarks/bgp.py [RUNS]

Needs root. With the default of 5 runs for each router it takes about two minutes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from tests.components.bgp import routers
from tests.components.bgp.fabric import configuration, until
from tests.components.bgp.test_sessions import both_up, peers, racks
from tests.scratch import isolated

PREFIX = "172.30.0.0/16"
BOTH, SECOND = ["10.0.1.2", "10.0.2.2"], ["10.0.2.2"]


async def one_run(kind: Any) -> dict[str, float]:
    """Seconds from each event to the change of the route. The kernel is read every 20 ms."""
    node, tors = await racks(kind, 2)
    for tor in tors:
        await tor.start()
    await node.start_daemon(configuration(peers(2)))
    await both_up(node, tors)
    figures = {}

    async def measure(name: str, event: Callable[[], Awaitable[object]], hops: list[str]) -> None:
        async def there() -> bool:
            return bool((await node.kernel_routes()).get(PREFIX) == hops)

        began = time.monotonic()
        await event()
        await until(there, name, timeout=30)
        figures[name] = time.monotonic() - began

    await measure("settle", lambda: asyncio.sleep(0), BOTH)
    await measure("link down", lambda: tors[0].host.sh("ip link set eth1 down"), SECOND)
    await measure("link up", lambda: tors[0].host.sh("ip link set eth1 up"), BOTH)
    await measure("router killed", tors[0].kill, SECOND)
    await measure("router started", tors[0].start, BOTH)
    await measure("withdrawal", tors[0].withdraw, SECOND)
    return figures


def main() -> None:
    if not routers.unpacked():
        raise SystemExit("Debian's bird2, frr and gobgpd cannot be downloaded")
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for kind in (routers.Bird, routers.Frr, routers.GoBgp):
        rows = [
            isolated(lambda kind=kind: asyncio.run(one_run(kind)), timeout=90) for _ in range(runs)
        ]
        for name in rows[0]:
            if name != "settle":
                values = sorted(row[name] for row in rows)
                spread = f"{values[0] * 1000:.0f}-{values[-1] * 1000:.0f}"
                print(
                    f"{kind.__name__:6} {name:15} {median(values) * 1000:6.0f} ms   {spread}, {runs} runs",
                    flush=True,
                )


if __name__ == "__main__":
    main()
