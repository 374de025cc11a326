"""kube-proxy's surroundings on a node: health check ports, both variants of iptables, restarts under traffic, both
families, SCTP."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import struct
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.sctp import SCTP, SCTPChunkInit

from kubewire.components.kube_proxy.state.model import IPV6
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NODES, SERVICES
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.process import (
    CONFIG,
    endpoint_slice,
    exchange,
    fabric_flush,
    fabric_save,
    get,
    service,
    start,
    until,
)
from tests.components.kube_proxy.scratch import Fabric
from tests.kubeapi import FakeApi, kubeconfig

NODE = {
    "metadata": {"name": "node1"},
    "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.3"}]},
}
METRICS = "http://127.0.0.1:10249/metrics"


async def control_plane(config: str = CONFIG) -> FakeApi:
    api = FakeApi()
    url = await api.start()
    Path("/run/kubeconfig").write_text(kubeconfig(url))
    Path("/run/config").write_text(config)
    api.put(NODES, NODE)
    return api


async def ended(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    return await process.wait()


# --- health check ports and metrics


def _health(fabric: Fabric) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def life() -> None:
        api = await control_plane()
        lb = service("lb", "10.96.0.20", node_port=30020)
        lb["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31999}
        api.put(SERVICES, lb)
        api.put(ENDPOINTSLICES, endpoint_slice("lb", "bc"))
        process = await start()

        def ask() -> str:
            return fabric.shell("client", "curl -sm 2 -o /dev/stdout -w '%{http_code}' http://172.18.0.3:31999/healthz")

        seen["one local"] = await until(lambda: ask() != "000" and ask())
        seen["metrics before"] = (await get(METRICS))[1]
        since = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        late = endpoint_slice("lb", "c")
        late["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": since}
        api.put(ENDPOINTSLICES, late)
        seen["none local"] = await until(lambda: "503" in ask() and ask())
        seen["metrics"] = (await get(METRICS))[1]
        api.put(SERVICES, service("lb", "10.96.0.20", node_port=30020))
        await until(lambda: ask() == "000")
        seen["exit"] = await ended(process)
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


@pytest.mark.packet
def test_a_health_check_port_follows_the_local_endpoints_and_goes_with_the_policy():
    seen = scratch.run(_health, seconds=150)
    assert '"localEndpoints": 1' in seen["one local"]
    assert seen["one local"].endswith("}200")
    assert '"localEndpoints": 0' in seen["none local"]
    assert '"serviceProxyHealthy": true' in seen["none local"]
    lines = seen["metrics"].splitlines()
    assert 'kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 1' in lines
    programming = 'kubeproxy_network_programming_duration_seconds_{}{{ip_family="IPv4"'
    assert programming.format("count") + "} 1" in lines
    assert programming.format("bucket") + ',le="0"} 0' in lines
    assert programming.format("bucket") + ',le="5"} 1' in lines
    assert programming.format("count") not in seen["metrics before"], "that slice said nothing about its time"
    assert seen["exit"] == 0


# --- both variants of iptables


def _variant(fabric: Fabric, variant: str) -> dict[str, Any]:
    fabric.serve("b")
    fabric.answer_forever()
    seen: dict[str, Any] = {}
    tool = f"iptables-{variant}"

    async def life() -> None:
        # Somebody else on this node (a CNI plugin, the kubelet) has chosen.
        fabric.shell("node1", f"{tool} -t mangle -N KUBE-KUBELET-CANARY")
        api = await control_plane()
        api.put(SERVICES, service("web", "10.96.0.10"))
        api.put(ENDPOINTSLICES, endpoint_slice("web", "b"))
        process = await start()
        await until(lambda: fabric.ask("a", "10.96.0.10", 80, timeout=0.3).endpoint == "b")
        seen["rules"] = {name: "KUBE-SVC-" in fabric_save(f"iptables-{name}-save") for name in ("nft", "legacy")}
        fabric_flush(tool)
        seen["flushed"] = fabric.ask("a", "10.96.0.10", 80, timeout=0.3).error
        await until(lambda: fabric.ask("a", "10.96.0.10", 80, timeout=0.3).endpoint == "b")
        api.put(ENDPOINTSLICES, endpoint_slice("web", ""))
        await until(lambda: fabric.ask("a", "10.96.0.10", 80, timeout=0.3).error == "ConnectionRefusedError")
        seen["exit"] = await ended(process)
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


@pytest.mark.packet
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_rules_are_written_in_the_variant_that_the_node_uses(variant):
    seen = scratch.run(lambda fabric: _variant(fabric, variant), seconds=150)
    assert seen["rules"] == {"nft": variant == "nft", "legacy": variant == "legacy"}
    assert seen["flushed"]
    assert seen["exit"] == 0


# --- restarts under traffic


def _echo_server(fabric: Fabric, pod: str, port: int) -> None:
    listener = fabric.inside(pod, lambda: socket.create_server(("", port)))

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


class _Load(threading.Thread):
    """One connection that never ends, and a new one for each word said on it."""

    def __init__(self, fabric: Fabric, address: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.fabric, self.address = fabric, address
        self.stream = fabric.inside("a", lambda: socket.create_connection(address, 10))
        self.stop = threading.Event()
        self.words = self.connections = 0
        self.errors: list[str] = []

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._say(self.stream, b"on")
                self.words += 1
                with self.fabric.inside("a", lambda: socket.create_connection(self.address, 10)) as fresh:
                    self._say(fresh, b"new")
                self.connections += 1
        except OSError as error:
            self.errors.append(f"{type(error).__name__} after {self.connections} connections: {error}")

    def has_said(self, connections: int) -> bool:
        return self.connections >= connections

    def _say(self, connection: socket.socket, word: bytes) -> None:
        connection.settimeout(10)
        connection.sendall(word)
        if connection.recv(16) != word:
            raise OSError("closed")


def _restart(fabric: Fabric) -> dict[str, Any]:
    _echo_server(fabric, "c", 8080)
    seen: dict[str, Any] = {}

    async def synced() -> bool:
        return 'sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}' in (await get(METRICS))[1]

    async def life() -> None:
        api = await control_plane()
        for number in range(20):
            api.put(SERVICES, service(f"s{number}", f"10.96.1.{number}"))
            api.put(ENDPOINTSLICES, endpoint_slice(f"s{number}", "c"))
        process = await start()
        await until(synced)
        load = _Load(fabric, ("10.96.1.7", 80))
        load.start()
        for how in (signal.SIGTERM, signal.SIGKILL):
            before = load.connections
            await until(partial(load.has_said, before + 21))
            process.send_signal(how)
            await process.wait()
            before = load.connections
            await until(partial(load.has_said, before + 21))
            process = await start()
            await until(synced)
        before = load.connections
        await until(lambda: load.connections > before + 20)
        load.stop.set()
        await asyncio.to_thread(load.join)
        seen["errors"], seen["words"], seen["connections"] = load.errors, load.words, load.connections
        Path("/run/config").write_text(CONFIG + "\n")
        seen["exit after a new configuration"] = await process.wait()
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


@pytest.mark.packet
def test_no_connection_breaks_and_none_is_refused_while_kube_proxy_is_restarted():
    seen = scratch.run(_restart, seconds=150)
    assert seen["errors"] == []
    assert seen["words"] >= seen["connections"] > 100
    assert seen["exit after a new configuration"] == 1


# --- two families

V6 = scratch.ADDRESSES[IPV6].pods
DUAL = CONFIG.replace("clusterCIDR: 10.244.0.0/16", "clusterCIDR: 10.244.0.0/16,fd00:10:244::/48")


def _dual(service_object: dict[str, Any], address: str) -> dict[str, Any]:
    service_object["spec"]["clusterIPs"].append(address)
    return service_object


def _v6_slice(name: str, pods: str, protocol: str = "TCP") -> dict[str, Any]:
    obj = endpoint_slice(name, pods, protocol)
    obj["metadata"]["name"] = f"{name}-v6"
    for endpoint, pod in zip(obj["endpoints"], pods, strict=True):
        endpoint["addresses"] = [V6[pod]]
    return obj | {"addressType": "IPv6"}


def _two_families(fabric: Fabric) -> dict[str, Any]:
    for pod in scratch.PODS:
        fabric.serve(pod)
    fabric.answer_forever()
    seen: dict[str, Any] = {}

    async def life() -> None:
        api = await control_plane(DUAL)
        api.put(SERVICES, _dual(service("web", "10.96.0.10", node_port=30010), "fd00:10:96::10"))
        api.put(SERVICES, _dual(service("dns", "10.96.0.53", 53, "UDP"), "fd00:10:96::53"))
        api.put(ENDPOINTSLICES, endpoint_slice("web", "b"))
        api.put(ENDPOINTSLICES, _v6_slice("web", "c"))
        api.put(ENDPOINTSLICES, _v6_slice("dns", "c", "UDP"))
        process = await start()
        await until(lambda: fabric.ask("a", "fd00:10:96::10", 80, timeout=0.5).endpoint == "c")
        seen["v4"] = fabric.ask("a", "10.96.0.10", 80)
        seen["v6"] = fabric.ask("a", "fd00:10:96::10", 80)
        seen["v6 node port"] = fabric.ask("client", "fd00:172:18::3", 30010)
        seen["v6 loopback"] = fabric.ask("node1", "::1", 30010, timeout=0.3).error
        flow = fabric.inside("a", lambda: _udp6(("fd00:10:96::53", 53)))
        await until(lambda: exchange(flow).startswith("c ") and "c")
        api.put(ENDPOINTSLICES, _v6_slice("dns", "a", "UDP"))
        seen["flow moved"] = await until(lambda: exchange(flow).startswith("a") and "a")
        seen["metrics"] = (await get(METRICS))[1]
        await ended(process)
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


def _udp6(address: tuple[str, int]) -> socket.socket:
    flow = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    flow.settimeout(0.2)
    flow.connect(address)
    return flow


@pytest.mark.packet
def test_a_dual_stack_service_leads_to_each_familys_own_endpoints():
    seen = scratch.run(_two_families, seconds=150)
    assert (seen["v4"].endpoint, seen["v4"].seen) == ("b", "10.244.1.2")
    assert (seen["v6"].endpoint, seen["v6"].seen) == ("c", V6["a"])
    assert (seen["v6 node port"].endpoint, seen["v6 node port"].seen) == ("c", "fd00:172:18::3")
    assert seen["v6 loopback"], "IPv6 has no NodePorts on localhost"
    assert seen["flow moved"] == "a", "the stale UDP flow went"
    assert 'kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"} 1' in seen["metrics"]


# --- SCTP


def _sctp(fabric: Fabric) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    listener = fabric.inside("b", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)))
    listener.settimeout(10)

    async def life() -> None:
        api = await control_plane()
        api.put(SERVICES, service("sctp", "10.96.0.30", 9999, "SCTP", node_port=30099))
        api.put(ENDPOINTSLICES, endpoint_slice("sctp", "b", "SCTP"))
        process = await start()
        # The jump from PREROUTING is the last thing that a first sync writes.
        await until(lambda: "KUBE-SVC-" in (rules := fabric_save()) and "-A PREROUTING" in rules)
        seen["cluster ip"] = _init(fabric, "a", "10.96.0.30", 9999, listener)
        seen["node port"] = _init(fabric, "client", "172.18.0.3", 30099, listener)
        await ended(process)
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


def _init(fabric: Fabric, source: str, address: str, port: int, listener: socket.socket) -> tuple[str, str, int]:
    """Sends an SCTP INIT; source, destination and port of the first one that arrives."""
    sent = SCTP(sport=4000, dport=port) / SCTPChunkInit(init_tag=7)
    own = scratch.PODS[source][1] if source in scratch.PODS else scratch.HOSTS[source]
    payload = bytes(IP(bytes(IP(src=own, dst=address, proto=132) / sent))[SCTP])

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 132) as raw:
            raw.sendto(payload, (address, 0))

    fabric.inside(source, send)
    while True:
        data = listener.recv(2048)
        if data[9] == 132:
            header = (data[0] & 15) * 4
            source_ip, destination = (str(ipaddress.ip_address(data[at : at + 4])) for at in (12, 16))
            return source_ip, destination, struct.unpack_from("!H", data, header + 2)[0]


@pytest.mark.packet
def test_sctp_is_translated_like_the_others():
    seen = scratch.run(_sctp, seconds=150)
    assert seen["cluster ip"] == ("10.244.1.2", "10.244.1.3", 8080)
    assert seen["node port"] == ("10.244.1.1", "10.244.1.3", 8080)


# --- other ways to run it


def _init_only(fabric: Fabric) -> dict[str, Any]:
    name = "net.netfilter.nf_conntrack_tcp_timeout_established"
    command = f"{sys.executable} -m kubewire.components.kube_proxy --hostname-override node1 --init-only"
    before = fabric.shell("node1", f"sysctl -n {name}").strip()
    said = fabric.shell("node1", f"{command} --conntrack-tcp-timeout-established 1h; echo status $?")
    return {
        "before": before,
        "after": fabric.shell("node1", f"sysctl -n {name}").strip(),
        "said": said,
        "rules": fabric.shell("node1", "iptables-save"),
    }


@pytest.mark.packet
def test_init_only_sets_the_sysctls_and_nothing_else():
    seen = scratch.run(_init_only)
    assert seen["before"] != "3600"
    assert seen["after"] == "3600"
    assert "status 0" in seen["said"]
    assert "KUBE-" not in seen["rules"]
