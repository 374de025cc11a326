"""kube-proxy as a process, the same in every mode: it follows the API, moves UDP flows, repairs what others took away,
leaves its rules when it ends, and takes away those of another mode when it starts in a new one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NODES, SERVICECIDRS, SERVICES
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.process import endpoint_slice, exchange, get, open_flow, service, until
from tests.components.kube_proxy.scratch import Fabric
from tests.kubeapi import FakeApi, kubeconfig

CONFIG = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
clusterCIDR: 10.244.0.0/16
clientConnection: {{kubeconfig: /run/kubeconfig}}
{mode}: {{syncPeriod: 300ms, minSyncPeriod: 100ms}}
"""
#: How somebody takes all rules of a mode away, and how one sees that there are any.
FLUSH = {
    "iptables": "for t in nat filter mangle; do iptables -t $t -F; iptables -t $t -X; done",
    "nftables": "nft delete table ip kube-proxy",
    "ipvs": "ip link delete kube-ipvs0; ipvsadm -C",
}
SHOW = {
    "iptables": "iptables-save | grep KUBE-SVC",
    "nftables": "nft list chains ip | grep service-",
    "ipvs": "ipvsadm -Sn; ip -brief link | grep kube-ipvs0; ipset list -name | grep KUBE-; iptables-save | grep KUBE-",
}
OTHER = {"iptables": "nftables", "nftables": "iptables", "ipvs": "nftables"}


def shown(mode: str) -> bool:
    return bool(os.popen(SHOW[mode]).read())


def flush(mode: str) -> None:
    os.system(FLUSH[mode])


async def start(mode: str) -> asyncio.subprocess.Process:
    Path("/run/config").write_text(CONFIG.format(mode=mode))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kubewire.components.kube_proxy",
        "--config",
        "/run/config",
        "--hostname-override",
        "node1",
    )


async def end(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    return await process.wait()


def _life(fabric: Fabric, mode: str) -> dict[str, Any]:
    for pod in scratch.PODS:
        fabric.serve(pod)
    fabric.answer_forever()
    seen: dict[str, Any] = {}

    def ask(ip: str = "10.96.0.10", **how: Any) -> scratch.Answer:
        return fabric.ask("a", ip, how.pop("port", 80), timeout=0.3, **how)

    async def life() -> None:
        api = FakeApi()
        Path("/run/kubeconfig").write_text(kubeconfig(await api.start()))
        addresses = [{"type": "InternalIP", "address": "172.18.0.3"}]
        api.put(NODES, {"metadata": {"name": "node1"}, "status": {"addresses": addresses}})
        api.put(SERVICECIDRS, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}})
        api.put(SERVICES, service("web", "10.96.0.10", node_port=30010))
        api.put(ENDPOINTSLICES, endpoint_slice("web", "b"))
        api.put(SERVICES, service("dns", "10.96.0.53", 53, "UDP"))
        api.put(ENDPOINTSLICES, endpoint_slice("dns", "b", "UDP"))

        process = await start(mode)
        await until(lambda: ask().endpoint == "b")
        seen["mode"] = await get("http://127.0.0.1:10249/proxyMode")
        if mode == "nftables":
            check = "nft list chain ip kube-proxy cluster-ips-check"
            seen["unallocated"] = await until(lambda: "10.96.0.0/16" in os.popen(check).read())

        flow = fabric.inside("a", open_flow)
        seen["flow first"] = await until(lambda: exchange(flow))
        api.put(ENDPOINTSLICES, endpoint_slice("dns", "a", "UDP"))
        seen["flow moved"] = await until(lambda: exchange(flow).startswith("a") and "a")

        process.send_signal(signal.SIGSTOP)
        flush(mode)
        seen["flushed"] = ask().error
        process.send_signal(signal.SIGCONT)
        await until(lambda: ask().endpoint == "b")

        process.send_signal(signal.SIGKILL)
        await process.wait()
        seen["after SIGKILL"] = ask().endpoint
        api.put(ENDPOINTSLICES, endpoint_slice("web", ""))
        process = await start(mode)
        await until(lambda: ask().error == "ConnectionRefusedError")
        api.put(ENDPOINTSLICES, endpoint_slice("web", "c"))
        await until(lambda: ask().endpoint == "c")
        seen["exit"] = await end(process)
        seen["after SIGTERM"] = ask().endpoint

        process = await start(OTHER[mode])
        await until(lambda: shown(OTHER[mode]) and not shown(mode))
        seen["in another mode"] = (await until(lambda: ask().endpoint)), shown(mode)
        await end(process)
        cleaner = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kubewire.components.kube_proxy", "--cleanup"
        )
        seen["cleanup"] = await cleaner.wait()
        seen["after cleanup"] = shown(mode), shown(OTHER[mode])
        await api.stop()

    fabric.inside("node1", lambda: asyncio.run(life()))
    return seen


@pytest.fixture(scope="module", params=["iptables", "nftables", "ipvs"])
def lived(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    mode = request.param
    if mode == "ipvs":
        scratch.need_ip_vs()
    return mode, scratch.run(lambda fabric: _life(fabric, mode), seconds=180)


@pytest.mark.packet
def test_a_udp_flow_follows_when_its_endpoint_goes(lived):
    _, seen = lived
    assert seen["flow first"].startswith("b ")
    assert seen["flow moved"] == "a"


@pytest.mark.packet
def test_rules_that_somebody_took_away_come_back(lived):
    _, seen = lived
    assert seen["flushed"] == "TimeoutError"


@pytest.mark.packet
def test_rules_outlive_the_process(lived):
    mode, seen = lived
    assert seen["mode"] == (200, mode)
    assert seen["after SIGKILL"] == "b"
    assert seen["exit"] == 0
    assert seen["after SIGTERM"] == "c"


@pytest.mark.packet
def test_starting_in_another_mode_takes_the_rules_of_this_one_away(lived):
    _, seen = lived
    assert seen["in another mode"] == ("c", False)
    assert seen["cleanup"] == 0
    assert seen["after cleanup"] == (False, False)
