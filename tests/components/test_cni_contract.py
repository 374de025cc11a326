"""Every CNI plugin of ours, as any runtime calls it: the same contract (SPEC.md), whatever network it is of."""

import importlib
import json
import os
import subprocess

import pytest

from kubewire.components.networks import registry
from kubewire.components.networks.cni_plugin import pack

INSTALLERS = [importlib.import_module(one.installer) for one in registry.NETWORKS if one.connects_pods]
NAMES = [name for installer in INSTALLERS for name in installer.PLUGINS]
VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
NETWORK = {"cniVersion": "1.1.0", "name": "n"}
POD = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    for installer in INSTALLERS:
        pack.install(installer.plugin(), installer.PLUGINS, str(folder))
    return folder


def call(plugins, name, verb, config, **environment):
    done = subprocess.run(
        [plugins / name],
        input=config,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_version(plugins, name, version):
    code, answer = call(plugins, name, "VERSION", json.dumps({"cniVersion": version}))
    assert (code, answer["cniVersion"]) == (0, version)
    assert set(VERSIONS) <= set(answer["supportedVersions"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("verb", "config", "environment", "code"),
    [
        pytest.param("FLY", "{}", POD, 4, id="unknown command"),
        pytest.param("ADD", "{}", {"CNI_PATH": "/x"}, 4, id="environment is missing"),
        pytest.param("ADD", "{", POD, 6, id="no JSON"),
        pytest.param("ADD", '{"cniVersion": "9.9.9", "name": "n"}', POD, 1, id="unknown version"),
        pytest.param("CHECK", '{"cniVersion": "0.3.1", "name": "n"}', POD, 1, id="CHECK before 0.4.0"),
        pytest.param("STATUS", '{"cniVersion": "1.0.0", "name": "n"}', POD, 1, id="STATUS before 1.1.0"),
        pytest.param("GC", '{"cniVersion": "1.0.0", "name": "n"}', POD, 1, id="GC before 1.1.0"),
    ],
)
def test_what_is_wrong_is_an_object_with_the_specs_code(plugins, name, verb, config, environment, code):
    returned, answer = call(plugins, name, verb, config, **environment)
    assert returned != 0
    assert answer["code"] == code, answer
    assert answer["msg"]


MALFORMED = [
    pytest.param("", {}, 7, id="nothing"),
    pytest.param("[]", {}, 6, id="a list"),
    pytest.param("null", {}, 6, id="null"),
    pytest.param("1", {}, 6, id="a number"),
    pytest.param("[" * 100_000, {}, 6, id="nested lists"),
    pytest.param('{"a":' * 100_000, {}, 6, id="nested objects"),
    pytest.param("\ud83d", {}, 6, id="no text"),
    pytest.param('{"cniVersion": 1, "name": "n"}', {}, 6, id="cniVersion is a number"),
    pytest.param('{"cniVersion": ["1.0.0"], "name": "n"}', {}, 6, id="cniVersion is a list"),
    pytest.param('{"cniVersion": "1.0.0", "name": {}}', {}, 7, id="name is empty"),
    pytest.param('{"cniVersion": "1.0.0", "name": [1]}', {}, 6, id="name is a list"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n", "type": 5}', {}, 6, id="type is a number"),
    pytest.param('{"cniVersion": "1.0.0"}', {}, 7, id="no name"),
    pytest.param('{"cniVersion": "1.0.0", "name": "../n"}', {}, 7, id="name with a slash"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n", "ipam": "x"}', {}, 7, id="ipam is a string"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n", "prevResult": []}', {}, 7, id="prevResult is a list"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_CONTAINERID": "../x"}, 4, id="container id"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_IFNAME": "eth0/../x"}, 4, id="interface name"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_IFNAME": "x" * 16}, 4, id="long interface name"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_IFNAME": "a\nlink"}, 4, id="two lines"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_NETNS": "/run/x\nlink del y"}, 4, id="netns"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_ARGS": "K8S_POD_NAME"}, 4, id="half a pair"),
    pytest.param('{"cniVersion": "1.0.0", "name": "n"}', {"CNI_ARGS": "=x"}, 4, id="a pair without a key"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("config", "environment", "code"), MALFORMED)
def test_malformed_configuration_is_an_object_with_the_specs_code(plugins, name, config, environment, code):
    done = subprocess.run(
        [plugins / name],
        input=config.encode("utf-8", "surrogatepass"),
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", **POD, **environment},
        capture_output=True,
        timeout=30,
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"]) == (1, code), answer
    assert answer["cniVersion"] in ("1.0.0", "1.1.0")
    assert answer["msg"]
    assert done.stderr == b""


KEYS = [
    ("calico", {"kubernetes": 1}, "kubernetes: must be an object"),
    ("calico", {"kubernetes": {"kubeconfig": 1}}, "kubernetes.kubeconfig: must be a string"),
    ("calico", {"mtu": "1500; reboot"}, "mtu: must be a number"),
    ("weave-net", {"bridge": "weave up\nlink del lo"}, "bridge: must be the name of an interface"),
    ("weave-net", {"ipam": {"routes": [{"dst": "0.0.0.0/0 dev lo"}]}}, "ipam.routes: must be a list of routes"),
    ("weave-ipam", {"ipam": {"ips": "10.32.0.1"}}, "ipam.ips: must be a list of addresses"),
    ("weave-ipam", {"httpAddr": 6784}, "httpAddr: must be a string"),
    ("aws-cni", {"vethPrefix": "longer"}, "vethPrefix: must be at most four characters"),
    ("aws-cni", {"mtu": -1}, "mtu: must be a number from 0 to 65535"),
    ("azure-vnet-ipam", {"ipam": {"subnet": "10.0.0.0/0"}}, "is no IPv4 subnet with a length from 16 to 30"),
    ("azure-vnet-ipam", {"ipam": {"subnet": "fd00::/64"}}, "is no IPv4 subnet with a length from 16 to 30"),
    ("flannel", {"subnetFile": []}, "subnetFile: must be a string"),
    ("flannel", {"delegate": "bridge"}, "delegate: must be an object"),
    ("flannel", {"ipam": {"routes": 1}}, "ipam.routes: must be a list of routes"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), KEYS)
def test_keys_of_other_types_are_named(plugins, name, wrong, said):
    config = json.dumps({"cniVersion": "1.0.0", "name": "n", "type": name, **wrong})
    code, answer = call(plugins, name, "ADD", config, **POD)
    assert (code, answer["code"]) == (1, 7), answer
    assert said in answer["msg"]


def test_without_stdin_it_is_an_error_of_input(plugins):
    command = f"exec {plugins / 'calico'} <&-"
    done = subprocess.run(["sh", "-c", command], env={**os.environ, "CNI_COMMAND": "ADD", **POD}, capture_output=True)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 5)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_command_it_says_what_it_is(plugins, name):
    done = subprocess.run(
        [plugins / name], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert f"CNI plugin {name}" in done.stderr or "CNI" in done.stderr


@pytest.mark.parametrize("version", ["", *VERSIONS])
@pytest.mark.parametrize("name", NAMES)
def test_an_error_has_the_version_that_is_asked_for(plugins, name, version):
    config = {"name": "../n"} | ({"cniVersion": version} if version else {})
    _, answer = call(plugins, name, "ADD", json.dumps(config), **POD)
    assert answer["cniVersion"] == (version or "0.1.0")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize(
    ("config", "environment", "code"),
    [
        pytest.param({"cniVersion": "9.9.9"}, {"CNI_CONTAINERID": "-x"}, 4, id="container id before the version"),
        pytest.param({"cniVersion": "9.9.9", "name": "n/m"}, {}, 7, id="network name before the version"),
        pytest.param({"cniVersion": "0.3.1", "name": "-n"}, {}, 7, id="network name of an old version"),
    ],
)
def test_every_operation_refuses_what_cannot_be_a_name(plugins, name, verb, config, environment, code):
    returned, answer = call(plugins, name, verb, json.dumps(config), **POD | environment)
    assert (returned, answer["code"]) == (1, code), answer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("verb", "config", "environment", "code"),
    [
        pytest.param("ADD", {}, {"CNI_NETNS": "/proc/self/ns/net"}, 8, id="ADD to the plugin's own namespace"),
        pytest.param("DEL", {}, {"CNI_NETNS": "/proc/self/ns/net"}, 8, id="DEL of the plugin's own namespace"),
        pytest.param("CHECK", {}, {}, 7, id="CHECK without prevResult"),
    ],
)
def test_what_an_operation_cannot_work_with(plugins, name, verb, config, environment, code):
    returned, answer = call(plugins, name, verb, json.dumps(NETWORK | config), **POD | environment)
    assert (returned, answer["code"]) == (1, code), answer
