"""Labs of IPv6 alone, of both families, and of both with IPv6 first: nodes, pods, Services, DNS and the API in each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import DEPLOYMENTS, ENDPOINTSLICES, NODES, PODS, SERVICES
from kubewire.lab.handle import LabStarter, RunningLab
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.lab.test_components import DUAL, IPV6, IPV6_FIRST
from tests.lab.test_lab import service, until, web, with_api

pytestmark = pytest.mark.lab

FAMILIES: Any = {"dual-stack": (DUAL, "IPv4"), "IPv6-first": (IPV6_FIRST, "IPv6"), "IPv6": (IPV6, "IPv6")}


@pytest.fixture(params=FAMILIES)
def lab_and_primary(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RunningLab, str]]:
    network, primary = FAMILIES[request.param]
    spec = LabSpec.parse({"topology": {"workers": 1}, "network": network, "dns": {"replicas": 1}})
    with tempfile.TemporaryDirectory(prefix="kw-") as base:
        monkeypatch.setenv("KUBEWIRE_STATE_DIR", base)
        with LabStarter()(spec, "families") as lab:
            yield lab, primary


def family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


async def objects(client: Client) -> Any:
    """What the API says of the first worker, the pods and the Service."""
    await client.create(DEPLOYMENTS, web("target"))
    ports = [{"port": 80, "targetPort": 8080, "nodePort": 30077}]
    extra = {"ipFamilyPolicy": "PreferDualStack", "type": "NodePort", "ports": ports}
    made = await client.create(SERVICES, service("target", **extra))
    slices: list[dict[str, Any]] = []
    while len(slices) < len(made["spec"]["clusterIPs"]):
        listed: list[Any] = (await client.list(ENDPOINTSLICES, "default")).items
        ours = [one for one in listed if one["metadata"]["name"].startswith("target-")]
        slices = [one for one in ours if (one.get("endpoints") or [{}])[0].get("conditions", {}).get("ready")]
    pods = (await client.list(PODS, "default")).items
    return {
        "node": await client.get(NODES, "worker-1"),
        "pod": next(pod for pod in pods if pod["metadata"]["name"].startswith("target-")),
        "service": made["spec"],
        "slices": {one["addressType"]: one["endpoints"][0]["addresses"][0] for one in slices},
        "kubernetes": (await client.get(SERVICES, "kubernetes", "default"))["spec"],
    }


def test_every_address_is_of_the_labs_families_in_their_order(lab_and_primary: tuple[RunningLab, str]) -> None:
    lab, primary = lab_and_primary
    wanted = [family(part) for part in lab.spec.network.clusterCIDR.split(",")]
    found = with_api(lab.kubeconfig, objects)
    node, status = found["node"], found["pod"]["status"]
    internal = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    pod_ips = [one["ip"] for one in status["podIPs"]]
    for addresses in (
        internal,
        node["spec"]["podCIDRs"],
        pod_ips,
        [one["ip"] for one in status["hostIPs"]],
        found["service"]["clusterIPs"],
    ):
        assert [family(address) for address in addresses] == wanted
    assert found["service"]["ipFamilies"] == wanted
    assert family(found["kubernetes"]["clusterIP"]) == primary
    assert found["slices"] == {family(address): address for address in pod_ips}

    for address in found["service"]["clusterIPs"]:
        url = bracketed(address)
        until(lab, "worker-1", f"curl -sgf -m 1 http://{url}/hostname")
    for address in internal:
        until(lab, "client", f"curl -sgf -m 1 http://{bracketed(address)}:30077/hostname")
    names = lab.exec(
        f"pod:default/{found['pod']['metadata']['name']}", ["getent", "ahosts", "target.default.svc.cluster.local"]
    ).text
    assert {line.split()[0] for line in names.splitlines()} == set(found["service"]["clusterIPs"])
    nothing_of_the_other_family(lab, wanted)
    no_address_is_tentative(lab)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def no_address_is_tentative(lab: RunningLab) -> None:
    """Static, without duplicate address detection, and no router was asked for (RFC 4861 section 6.3.7)."""
    for host in lab.hosts():
        links = json.loads(lab.exec(host.name, ["ip", "-json", "-6", "address"]).stdout)
        infos = [info for link in links for info in link.get("addr_info", ())]
        assert not [info["local"] for info in infos if info.get("tentative") or info.get("dynamic")], host.name
        solicitations = lab.exec(host.name, ["grep", "Icmp6OutRouterSolicits", "/proc/net/snmp6"]).text
        assert host.role == "router" or solicitations.split()[1] == "0", host.name


def nothing_of_the_other_family(lab: RunningLab, families: list[str]) -> None:
    """An IPv6 lab has no IPv4 address but 127.0.0.1."""
    if families != ["IPv6"]:
        return
    for host in (host.name for host in lab.hosts()):
        links = json.loads(lab.exec(host, ["ip", "-json", "-4", "address"]).stdout)
        assert {info["local"] for link in links for info in link.get("addr_info", ())} <= {"127.0.0.1"}, host
    assert Path(lab.kubeconfig).read_text().count("https://127.0.0.1:") == 1, "the door is the machine's"
