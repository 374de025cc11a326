"""Flags, KubeletConfiguration, and the Node object made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubewire.components.apiserver.registry.strategicmerge import strategic_merge
from kubewire.components.kubelet.backoff import Backoff, BackoffPolicy
from kubewire.components.kubelet.configuration import ConfigurationError, Settings, Taint, duration, settings
from kubewire.components.kubelet.images.catalogue import Catalogue
from kubewire.components.kubelet.images.pulls import ImagePuller
from kubewire.components.kubelet.node.object import (
    Health,
    Machine,
    node_conditions,
    node_object,
    node_status,
    status_changed,
)
from kubewire.components.kubelet.node.registration import status_patch
from kubewire.components.kubelet.pod.network import capability_args, cni_args, in_order
from kubewire.components.kubelet.server import addresses_of

HEAD = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
MACHINE = Machine(2, 4 * 2**30, 10 * 2**30, "m", "s", "b", "6.1", "Debian", "amd64")


def configured(tmp_path: Path, text: str, *flags: str) -> Settings:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + text)
    return settings(["--config", str(path), "--hostname-override", "Worker-1", *flags])[0]


def test_a_file_and_flags(tmp_path: Path) -> None:
    text = (
        "clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\nmaxPods: 30\nsyncFrequency: 1m30s\n"
        "containerLogMaxSize: 5Mi\nauthentication: {x509: {clientCAFile: /ca.crt}}\nport: 10350\n"
    )
    found = configured(
        tmp_path, text, "--port", "10450", "--node-ip", "172.18.0.3", "--node-labels", "a=b,c=",
        "--register-with-taints", "node-role.kubernetes.io/control-plane:NoSchedule,k=v:NoExecute",
        "--container-runtime-endpoint", "unix:///run/x.sock",
    )  # fmt: skip
    assert found.node_name == "worker-1"
    assert (found.cluster_dns, found.max_pods, found.sync_frequency) == (("10.96.0.10",), 30, 90.0)
    assert (found.container_log_max_size, found.client_ca_file) == (5 * 2**20, Path("/ca.crt"))
    assert found.port == 10450, "a flag wins over the file"
    assert found.node_labels == {"a": "b", "c": ""}
    assert found.taints == (
        Taint("node-role.kubernetes.io/control-plane", "", "NoSchedule"),
        Taint("k", "v", "NoExecute"),
    )
    assert found.runtime_endpoint == Path("/run/x.sock")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("maxpods: 3", 'config.yaml: unknown field "maxpods"; allowed are '),
        ("authentication: {webhook: {enabled: true}}", 'unknown field "authentication.webhook'),
        ("maxPods: many", 'maxPods: "many": must be an integer'),
        ("syncFrequency: 10", "write it like 10s"),
        ("authorization: {mode: Webhook}", "authorization.mode: .* must be one of AlwaysAllow"),
        ("kind: Other", "must have apiVersion"),
        ("- x", "config.yaml:3: not YAML|must be a KubeletConfiguration"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        configured(tmp_path, text)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--register-with-taints", "a:Never"),
        ("--node-labels", "novalue"),
        ("--node-ip", "worker-1"),
        ("--node-ip", "172.18.0.3,172.18.0.4"),
    ],
)
def test_mistakes_in_flags(tmp_path: Path, flag: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        configured(tmp_path, "", flag, value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10.0), ("1m30s", 90.0), ("500ms", 0.5), ("0", 0.0), ("1.5h", 5400.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_the_node_that_is_registered(tmp_path: Path) -> None:
    found = configured(tmp_path, "", "--node-ip", "172.18.0.3", "--register-with-taints", "k=v:NoSchedule")
    node = node_object(found, MACHINE)
    assert node["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    assert node["spec"]["taints"] == [{"key": "k", "value": "v", "effect": "NoSchedule"}]
    status = node_status(found, MACHINE, Health(), [], {}, 0.0)
    assert status["addresses"] == [
        {"type": "InternalIP", "address": "172.18.0.3"},
        {"type": "Hostname", "address": "worker-1"},
    ]
    assert status["capacity"]["memory"] == "4194304Ki" and status["allocatable"]["pods"] == "110"


def test_a_node_of_both_families_keeps_both_addresses_through_a_patch_that_merges_by_type(tmp_path: Path) -> None:
    found = configured(tmp_path, "", "--node-ip", "fd00:18::3,172.18.0.3")
    status = node_status(found, MACHINE, Health(), [], {}, 0.0)
    before = {"addresses": [{"type": "InternalIP", "address": "172.18.0.9"}]}
    merged = strategic_merge(before, status_patch(status), lambda path: "type" if path[-1] == "addresses" else None)
    assert merged["addresses"] == [
        {"type": "InternalIP", "address": "fd00:18::3"},
        {"type": "InternalIP", "address": "172.18.0.3"},
        {"type": "Hostname", "address": "worker-1"},
    ]


@pytest.mark.parametrize(
    ("node", "given", "listed"),
    [
        pytest.param(("172.18.0.3",), ("10.244.1.2",), ("10.244.1.2",), id="IPv4"),
        pytest.param(("172.18.0.3", "fd00::3"), ("10.0.0.2", "fd00:1::2"), ("10.0.0.2", "fd00:1::2"), id="as the node"),
        pytest.param(("fd00::3", "172.18.0.3"), ("10.0.0.2", "fd00:1::2"), ("fd00:1::2", "10.0.0.2"), id="IPv6 first"),
        pytest.param(
            ("172.18.0.3",), ("fd00:1::2", "10.0.0.2", "10.0.0.9"), ("10.0.0.2", "fd00:1::2"), id="one of each"
        ),
        pytest.param(("172.18.0.3",), ("fd00:1::2",), ("fd00:1::2",), id="none of the node's family"),
        pytest.param((), ("10.0.0.2",), ("10.0.0.2",), id="a node without an address"),
    ],
)
def test_a_pods_addresses_stand_in_the_order_of_the_nodes_families(
    node: tuple[str, ...], given: tuple[str, ...], listed: tuple[str, ...]
) -> None:
    assert in_order(given, node) == listed


def test_an_unspecified_address_is_both_families_as_in_go() -> None:
    assert addresses_of("0.0.0.0") == addresses_of("::") == ["0.0.0.0", "::"]
    assert addresses_of("127.0.0.1") == ["127.0.0.1"]


def test_heartbeats_alone_are_no_change() -> None:
    found = Settings("worker-1")
    first = node_status(found, MACHINE, Health(), [], {}, 0.0)
    later = node_status(found, MACHINE, Health(), [], first, 100.0)
    assert later["conditions"][0]["lastHeartbeatTime"] != first["conditions"][0]["lastHeartbeatTime"]
    assert not status_changed(first, later)
    assert status_changed(first, node_status(found, MACHINE, Health(("x",)), [], first, 100.0))


def test_a_node_that_changes_its_mind_says_when() -> None:
    bad = node_conditions(Health(("no network",)), [], 0.0)
    good = node_conditions(Health(), bad, 50.0)
    ready, pressure = good[-1], good[0]
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", "1970-01-01T00:00:50Z")
    assert pressure["lastTransitionTime"] == "1970-01-01T00:00:00Z"


def test_back_off_doubles_up_to_five_minutes_and_is_forgotten() -> None:
    policy, held = BackoffPolicy(), Backoff()
    assert held.ready_at(policy, 100.0) == 100.0, "the first restart is at once"
    delays = []
    now = 0.0
    for _ in range(7):
        held = held.raised(policy, now)
        delays.append(held.ready_at(policy, now) - now)
        now += delays[-1]
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert held.ready_at(policy, now + 601) == now + 601, "it had run for ten minutes"
    assert held.raised(policy, now + 601).delay == 10


def test_a_missing_image_is_pulled_then_backed_off() -> None:
    puller = ImagePuller(Catalogue.load())
    first = puller.pull("u", "nobody/knows", "IfNotPresent", 0.0)
    assert first.waiting is not None and first.waiting.reason == "ErrImagePull"
    assert [reason for _, reason, _ in first.events] == ["Pulling", "Failed", "Failed"]
    second = puller.pull("u", "nobody/knows", "IfNotPresent", 2.0)
    assert second.waiting is not None and second.waiting.reason == "ImagePullBackOff"
    assert second.waiting.message.startswith('Back-off pulling image "nobody/knows": ErrImagePull: ')
    assert second.retry_at == 10.0
    third = puller.pull("u", "nobody/knows", "IfNotPresent", 10.0)
    assert third.waiting is not None and third.waiting.reason == "ErrImagePull"


@pytest.mark.parametrize(
    ("image", "policy", "reason"),
    [("nobody/knows", "Never", "ErrImageNeverPull"), ("Not An Image", "Always", "InvalidImageName")],
)
def test_other_reasons_not_to_start(image: str, policy: str, reason: str) -> None:
    found = ImagePuller(Catalogue.load()).pull("u", image, policy, 0.0)
    assert found.waiting is not None and found.waiting.reason == reason


def test_what_cni_plugins_are_told() -> None:
    pod: Any = {
        "metadata": {
            "name": "p",
            "namespace": "d",
            "uid": "u",
            "annotations": {"kubernetes.io/egress-bandwidth": "10M"},
        },
        "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}]}]},
    }
    assert cni_args(pod, "s1") == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "d",
        "K8S_POD_NAME": "p",
        "K8S_POD_INFRA_CONTAINER_ID": "s1",
        "K8S_POD_UID": "u",
    }
    assert capability_args(pod) == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        "bandwidth": {"egressRate": 10_000_000, "egressBurst": 2147483647},
    }
