"""IPVS mode and the kernel: what is drained, what is somebody else's, what is repaired, which schedulers there are.

These run where the kernel has ip_vs: in a virtual machine, if not here (vm/README.md).
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kube_proxy import sysctls
from kubewire.components.kube_proxy.backends import check
from kubewire.components.kube_proxy.configuration.config import IpvsSettings, KubeProxyConfiguration
from kubewire.components.kube_proxy.ipvs.applier import Dummy, Ipset, Ipvsadm, run
from kubewire.components.kube_proxy.ipvs.backend import IpvsBackend
from kubewire.components.kube_proxy.ipvs.servers import Key
from kubewire.components.kube_proxy.ipvs.support import UnsupportedError
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.model import IPV4, Endpoint, Node, ServicePort, ServicePortName, State
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.scratch import Fabric

pytestmark = pytest.mark.packet
WEB, DNS = ServicePortName("ns", "web", "p"), ServicePortName("ns", "dns", "p", "UDP")
SERVICES = {WEB: ServicePort("10.96.0.10", 80, "tcp"), DNS: ServicePort("10.96.0.53", 53, "udp")}
KEY, DNS_KEY = Key("tcp", "10.96.0.10", 80), Key("udp", "10.96.0.53", 53)
NODE = Node("node1", ("172.18.0.3",))
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh")


def config(**ipvs: Any) -> KubeProxyConfiguration:
    return KubeProxyConfiguration(mode="ipvs", cluster_cidr="10.244.0.0/16", ipvs=IpvsSettings(**ipvs))


def backend(**ipvs: Any) -> IpvsBackend:
    sysctls.require(sysctls.of_ipvs(config(**ipvs)))
    return IpvsBackend(IPV4, config(**ipvs), Metrics("ipvs"), localhost_node_ports=False)


def state(pods: str) -> State:
    ends = {pod: Endpoint(ip, 8080, node) for pod, (node, ip) in scratch.PODS.items()}
    chosen = tuple(ends[pod] for pod in pods)
    return State(SERVICES, {WEB: chosen, DNS: chosen}, NODE, frozenset(SERVICES))


def in_node1(work: Any, *, pods: str = "") -> Any:
    """What work(fabric), a coroutine function that runs on node1, returned. pods: those that answer."""
    scratch.need_ip_vs()

    def all_of_it(fabric: Fabric) -> Any:
        for pod in pods:
            fabric.serve(pod)
        fabric.answer_forever()
        return fabric.inside("node1", lambda: asyncio.run(work(fabric)))

    return scratch.run(all_of_it, seconds=150)


def held_connection(fabric: Fabric, listener: str) -> tuple[socket.socket, socket.socket]:
    """(client's, server's) ends of a connection from pod a to the Service, answered by another pod on port 8080."""
    server = fabric.inside(listener, lambda: socket.create_server(("", 8080)))
    client = fabric.inside("a", lambda: socket.create_connection(("10.96.0.10", 80), 5))
    return client, server.accept()[0]


def test_a_connection_outlives_its_endpoint_and_then_the_real_server_goes():
    async def work(fabric: Fabric) -> Any:
        ipvs, tool = backend(), Ipvsadm(IPV4)
        seen: dict[str, Any] = {}
        await ipvs.sync(state("b"), full=True)
        client, server = held_connection(fabric, "b")
        await ipvs.sync(state("c"), full=False)
        seen["draining"] = dict((await tool.table())[KEY].reals)
        client.sendall(b"still here?")
        seen["heard"] = server.recv(64)
        seen["udp"] = dict((await tool.table())[DNS_KEY].reals)
        # Another kube-proxy takes it over, and asks again when everything is synced.
        successor = backend()
        await successor.sync(state("c"), full=True)
        seen["after a restart"] = dict((await tool.table())[KEY].reals)
        # A reset ends it for ip_vs at once but for its ten seconds of CLOSE: shorter than a closed one's two minutes.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        deadline = asyncio.get_running_loop().time() + 30
        while "10.244.1.3:8080" in (await tool.table())[KEY].reals and asyncio.get_running_loop().time() < deadline:
            await successor.sync(state("c"), full=False)
            await asyncio.sleep(0.5)
        seen["drained"] = dict((await tool.table())[KEY].reals)
        return seen

    seen = in_node1(work)
    both = {"10.244.1.3:8080": 0, "10.244.2.2:8080": 1}
    assert seen["draining"] == both
    assert seen["heard"] == b"still here?"
    assert seen["udp"] == {"10.244.2.2:8080": 1}
    assert seen["after a restart"] == both
    assert seen["drained"] == {"10.244.2.2:8080": 1}


def test_an_endpoint_that_comes_back_while_it_is_drained_gets_its_weight_again():
    async def work(fabric: Fabric) -> Any:
        ipvs = backend()
        await ipvs.sync(state("b"), full=True)
        client, _server = held_connection(fabric, "b")
        await ipvs.sync(state("c"), full=False)
        await ipvs.sync(state("b"), full=False)
        client.close()
        return dict((await Ipvsadm(IPV4).table())[KEY].reals)

    assert in_node1(work) == {"10.244.1.3:8080": 1}


def test_virtual_servers_in_excluded_ranges_stay_and_others_go():
    async def work(_: Fabric) -> Any:
        await run(["ipvsadm", "-R"], "-A -t 10.50.0.1:80 -s wlc\n-A -t 10.51.0.1:80 -s wlc\n-A -f 7 -s rr\n")
        ipvs = backend(exclude_cidrs=("10.50.0.0/24",))
        await ipvs.sync(state("b"), full=True)
        intact = await ipvs.intact()
        return sorted(key.ip for key in await Ipvsadm(IPV4).table()), intact, "-f 7" in await run(["ipvsadm", "-Sn"])

    assert in_node1(work) == (["10.50.0.1", "10.96.0.10", "10.96.0.53"], True, True)


DAMAGES = {
    "a virtual server": "ipvsadm -D -t 10.96.0.10:80",
    "a real server": "ipvsadm -d -t 10.96.0.10:80 -r 10.244.1.3:8080",
    "an address": "ip address del 10.96.0.10/32 dev kube-ipvs0",
    "the interface": "ip link delete kube-ipvs0",
    "an entry of a set": "ipset del KUBE-CLUSTER-IP 10.96.0.10,tcp:80",
    "the chains": "iptables -t nat -F && iptables -t nat -X",
}


@pytest.fixture(scope="module")
def damaged() -> dict[str, Any]:
    """Damage -> (intact before, with it, after the next full sync; who answers then)."""

    async def work(fabric: Fabric) -> Any:
        ipvs, seen = backend(), {}
        await ipvs.sync(state("b"), full=True)
        for what, command in DAMAGES.items():
            before = await ipvs.intact()
            await run(["sh", "-c", command])
            with_it = await ipvs.intact()
            await ipvs.sync(state("b"), full=True)
            seen[what] = before, with_it, await ipvs.intact(), fabric.ask("a", "10.96.0.10", 80).endpoint
        return seen

    return dict(in_node1(work, pods="b"))


@pytest.mark.parametrize("what", DAMAGES)
def test_what_somebody_takes_away_is_seen_and_comes_back(damaged, what):
    assert damaged[what] == (True, False, True, "b")


def test_only_the_filter_keeps_the_ping_of_a_cluster_ip_from_being_answered():
    """The address is the node's own, so the node answers: so it was before v1.26."""
    reject = "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT"

    async def work(fabric: Fabric) -> Any:
        await backend().sync(state("b"), full=True)
        ping = "ping -c 1 -W 1 10.96.0.10"
        filtered = fabric.shell("a", ping)
        await run(["sh", "-c", f"iptables -D KUBE-IPVS-FILTER {reject}"])
        return filtered, fabric.shell("a", ping)

    filtered, open_to_all = in_node1(work)
    assert "Destination Port Unreachable" in filtered
    assert " 1 received" in open_to_all
    assert "ttl=64" in open_to_all


