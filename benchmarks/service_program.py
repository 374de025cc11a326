"""Measures the whole kube-proxy with a real API server: the time from start to first sync, memory,
and the time from an EndpointSlice write to the rule in the kernel. Also many of them, each in a
separate network namespace, which follow a stream of changes.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from service_objects import FIRST, PODS, change, changed_ip, cluster_ip, fill

from kubewire.components.kernel import namespaces
from kubewire.components.kubeapi.client import Client
from tests.components.apiserver.running import CHECKOUT, RunningApiServer
from tests.scratch import isolated

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES = 12, 270, 1, 7
_SO_RCVBUFFORCE = 33
#: Bytes of changed_ip() in a message.
_CHANGED = re.compile(rb"\x0a\xfa(..)", re.DOTALL)
_API_ADDRESS = "10.77.0.1"
#: Requests at once: more would be more connections, and the server busy with handshakes.
_WRITERS = 8


class RuleEvents:
    """Receives the notifications of nf_tables after each commit, in the network namespace of the
    thread that creates this object."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        # A first load causes all its notifications at once.
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 29)
        self.socket.bind((0, 0))
        self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        self.socket.setblocking(False)

    async def seen(self, packed: bytes, seconds: float = 10.0) -> float:
        """Records the time at which a notification contained these bytes."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            while True:
                if packed in await loop.sock_recv(self.socket, 1 << 20):
                    return time.monotonic()


def _of_last_service(mode: str, services: int) -> bytes:
    """The notification that shows that the rules of all Services exist. In nftables mode, chains
    come first, in separate transactions, and then the elements that lead to them."""
    number = max(range(FIRST, FIRST + services), key=lambda number: f"svc-{number}")
    address = socket.inet_aton(cluster_ip(number))
    return address + b"\x06\0\0\0" + (80).to_bytes(2, "big") if mode == "nftables" else address


def _start(kubeconfig: Path, mode: str, log: Path, *before: str) -> subprocess.Popen[bytes]:
    flags = ["--kubeconfig", str(kubeconfig), "--hostname-override", "node1", "--proxy-mode", mode]
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *before,
                sys.executable,
                "-m",
                "kubewire.components.kube_proxy",
                *flags,
                "--cluster-cidr",
                PODS,
            ],
            cwd=CHECKOUT,
            stdout=output,
            stderr=output,
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _memory(pid: int, what: str) -> float:
    """MiB: the present memory (VmRSS) and the maximum (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


@dataclass
class Program:
    """The figures of one kube-proxy. first: seconds to the first sync. memory, peak: MiB. changes:
    milliseconds, in ascending order."""

    first: float = 0.0
    memory: float = 0.0
    peak: float = 0.0
    changes: list[float] = field(default_factory=list)


def program(mode: str, services: int, endpoints: int, changes: int) -> Program:
    """Measures one kube-proxy, with one change at a time."""

    def body() -> Program:
        os.environ["HOME"] = "/tmp"
        with RunningApiServer() as api:
            return asyncio.run(_program(api.kubeconfig, mode, services, endpoints, changes))

    found: Program = isolated(body, timeout=900)
    return found


async def _program(
    kubeconfig: Path,
    mode: str,
    services: int,
    endpoints: int,
    count: int,
) -> Program:
    log, found = Path(tempfile.mkdtemp()) / "kube-proxy.log", Program()
    async with Client.from_kubeconfig(kubeconfig) as client:
        await fill(client, services, endpoints)
        events = RuleEvents()
        began = time.monotonic()
        process = _start(kubeconfig, mode, log)
        try:
            found.first = await events.seen(_of_last_service(mode, services), 120) - began
            await asyncio.sleep(
                3
            )  # until the memory of the sync has been returned, as far as it is
            found.memory, found.peak = _memory(process.pid, "VmRSS"), _memory(process.pid, "VmHWM")
            for turn in range(count):
                number, address = FIRST + turn * 7 % services, changed_ip(turn)
                waiting = asyncio.create_task(events.seen(socket.inet_aton(address)))
                # A single change: after a burst of two, kube-proxy waits a second between syncs.
                await asyncio.sleep(1.1)
                sent = time.monotonic()
                await change(client, number, endpoints, address)
                found.changes.append((await waiting - sent) * 1000)
        finally:
            _stop([process])
    found.changes.sort()
    return found


@dataclass
class Followed:
    """The figures of several kube-proxies. lag: seconds from before each write to the rule, for all
    proxies, in ascending order. missing: number of rules that never came. proxies_cpu, api_cpu:
    seconds of CPU time per second, of all proxies and of the API server. rate: writes per
    second."""

    lag: list[float]
    missing: int
    proxies_cpu: float
    api_cpu: float
    rate: float


def follow(mode: str, proxies: int, services: int, rate: int, seconds: int) -> Followed:
    """Measures several kube-proxies that follow `rate` changes per second, for some seconds."""

    def body() -> Followed:
        os.environ["HOME"] = "/tmp"
        names = [f"node{number}" for number in range(1, proxies + 1)]
        _network(names)
        with RunningApiServer(address=_API_ADDRESS) as api:
            return asyncio.run(_follow(api, mode, names, services, rate, seconds))

    found: Followed = isolated(body, timeout=300 + seconds)
    return found


def _network(names: list[str]) -> None:
    """Makes a network namespace for each, on one bridge. All of them end with the namespaces of
    this process."""
    commands = [
        "link add br0 type bridge",
        f"addr add {_API_ADDRESS}/16 dev br0",
        "link set br0 up",
    ]
    for number, name in enumerate(names, 2):
        commands += [
            f"netns add {name}",
            f"link add {name} master br0 type veth peer name eth0 netns {name}",
            f"link set {name} up",
            f"-n {name} link set lo up",
            f"-n {name} addr add 10.77.{number >> 8}.{number & 255}/16 dev eth0",
            f"-n {name} link set eth0 up",
        ]
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def _events_in(name: str) -> RuleEvents:
    """Opens RuleEvents in another network namespace. Only this thread enters it."""
    found: list[RuleEvents] = []

    def enter() -> None:
        with open(f"/run/netns/{name}") as namespace:
            namespaces.setns(namespace.fileno(), namespaces.CLONE_NEWNET)
        found.append(RuleEvents())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


class _Lags:
    """Records when each kube-proxy has applied each change."""

    def __init__(self) -> None:
        self.sent: dict[bytes, float] = {}
        self.seen: dict[tuple[int, bytes], float] = {}

    async def complete(self, wanted: int, seconds: float) -> None:
        """Waits until this number was seen, or until the seconds have passed."""
        for _ in range(round(seconds * 10)):
            if len(self.seen) == wanted:
                return
            await asyncio.sleep(0.1)

    def read(self, proxy: int, events: RuleEvents) -> None:
        while True:
            try:
                data = events.socket.recv(1 << 20)
            except BlockingIOError:
                return
            now = time.monotonic()
            for turn in _CHANGED.findall(data):
                if turn in self.sent:
                    self.seen.setdefault((proxy, turn), now - self.sent[turn])


async def _follow(
    api: RunningApiServer, mode: str, names: list[str], services: int, rate: int, seconds: int
) -> Followed:
    folder = Path(tempfile.mkdtemp())
    async with Client.from_kubeconfig(api.kubeconfig) as client:
        await fill(client, services, 3)
        events = [_events_in(name) for name in names]
        last = _of_last_service(mode, services)
        processes = [
            _start(api.kubeconfig, mode, folder / f"{name}.log", "ip", "netns", "exec", name)
            for name in names
        ]
        try:
            await asyncio.gather(*(one.seen(last, 200) for one in events))
            await asyncio.sleep(3)
            return await _measured(client, api.pid, processes, events, (services, rate, seconds))
        finally:
            _stop(processes)


async def _measured(
    client: Client,
    api: int,
    processes: list[subprocess.Popen[bytes]],
    events: list[RuleEvents],
    load: tuple[int, int, int],
) -> Followed:
    services, rate, seconds = load
    loop, lags, count = asyncio.get_running_loop(), _Lags(), rate * seconds
    for place, one in enumerate(events):
        loop.add_reader(one.socket.fileno(), lags.read, place, one)
    pids = [process.pid for process in processes]
    before, began = (_cpu(pids), _cpu([api])), time.monotonic()
    turns = iter(range(count))

    async def writer() -> None:
        for turn in turns:
            await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
            await _write(client, lags, turn, services)

    await asyncio.gather(*(writer() for _ in range(_WRITERS)))
    took = time.monotonic() - began
    cpu = [(_cpu(pids) - before[0]) / took, (_cpu([api]) - before[1]) / took]
    await lags.complete(count * len(events), 15)
    for one in events:
        loop.remove_reader(one.socket.fileno())
    return Followed(
        sorted(lags.seen.values()),
        count * len(events) - len(lags.seen),
        *cpu,
        count / took,
    )


async def _write(client: Client, lags: _Lags, turn: int, services: int) -> None:
    address = changed_ip(turn)
    lags.sent[socket.inet_aton(address)[2:]] = time.monotonic()
    await change(client, FIRST + turn % services, 3, address)


def _cpu(pids: list[int]) -> float:
    """Seconds of CPU time that processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
