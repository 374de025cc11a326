"""kube-proxy beside the real API server and controllers: their objects become rules of a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.components.controllers.cluster import Cluster, fake_node
from tests.components.kube_proxy import scratch
from tests.components.kube_proxy.scratch import Fabric


def _rules() -> str:
    return os.popen("iptables-save").read()


def _life(fabric: Fabric) -> dict[str, Any]:
    def life() -> dict[str, Any]:
        seen: dict[str, Any] = {}
        with Cluster([fake_node("node1"), fake_node("node2")]) as cluster:
            command = [sys.executable, "-m", "kubewire.components.kube_proxy", "--kubeconfig", cluster.kubeconfig]
            flags = ["--hostname-override=node1", "--cluster-cidr=10.244.0.0/16", "--iptables-min-sync-period=100ms"]
            process = subprocess.Popen([*command, *flags])
            try:
                cluster.wait(lambda: "KUBE-SVC-NPX46M4PTMTKRN6Y" in _rules(), "default/kubernetes in the rules")
                cluster.kubectl("create", "deployment", "web", "--image=x", "--replicas=2")
                cluster.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort")
                cluster.wait(lambda: _rules().count("--to-destination 10.244.") == 2, "two endpoints")
                seen["two"] = _rules()
                cluster.kubectl("scale", "deployment", "web", "--replicas=0")
                cluster.wait(lambda: "default/web has no endpoints" in _rules(), "REJECT")
                cluster.kubectl("delete", "service", "web")
                cluster.wait(lambda: "default/web" not in _rules(), "no rule left")
            finally:
                process.send_signal(signal.SIGTERM)
                seen["exit"] = process.wait(10)
        return seen

    found: dict[str, Any] = fabric.inside("node1", life)
    return found


@pytest.mark.packet
def test_a_deployment_exposed_by_kubectl_becomes_rules_and_goes_again():
    seen = scratch.run(_life, seconds=90)
    assert seen["exit"] == 0
    assert "--probability 0.50000000000" in seen["two"]
    assert seen["two"].count(":KUBE-EXT-") == 1
