"""The installed plugin as any runtime calls it: environment and stdin in, JSON and exit code out."""

import json
import os
import subprocess

import pytest

from kubewire.components.networks.calico import install

POD = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    install.install_plugins(str(folder))
    return folder


def call(plugins, verb, config="{}", name="calico", **environment):
    done = subprocess.run(
        [plugins / name],
        input=config,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize("name", install.PLUGINS)
def test_version(plugins, name):
    code, answer = call(plugins, "VERSION", '{"cniVersion": "0.4.0"}', name)
    assert (code, answer["cniVersion"]) == (0, "0.4.0")
    assert {"0.3.1", "0.4.0", "1.0.0", "1.1.0"} <= set(answer["supportedVersions"])


@pytest.mark.parametrize(
    ("verb", "config", "environment", "code", "text"),
    [
        ("FLY", "{}", POD, 4, "unknown CNI_COMMAND: FLY"),
        ("ADD", "{}", {"CNI_PATH": "/x"}, 4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"),
        ("ADD", "{", POD, 6, "failed to load netconf"),
        ("ADD", '{"cniVersion": "9.9.9", "name": "n"}', POD, 1, "incompatible CNI versions"),
        ("CHECK", '{"cniVersion": "0.3.1", "name": "n"}', POD, 1, "config version does not allow CHECK"),
        ("STATUS", '{"cniVersion": "1.0.0", "name": "n"}', POD, 1, "config version does not allow STATUS"),
        (
            "ADD",
            '{"cniVersion": "1.0.0", "name": "n", "nodename_file": "/no/such"}',
            POD,
            999,
            "check that the calico/node container is running",
        ),
        (
            "STATUS",
            '{"cniVersion": "1.1.0", "name": "n", "nodename_file": "/no/such"}',
            POD,
            50,
            "check that the calico/node container is running",
        ),
        (
            "DEL",
            '{"cniVersion": "1.0.0", "name": "n", "nodename": "n", "kubernetes": {"kubeconfig": "/no/such/file"}}',
            POD,
            999,
            "/no/such/file",
        ),
        (
            "ADD",
            '{"cniVersion": "1.0.0", "name": "n", "nodename": "n", "ipam": {"type": "nosuch"}}',
            POD,
            999,
            'failed to find plugin "nosuch"',
        ),
    ],
)
def test_errors_are_objects_with_the_specs_codes(plugins, verb, config, environment, code, text):
    returned, answer = call(plugins, verb, config, **environment)
    assert returned == 1
    assert answer["code"] == code
    assert text in answer["msg"]


def test_names_of_veths_are_upstreams():
    # sha1("default.wep1") begins so.
    import hashlib

    from kubewire.components.networks.calico.plugin.cni import host_veth

    assert host_veth("default.wep1") == "cali" + hashlib.sha1(b"default.wep1").hexdigest()[:11]
    assert len(host_veth("a" * 63 + "." + "b" * 253)) == 15


def test_the_conflist_is_upstreams():
    network = json.loads(install.conflist("worker-1", 1450))
    assert (network["name"], network["cniVersion"]) == ("k8s-pod-network", "0.3.1")
    assert [plugin["type"] for plugin in network["plugins"]] == ["calico", "portmap", "bandwidth"]
    assert network["plugins"][0]["ipam"] == {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"}
    assert network["plugins"][0]["mtu"] == 1450
