"""`kubewire policy matrix --measure` in a lab whose network enforces nothing: the wire contradicts the policies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from kubewire.components.kubeapi.resources import NAMESPACES, PODS
from kubewire.lab.handle import RunningLab
from kubewire.scenarios.engine.file.fixtures import pod
from kubewire.scenarios.engine.scene.api import Cluster
from tests.lab.kubewire_cli import ROOT, until

pytestmark = pytest.mark.packet
SPACE = "measured"
DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "db", "namespace": SPACE},
    "spec": {"podSelector": {"matchLabels": {"app": "db"}}},
}


@pytest.fixture
def cluster(running_lab: RunningLab) -> Iterator[Cluster]:
    """Two pods in a namespace of their own."""
    cluster = Cluster.of(running_lab.kubeconfig)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}, "")
    accounts = cluster.resource("serviceaccounts")
    until(lambda: cluster.find(accounts, "default", SPACE) is not None, "the namespace's account", 60)
    for name, node in (("web", "worker-1"), ("db", "worker-2")):
        cluster.apply(pod(name, {"node": node}, name), SPACE)
    until(lambda: sum(map(_ready, cluster.list(PODS, SPACE))) == 2, "the pods are ready", 60)
    yield cluster
    cluster.delete(NAMESPACES, SPACE)


def _ready(found: dict[str, object]) -> bool:
    status: dict[str, list[dict[str, str]]] = found.get("status") or {}  # type: ignore[assignment]
    return any((one["type"], one["status"]) == ("Ready", "True") for one in status.get("conditions") or ())


def matrix(lab: RunningLab, *arguments: str) -> tuple[int, str]:
    return policy(lab, "matrix", "-n", SPACE, *arguments)


def policy(lab: RunningLab, command: str, *arguments: str) -> tuple[int, str]:
    line = [sys.executable, "-m", "kubewire.lab", "policy", command, "--name", lab.name, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert not done.stderr
    return done.returncode, done.stdout


class Cells(HTMLParser):
    """The classes of a page's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.classes: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td" and (found := dict(attrs)):
            self.classes.append(found.get("class"))


def test_prediction_and_packets_are_compared(running_lab: RunningLab, cluster: Cluster) -> None:
    code, text = matrix(running_lab, "--measure")
    assert (code, text.splitlines()[-1]) == (0, "2 connections measured, 0 differ from the prediction")
    code, text = matrix(running_lab, "--measure", "--port", "9", "-o", "json")  # a refusal comes from the pod
    assert code == 0 and {cell["measured"] for cell in json.loads(text)} == {"refused (Connection refused)"}
    cluster.apply(DENY, SPACE)
    code, text = matrix(running_lab, "--measure")
    assert code == 1
    assert text.splitlines()[-3:] == [
        f"{SPACE}/web -> {SPACE}/db 8080/TCP: predicted denied, measured connected",
        "    denied: egress: no policy selects the pod; ingress: isolated by NetworkPolicy measured/db, no rule allows",
        "2 connections measured, 1 differ from the prediction",
    ]
    code, text = matrix(running_lab, "--measure", "-o", "json")
    assert code == 1
    assert [(cell["allowed"], cell["measured"]) for cell in json.loads(text)] == [
        (True, "connected"),
        (False, "connected"),
    ]
    assert Cells(matrix(running_lab, "--measure", "-o", "html")[1]).classes == ["allowed", "denied differs"]
    assert policy(running_lab, "explain", f"{SPACE}/web", f"{SPACE}/db")[1].splitlines()[-2:] == [
        f"  ingress of {SPACE}/db: denied: isolated by NetworkPolicy measured/db, no rule allows",
        "    the lab's policy engine is none: nothing enforces this",
    ]
