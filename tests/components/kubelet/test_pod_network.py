"""What the kubelet asks of a network of spec 1.1.0, and what it passes on of a pod."""

import asyncio
import json
from pathlib import Path

import pytest

from kubewire.components.kubelet.node.object import network_not_ready
from kubewire.components.kubelet.pod import network as pod_network
from kubewire.components.kubelet.pod.network import PodNetwork

PLUGIN = """#!/bin/sh
cat > {folder}/stdin.$CNI_COMMAND
[ ! -e {folder}/broken ] || [ $CNI_COMMAND != STATUS ] || {{ echo '{{"code": 50, "msg": "the database is away"}}'; exit 1; }}
"""


@pytest.fixture
def network(tmp_path):
    plugin = tmp_path / "bin/fake"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN.format(folder=tmp_path))
    plugin.chmod(0o755)
    (tmp_path / "net.d").mkdir()
    return PodNetwork(tmp_path / "net.d", [str(plugin.parent)], tmp_path / "netns", str(tmp_path / "cache"))


def configure(tmp_path, version="1.1.0"):
    conf = {"cniVersion": version, "name": "net", "plugins": [{"type": "fake"}]}
    Path(tmp_path, "net.d/10-net.conflist").write_text(json.dumps(conf))


def test_without_a_configuration_it_is_not_initialized(network):
    asyncio.run(network.ask_status())
    assert network.problem() == "cni plugin not initialized"
    assert network_not_ready(network.problem()).endswith("Network plugin returns error: cni plugin not initialized")


def test_what_a_plugin_says_of_its_status_is_the_nodes(network, tmp_path):
    configure(tmp_path)
    (tmp_path / "broken").touch()
    assert network.ready()  # nobody has asked yet
    asyncio.run(network.ask_status())
    assert "the database is away" in network.problem()
    (tmp_path / "broken").unlink()
    asyncio.run(network.ask_status())
    assert network.ready()


def test_older_networks_are_not_asked(network, tmp_path):
    configure(tmp_path, "1.0.0")
    asyncio.run(network.ask_status())
    assert network.ready()
    assert not (tmp_path / "stdin.STATUS").exists()


def test_after_a_restart_plugins_hear_which_sandboxes_there_are(network, tmp_path):
    configure(tmp_path)
    asyncio.run(network.collect_garbage({"sandbox-1": "/run/netns/cni-1"}))
    told = json.loads((tmp_path / "stdin.GC").read_text())
    assert told["cni.dev/valid-attachments"] == [{"containerID": "sandbox-1", "ifname": "eth0"}]


def pod(annotation):
    metadata = {"name": "a", "namespace": "n", "annotations": {"v1.multus-cni.io/default-network": annotation}}
    return {"metadata": metadata, "spec": {"containers": []}}


@pytest.mark.parametrize(
    ("annotation", "passed"),
    [
        ('[{"name": "net", "ips": ["10.1.1.11/24"], "mac": "c2:b0:57:49:47:f1"}]', {"ips": ["10.1.1.11/24"], "mac": "c2:b0:57:49:47:f1"}),
        ('[{"name": "net", "mac": "c2:b0:57:49:47:f1"}]', {"mac": "c2:b0:57:49:47:f1"}),
        ("net", {}),
        ("[", {}),
        ("[1]", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_an_address_and_a_mac_that_a_pod_asks_for(annotation, passed):
    assert pod_network.capability_args(pod(annotation)) == passed
