"""kubeadm's manifests are accepted by the API server, and what is in it becomes names."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.components.coredns import manifests
from tests.components.controllers.cluster import Cluster, fake_node
from tests.components.coredns.test_process import free_ports, udp

COREFILE = """\
. {{
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods verified
    }}
}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    labels = {"kubernetes.io/os": "linux"}
    with Cluster([fake_node("w0", labels=labels), fake_node("w1", labels=labels)]) as running:
        yield running


@pytest.fixture(scope="module")
def port(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("coredns")
    (folder / "Corefile").write_text(COREFILE.format(kubeconfig=cluster.kubeconfig))
    (number,) = free_ports(1)
    command = [sys.executable, "-m", "kubewire.components.coredns", "-quiet", "-conf", str(folder / "Corefile")]
    process = subprocess.Popen([*command, "-dns.port", str(number)])
    yield number
    process.terminate()
    assert process.wait(10) == 0


def test_the_applied_manifests_run_and_are_resolved(cluster: Cluster, port: int):
    cluster.apply(*manifests.render("cluster.local", "10.96.0.10", 2))
    cluster.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")

    def answers(name: str, qtype: str = "A") -> list[str]:
        reply = asyncio.run(udp(port, name, qtype))
        return sorted(str(rr.rdata) for rr in reply.rr) if reply else []

    assert cluster.wait(lambda: answers("kube-dns.kube-system.svc.cluster.local"), "kube-dns") == ["10.96.0.10"]
    assert answers("kubernetes.default.svc.cluster.local") == ["10.96.0.1"]
    assert answers("10.0.96.10.in-addr.arpa", "PTR") == ["kube-dns.kube-system.svc.cluster.local."]
    assert answers("_dns._udp.kube-dns.kube-system.svc.cluster.local", "SRV") == [
        "0 100 53 kube-dns.kube-system.svc.cluster.local."
    ]
    pods = cluster.objects("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")
    ip = pods[0]["status"]["podIP"]
    assert answers(f"{ip.replace('.', '-')}.kube-system.pod.cluster.local") == [ip]


def test_a_headless_service_follows_its_pods(cluster: Cluster, port: int):
    labels = {"app": "db"}
    pod = {"containers": [{"name": "c", "image": "x"}]}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"port": 5432, "name": "pg"}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "db"},
            "spec": {
                "serviceName": "db",
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )

    def count(name: str) -> int:
        reply = asyncio.run(udp(port, name))
        return len(reply.rr) if reply else 0

    cluster.wait(lambda: count("db.default.svc.cluster.local") == 2, "two addresses")
    assert count("db-1.db.default.svc.cluster.local") == 1
    cluster.kubectl("scale", "statefulset/db", "--replicas=1")
    cluster.wait(lambda: count("db.default.svc.cluster.local") == 1, "one address")
    assert count("db-1.db.default.svc.cluster.local") == 0
