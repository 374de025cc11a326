"""CNI: a plugin's side answers with a result or the spec's error; the runtime's side reads files, results and caches."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.kernel import command
from kubewire.components.kubelet.cni import cache, config, invoke, network
from kubewire.components.kubelet.cni.types import CNIError, Result
from kubewire.components.networks.azure_cni.plugin import cni as azure
from kubewire.components.networks.cni_plugin import contract
from kubewire.components.networks.flannel import cni_plugin as flannel
from kubewire.components.networks.weave.plugin import cni as weave
from tests.fuzz.mutation import mutated, mutated_json

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "calico",
    "mtu": 1500,
    "bridge": "weave",
    "vethPrefix": "eni",
    "httpAddr": "127.0.0.1:1",
    "nodename": "n",
    "kubernetes": {"kubeconfig": "/no/such"},
    "subnetFile": "/no/such",
    "dataDir": "/no/such",
    "delegate": {"type": "bridge", "hairpinMode": True},
    "ipam": {
        "type": "x",
        "subnet": "10.0.0.0/24",
        "ips": ["10.0.0.5"],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
    },
    "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.5/32"}], "interfaces": [{"name": "eth0"}]},
    "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
    "capabilities": {"portMappings": True},
    "runtimeConfig": {"portMappings": []},
    "dns": {"nameservers": ["10.0.0.10"]},
}
LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [CONFIG, {"type": "portmap"}], "disableCheck": "false"}
RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x", "mtu": 1500}],
    "ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400, "table": 254}],
    "dns": {"nameservers": ["10.0.0.10"], "search": ["svc"]},
}
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/no/such",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/no/such",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
}


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """The process's CNI_ variables, for this test."""
    yield ENVIRONMENT
    for name in ENVIRONMENT:
        os.environ.pop(name, None)


def set_environment(chance: random.Random) -> None:
    os.environ.update(ENVIRONMENT, CNI_COMMAND=chance.choice(["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"]))
    if chance.random() < 0.3:
        name = chance.choice(list(ENVIRONMENT))
        value = chance.choice(
            ["", "..", "a b", "x\nlink del lo", "=", ";;", "a=b=c;d", "x" * 300, "-", "eth0/1", "'\";"]
        )
        os.environ[name] = value


def read_only(call: contract.Call) -> dict[str, Any]:
    """What every verb of ours reads of its call."""
    assert all(contract.is_word(value) for value in call.args.values())
    veths = azure.host_veth(call), weave.Call(call.config).veth
    for value in (*veths, str(call.config.get("mtu", "")), str(call.config.get("vethPrefix", ""))):
        assert "\n" not in value
    with contextlib.suppress(contract.PluginError):
        azure.pool(call) if (call.config.get("ipam") or {}).get("subnet") else None
    assert all(map(contract.is_word, call.addresses))
    return {"valid": sorted(call.valid_attachments), "version": call.version}


VERBS = dict.fromkeys(("ADD", "DEL", "CHECK", "STATUS", "GC"), read_only)


def plugin(data: bytes) -> None:
    with contextlib.suppress(contract.PluginError):
        json.dumps(contract.dispatch(VERBS, os.environ["CNI_COMMAND"], data, contract.Call))
    with contextlib.suppress(contract.PluginError, OSError):
        contract.dispatch(flannel.VERBS, os.environ["CNI_COMMAND"], data, contract.Call)
    error = contract.error_object(data, 7, "x", "y")
    assert error["cniVersion"] in contract.SUPPORTED_VERSIONS


def test_mutated_configurations(
    examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None], environment: dict[str, str]
) -> None:
    for _ in range(examples):
        set_environment(chance)
        data = json.dumps(mutated_json(chance, CONFIG)).encode()
        if chance.random() < 0.3:
            data = mutated(chance, (data,))
        timely(partial(plugin, data))


@given(st.binary(max_size=100))
def test_any_configuration(data: bytes) -> None:
    with contextlib.suppress(contract.PluginError):
        contract.decoded(data)


def test_mutated_files_results_and_caches(
    examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None], tmp_path: Path
) -> None:
    def read(text: bytes, answer: bytes) -> None:
        for parse in (config.parse_list, config.parse_single):
            with contextlib.suppress(config.ConfigError):
                found = parse(text)
                assert isinstance(found.capabilities, frozenset)
                network.plugin_config(found, found.plugins[0])
        with contextlib.suppress(CNIError):
            found_result = network._result(answer, "1.0.0")
            for version in ("0.3.1", "1.0.0", "1.1.0"):
                json.dumps(found_result.as_version(version).dump())
        assert isinstance(str(invoke.plugin_error(command.Completed(("x",), 1, answer, b""))), str)
        path = tmp_path / "cached"
        path.write_bytes(answer)
        with contextlib.suppress(CNIError):
            cached = cache._read(path)
            if cached is not None:
                os.fsencode("".join(cached.attachment.environment("DEL", ["/x"]).values()))

    entry = {
        "kind": cache.KIND,
        "containerId": "c",
        "config": "e30=",
        "ifName": "eth0",
        "networkName": "n",
        "netns": "/x",
        "cniArgs": [["a", "b"]],
        "capabilityArgs": {},
        "result": RESULT,
    }
    Result.parse(RESULT, "")
    for _ in range(examples):
        text = json.dumps(mutated_json(chance, LIST)).encode()
        answer = json.dumps(mutated_json(chance, chance.choice([RESULT, entry, {"code": 7, "msg": "m"}]))).encode()
        if chance.random() < 0.3:
            text, answer = mutated(chance, (text,)), mutated(chance, (answer,))
        timely(partial(read, text, answer))
