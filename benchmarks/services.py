"""Measures kube-proxy with thousands of Services: a first full sync, compared with the bare tool
and the same text; the sync of one changed slice; the whole program; many programs that follow
changes; and the first packet of a connection.

Everything runs in separate network namespaces. Packets are sent only on their loopback interfaces
and between them.

usage, as root (the defaults are in parentheses):

  python benchmarks/services.py all                 every table; takes about 15 minutes
  python benchmarks/services.py sync MODE [SERVICES [ENDPOINTS]]                  (5000 3)
  python benchmarks/services.py program MODE [SERVICES [ENDPOINTS [CHANGES]]]     (5000 3 100)
  python benchmarks/services.py follow MODE [PROXIES [SERVICES [RATE [SECONDS]]]] (20 1000 100 20)
  python benchmarks/services.py first-packet [SIZE ...]                           (100 1000 5000 10000)

MODE: iptables, iptables-legacy (sync only), nftables
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

from measure import machine, percentile, row
from service_objects import NODE, PODS, changed_ip, state
from service_program import follow, program

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink.netlink import NfTablesSocket
from kubewire.components.kernel.nfnetlink.tables import Table
from kubewire.components.kube_proxy.backends import BACKENDS
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables import rules as iptables_rules
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.nftables import plan as nftables_plan
from kubewire.components.kube_proxy.nftables import rules as nftables_rules
from kubewire.components.kube_proxy.state.local_traffic import LocalSource
from kubewire.components.kube_proxy.state.model import IPV4, Endpoint
from kubewire.scenarios.catalogue.services import first_packet
from tests.scratch import isolated

RUNS, CHANGES, PACKETS = 3, 20, 200
LEGACY = "iptables-legacy"
#: Seconds: the bare tool runs only once when it takes so long.
LONG = 5


@dataclass
class Synced:
    """The figures of a sync. full, processor: seconds. changed, check: milliseconds."""

    full: float = 0.0
    processor: float = 0.0
    changed: list[float] = field(default_factory=list)
    check: float = 0.0


def _choose_variant(mode: str) -> None:
    """Adds the chain by which the kubelet shows that this node uses the legacy variant."""
    if mode == LEGACY:
        subprocess.run(["iptables-legacy", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"], check=True)


def synced(mode: str, services: int, endpoints: int) -> Synced:
    """Measures a backend from its construction on, in an empty namespace, and then the change of
    one endpoint of one Service."""
    _choose_variant(mode)
    wanted, name, found = state(services, endpoints), mode.removesuffix("-legacy"), Synced()
    began, used = time.monotonic(), time.process_time()
    config = KubeProxyConfiguration(mode=name, cluster_cidr=PODS)
    backend = BACKENDS[name](IPV4, config, Metrics(), localhost_node_ports=False)
    asyncio.run(backend.sync(wanted, full=True))
    found.full, found.processor = time.monotonic() - began, time.process_time() - used
    known, names = dict(wanted.endpoints), list(wanted.services)

    async def change_some() -> None:
        for turn in range(CHANGES):
            one = names[turn * 37 % services]
            known[one] = (*known[one][:-1], Endpoint(changed_ip(turn), 8080))
            # The kernel frees what the earlier change has deleted, and a rule with an extension
            # waits for that.
            await asyncio.sleep(0.1)
            started = time.monotonic()
            await backend.sync(
                replace(wanted, endpoints=known, changed=frozenset({one})),
                full=False,
            )
            found.changed.append((time.monotonic() - started) * 1000)

    asyncio.run(change_some())
    if mode != LEGACY:
        found.check = _kernels_check("kube-proxy" if mode == "nftables" else "nat")
    return found


def _kernels_check(name: str) -> float:
    """Milliseconds that nf_tables takes to add a jump to this table, in an unreferenced chain. It
    searches for loops along every way from every base chain (nft_table_validate), so no change of
    the rules can take less."""
    table, times = Table("ip", name), []
    with NfTablesSocket() as kernel:
        kernel.transact([table.add_chain("unused"), table.add_chain("unused-too")])
        for _ in range(9):
            started = time.monotonic()
            kernel.transact(
                [table.add_rule("unused", [ex.immediate_verdict("jump", "unused-too")])],
            )
            times.append((time.monotonic() - started) * 1000)
    return statistics.median(times)


def bare_tool(mode: str, services: int, endpoints: int) -> float:
    """Seconds that `iptables-restore` or `nft -f` takes with the text of the same rules."""
    wanted, local = state(services, endpoints), LocalSource(PODS)
    if mode == "nftables":
        argv = ["nft", "-f", "-"]
        text = nftables_plan.render(
            wanted.services,
            wanted.endpoints,
            NODE,
            nftables_rules.Config(local_source=local),
        )
    else:
        argv = [f"{mode}-restore", "--noflush"]
        text = iptables_rules.render(
            wanted.services,
            wanted.endpoints,
            NODE,
            iptables_rules.Config(local_source=local),
        )
    began = time.monotonic()
    subprocess.run(argv, input=text.encode(), check=True)
    return time.monotonic() - began


def print_sync(mode: str, services: int, endpoints: int) -> None:
    ours: list[Synced] = [
        isolated(synced, mode, services, endpoints, timeout=600) for _ in range(RUNS)
    ]
    bare = [isolated(bare_tool, mode, services, endpoints, timeout=600)]
    while len(bare) < RUNS and bare[0] < LONG:
        bare.append(isolated(bare_tool, mode, services, endpoints, timeout=600))
    what = f"{mode}, {services} Services x {endpoints}"
    full = [one.full for one in ours]
    print(row(f"{what}: full sync from cold", full, "s"))
    print(row(f"{what}: of that on the processor", [one.processor for one in ours], "s"))
    print(row(f"{what}: the bare tool, same text", bare, "s"))
    print(f"{what}: ours / bare tool: {statistics.median(full) / statistics.median(bare):.2f}")
    print(
        row(
            f"{what}: one slice changed, sync of it",
            [ms for one in ours for ms in one.changed],
            "ms",
        )
    )
    if mode != LEGACY:
        print(
            row(
                f"{what}: of that, the kernel's check of the table",
                [one.check for one in ours],
                "ms",
            )
        )
    sys.stdout.flush()


def print_program(mode: str, services: int, endpoints: int, changes: int) -> None:
    found = program(mode, services, endpoints, changes)
    what = f"{mode}, {services} Services x {endpoints}"
    print(f"{what}: exec to first sync: {found.first:.2f} s")
    print(f"{what}: resident memory then: {found.memory:.0f} MiB (at most {found.peak:.0f})")
    if found.changes:
        print(f"{what}: EndpointSlice write to rule, each alone: {_quantiles(found.changes, 'ms')}")
    sys.stdout.flush()


def print_follow(mode: str, proxies: int, services: int, rate: int, seconds: int) -> None:
    found = follow(mode, proxies, services, rate, seconds)
    what = f"{mode}, {proxies} kube-proxies, {services} Services x 3, {found.rate:.0f} changes/s for {seconds} s"
    print(f"{what}: write to rule: {_quantiles(found.lag, 's')}, {found.missing} missing")
    each = found.proxies_cpu / proxies
    print(
        f"{what}: cores: kube-proxies {found.proxies_cpu:.2f} ({each:.3f} each), API server {found.api_cpu:.2f}",
    )
    sys.stdout.flush()


def _quantiles(values: list[float], unit: str) -> str:
    shown = ", ".join(f"p{part} {percentile(values, part):.3g} {unit}" for part in (50, 90, 99))
    return f"{shown}, at most {values[-1]:.3g} {unit} ({len(values)})"


def print_first_packet(sizes: list[int]) -> None:
    print("first packets: series, Services, median us", flush=True)
    isolated(first_packet.main, [str(number) for number in (PACKETS, *sizes)], timeout=600)


def print_all() -> None:
    for services in (1000, 5000):
        for mode in ("iptables", LEGACY, "nftables"):
            print_sync(mode, services, 3)
    print_sync("nftables", 10000, 2)
    for mode in ("iptables", "nftables"):
        print_program(mode, 100, 3, 0)
        print_program(mode, 5000, 3, 0)
        for endpoints in (1, 3):
            print_program(mode, 10000, endpoints, 100)
        print_follow(mode, 20, 1000, 100, 20)
    print_first_packet([100, 1000, 5000, 10000])


def main(argv: list[str]) -> None:
    print(machine(), flush=True)
    match argv:
        case ["all"]:
            print_all()
        case ["sync", mode, *rest]:
            print_sync(mode, *_numbers(rest, 5000, 3))
        case ["program", mode, *rest]:
            print_program(mode, *_numbers(rest, 5000, 3, 100))
        case ["follow", mode, *rest]:
            print_follow(mode, *_numbers(rest, 20, 1000, 100, 20))
        case ["first-packet", *rest]:
            print_first_packet([int(size) for size in rest] or [100, 1000, 5000, 10000])
        case _:
            sys.exit(__doc__)


def _numbers(given: list[str], *defaults: int) -> list[int]:
    return [*map(int, given), *defaults[len(given) :]]


if __name__ == "__main__":
    main(sys.argv[1:])
