"""A lab in nftables mode: cluster DNS and Services work with no iptables rule of kube-proxy's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import DEPLOYMENTS, SERVICES
from kubewire.lab.handle import LabStarter, RunningLab
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.lab.test_lab import service, until, web, with_api

pytestmark = pytest.mark.lab


@pytest.fixture
def nftables_lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningLab]:
    spec = LabSpec.parse({"topology": {"workers": 1}, "kubeProxy": {"mode": "nftables"}})
    with tempfile.TemporaryDirectory(prefix="kw-") as base:
        monkeypatch.setenv("KUBEWIRE_STATE_DIR", base)
        with LabStarter()(spec, "nft") as lab:
            yield lab


def test_a_service_answers_from_the_node_and_from_outside(nftables_lab: RunningLab, short_path: Path) -> None:
    async def create(client: Client) -> None:
        await client.create(DEPLOYMENTS, web("target"))
        ports = [{"port": 80, "targetPort": 8080, "nodePort": 30077}]
        await client.create(SERVICES, service("target", type="NodePort", clusterIP="10.96.77.77", ports=ports))

    lab = nftables_lab
    with_api(lab.kubeconfig, create)
    until(lab, "worker-1", "curl -sf -m 1 http://10.96.77.77/hostname")
    until(lab, "client", "curl -sf -m 1 http://172.18.0.3:30077/hostname")
    until(lab, "worker-1", "nft list chain ip kube-proxy cluster-ips-check | grep 'ip daddr 10.96.0.0/12 drop'")
    # Refused (7), not timed out (28): the ClusterIP has no such port.
    assert lab.exec("worker-1", ["curl", "-s", "-m", "5", "http://10.96.77.77:81/"]).returncode == 7
    assert b"default/target" in lab.exec("worker-1", ["nft", "list", "chains", "ip"]).stdout
    assert b"KUBE-SVC" not in lab.exec("worker-1", ["iptables-save"]).stdout
