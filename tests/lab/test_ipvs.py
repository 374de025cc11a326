"""A lab in IPVS mode: cluster DNS and Services work by ip_vs. Runs where the kernel has it (vm/README.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import DEPLOYMENTS, SERVICES
from kubewire.lab.handle import LabStarter, RunningLab
from kubewire.lab.needs.doctor import missing_feature
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.lab.test_lab import service, until, web, with_api

pytestmark = pytest.mark.lab


@pytest.fixture
def ipvs_lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningLab]:
    if why := missing_feature("ip_vs") or missing_feature("dummy"):
        pytest.skip(why)
    spec = LabSpec.parse({"topology": {"workers": 1}, "kubeProxy": {"mode": "ipvs"}})
    with tempfile.TemporaryDirectory(prefix="kw-") as base:
        monkeypatch.setenv("KUBEWIRE_STATE_DIR", base)
        with LabStarter()(spec, "ipvs") as lab:
            yield lab


def test_a_service_answers_from_the_node_and_from_outside(ipvs_lab: RunningLab, short_path: Path) -> None:
    async def create(client: Client) -> None:
        await client.create(DEPLOYMENTS, web("target"))
        ports = [{"port": 80, "targetPort": 8080, "nodePort": 30077}]
        await client.create(SERVICES, service("target", type="NodePort", clusterIP="10.96.77.77", ports=ports))

    lab = ipvs_lab
    with_api(lab.kubeconfig, create)
    until(lab, "worker-1", "curl -sf -m 1 http://10.96.77.77/hostname")
    until(lab, "client", "curl -sf -m 1 http://172.18.0.3:30077/hostname")
    # Refused (7), not timed out (28): the ClusterIP has no such port.
    assert lab.exec("worker-1", ["curl", "-s", "-m", "5", "http://10.96.77.77:81/"]).returncode == 7
    assert b"-A -t 10.96.77.77:80 -s rr" in lab.exec("worker-1", ["ipvsadm", "-Sn"]).stdout
    assert b"10.96.77.77/32" in lab.exec("worker-1", ["ip", "address", "show", "kube-ipvs0"]).stdout
    assert b"KUBE-SVC" not in lab.exec("worker-1", ["iptables-save"]).stdout
