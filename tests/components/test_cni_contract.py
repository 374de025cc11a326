"""Every CNI plugin of ours, as any runtime calls it: the same contract (SPEC.md), whatever network it is of.

A new network's plugins are a line in INSTALLERS.
"""

import json
import os
import subprocess

import pytest

from components.aws_vpc_cni import install as aws
from components.azure_cni import install as azure
from components.calico import install as calico
from components.flannel import install as flannel
from components.weave import install as weave

INSTALLERS = {
    ("aws-cni",): lambda folder: aws.pack.install(aws.plugin(), aws.PLUGINS, folder),
    ("azure-vnet", "azure-vnet-ipam"): lambda folder: azure.pack.install(azure.plugin(), azure.PLUGINS, folder),
    ("calico", "calico-ipam"): calico.install_plugins,
    ("flannel",): flannel.install_plugin,
    ("weave-net", "weave-ipam"): weave.install_plugins,
}
NAMES = [name for names in INSTALLERS for name in names]
VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
POD = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    for install in INSTALLERS.values():
        install(str(folder))
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


@pytest.mark.parametrize("name", NAMES)
def test_without_a_command_it_says_what_it_is(plugins, name):
    done = subprocess.run(
        [plugins / name], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert f"CNI plugin {name}" in done.stderr or "CNI" in done.stderr