def test_cleanup_takes_all_away_and_may_come_twice():
    async def work(_: Fabric) -> Any:
        ipvs = backend()
        await ipvs.sync(state("b"), full=True)
        await ipvs.cleanup()
        await ipvs.cleanup()
        left = await run(["iptables-save"])
        return await Ipvsadm(IPV4).table(), await Ipset(IPV4).entries(), await Dummy(IPV4).exists(), "KUBE" in left

    assert in_node1(work) == ({}, {}, False, False)


@pytest.fixture(scope="module")
def scheduled() -> dict[str, Any]:
    """Scheduler -> (what the kernel says it is, which pods answer twenty connections of one client)."""

    async def work(fabric: Fabric) -> Any:
        seen = {}
        for scheduler in SCHEDULERS:
            await check(config(scheduler=scheduler))
            await backend(scheduler=scheduler).sync(state("bc"), full=True)
            answers = [fabric.ask("a", "10.96.0.10", 80).endpoint for _ in range(20)]
            seen[scheduler] = (await Ipvsadm(IPV4).table())[KEY].scheduler, answers
        return seen

    return dict(in_node1(work, pods="bc"))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_each_scheduler_serves(scheduled, scheduler):
    said, answers = scheduled[scheduler]
    assert said == scheduler
    assert set(answers) <= set("bc")
    if scheduler in ("rr", "wrr"):
        assert Counter(answers) == {"b": 10, "c": 10}
    if scheduler in ("sh", "dh"):
        assert len(set(answers)) == 1


def test_a_scheduler_that_the_kernel_has_not_is_refused():
    async def work(_: Fabric) -> str:
        try:
            await check(config(scheduler="best"))
        except UnsupportedError as error:
            return str(error)
        return ""

    assert in_node1(work).startswith("can't use the IPVS proxier: ")


def test_strict_arp_and_timeouts_reach_the_kernel():
    async def work(_: Fabric) -> Any:
        strict = config(strict_arp=True)
        sysctls.require(sysctls.of_ipvs(strict))
        ipvs = replace(strict.ipvs, tcp_timeout=100.0, udp_timeout=7.0)
        await IpvsBackend(IPV4, replace(strict, ipvs=ipvs), Metrics("ipvs"), localhost_node_ports=False).sync(
            state("b"), full=True
        )
        arp = await run(["sysctl", "-n", "net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce"])
        return arp.split(), (await run(["ipvsadm", "-Ln", "--timeout"])).strip()

    arp, timeouts = in_node1(work)
    assert arp == ["1", "2"]
    assert timeouts.endswith("100 120 7")


@pytest.mark.skipif(Path("/proc/net/ip_vs").exists(), reason="this kernel has ip_vs")
def test_a_kernel_without_ip_vs_is_told_in_upstreams_words():
    argv = ["-m", "kubewire.components.kube_proxy", "--proxy-mode", "ipvs", "--master", "http://127.0.0.1:1"]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == ("kube-proxy: can't use the IPVS proxier: Ipvs not supported by the kernel")
