"""kube-proxy as a process on a node: it follows the API, repairs, answers health checks, may be killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NODES, SERVICES
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.process import (
    CONFIG,
    endpoint_slice,
    exchange,
    fabric_flush,
    fabric_save,
    get,
    open_flow,
    service,
    start,
    until,
)
from tests.components.kube_proxy.scratch import Fabric
from tests.kubeapi import FakeApi, kubeconfig


def _life(fabric: Fabric) -> dict[str, Any]:
    for pod in scratch.PODS:
        fabric.serve(pod)
    fabric.answer_forever()
    seen: dict[str, Any] = {}

    async def life() -> None:
        api = FakeApi()
        url = await api.start()
        Path("/run/kubeconfig").write_text(kubeconfig(url))
        Path("/run/config").write_text(CONFIG)
        node = {
            "metadata": {"name": "node1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.3"}]},
        }
        api.put(NODES, node)
        api.put(SERVICES, service("web", "10.96.0.10", node_port=30010))
        api.put(ENDPOINTSLICES, endpoint_slice("web", "b"))
        api.put(SERVICES, service("dns", "10.96.0.53", 53, "UDP"))
        api.put(ENDPOINTSLICES, endpoint_slice("dns", "b", "UDP"))

        def ask(ip: str = "10.96.0.10", **how: Any) -> scratch.Answer:
            return fabric.ask("a", ip, how.pop("port", 80), timeout=0.3, **how)

        process = await start()
        await until(lambda: ask().endpoint == "b")
        seen["healthz"] = await get("http://127.0.0.1:10256/healthz")
        seen["livez"] = await get("http://127.0.0.1:10256/livez")
        seen["mode"] = await get("http://127.0.0.1:10249/proxyMode")

        api.put(ENDPOINTSLICES, endpoint_slice("web", "c"))
        await until(lambda: ask().endpoint == "c")
        seen["chains after change"] = fabric_save()
        seen["metrics"] = (await get("http://127.0.0.1:10249/metrics"))[1]

        # One socket: its flow is in conntrack, and must follow when its endpoint goes.
        flow = fabric.inside("a", open_flow)
        seen["flow first"] = await until(lambda: exchange(flow))
        api.put(ENDPOINTSLICES, endpoint_slice("dns", "a", "UDP"))
        seen["flow moved"] = await until(lambda: exchange(flow).startswith("a") and "a")

        process.send_signal(signal.SIGSTOP)
        fabric_flush()
        seen["flushed"] = ask().error
        process.send_signal(signal.SIGCONT)
        await until(lambda: ask().endpoint == "c")

        process.send_signal(signal.SIGKILL)
        await process.wait()
        seen["after SIGKILL"] = ask().endpoint
        api.put(ENDPOINTSLICES, endpoint_slice("web", ""))
        process = await start()
        await until(lambda: ask().error == "ConnectionRefusedError")
        api.remove(SERVICES, "web", "ns")
        await until(lambda: "ns/web" not in fabric_save())
        process.send_signal(signal.SIGTERM)
        seen["exit"] = await process.wait()
        seen["after SIGTERM"] = "ns/dns:p" in fabric_save()
        cleaner = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kubewire.components.kube_proxy", "--cleanup"
        )
        seen["cleanup"] = await cleaner.wait()
        seen["after cleanup"] = "KUBE-S" in fabric_save()
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    found: dict[str, Any] = scratch.run(_life, seconds=150)
    return found


@pytest.mark.packet
def test_health_is_upstreams_json(seen):
    status, body = seen["healthz"]
    assert status == 200
    assert body.endswith('", "nodeEligible": true}')
    assert body.startswith('{"lastUpdated": "')
    assert " +0000 UTC m=+" in body.split('","currentTime": "')[1]
    assert seen["livez"][0] == 200
    assert "nodeEligible" not in seen["livez"][1]
    assert seen["mode"] == (200, "iptables")


@pytest.mark.packet
def test_a_change_replaces_the_endpoints_chain(seen):
    text = seen["chains after change"]
    assert "--to-destination 10.244.2.2:8080" in text
    assert text.count(":KUBE-SEP-") == 2
    assert 'kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}' in seen["metrics"]
    assert "kubeproxy_sync_proxy_rules_service_changes_total 4" in seen["metrics"], "two Services, two families"
    assert "kubeproxy_sync_proxy_rules_service_changes_pending 0" in seen["metrics"]
    assert "nftables" not in seen["metrics"], "what only another mode has"


@pytest.mark.packet
def test_a_udp_flow_follows_when_its_endpoint_goes(seen):
    assert seen["flow first"].startswith("b ")
    assert seen["flow moved"] == "a"


@pytest.mark.packet
def test_flushed_rules_come_back(seen):
    assert seen["flushed"]


@pytest.mark.packet
def test_rules_outlive_the_process_and_cleanup_takes_them_away(seen):
    assert seen["after SIGKILL"] == "c"
    assert seen["exit"] == 0
    assert seen["after SIGTERM"]
    assert seen["cleanup"] == 0
    assert not seen["after cleanup"]
