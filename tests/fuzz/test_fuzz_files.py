"""What users write: lab and scenario files, the image catalogue, kubeconfigs, components' configuration, times, paths."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.bgp import config as bgp
from kubewire.components.kube_proxy.configuration import config as kube_proxy
from kubewire.components.kubeapi import kubeconfig
from kubewire.components.kubeapi.jsonpath import JSONPath, JSONPathError
from kubewire.components.kubelet.configuration import ConfigurationError, read_configuration
from kubewire.components.kubelet.images.catalogue import Catalogue, InvalidCatalogue, InvalidImageName, Reference
from kubewire.components.kubelet.static_pods import ManifestError, read_manifest
from kubewire.scenarios.engine import loader
from kubewire.scenarios.engine.file.document import Document, SpecError
from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.fuzz.mutation import mutated, mutated_json

CATALOGUE = Path(loader.__file__).parents[1] / "catalogue"
SCENARIOS = sorted(CATALOGUE.rglob(f"*{loader.SUFFIX}"), key=lambda path: path.stat().st_size)[:40]
LAB = {
    "name": "x",
    "kubelet": {"maxPods": 20, "podPidsLimit": 3},
    "controllerManager": {"node-monitor-grace-period": "20s", "leader-elect": False},
    "manifests": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}],
    "files": {"/etc/motd": "x", "/run/x": {"content": "y", "nodes": "worker-*", "mode": "0600"}},
    "components": [{"name": "x", "command": ["/bin/true"], "nodes": "*", "env": {"A": "b"}}],
    "topology": {"workers": 3},
    "cni": {"plugin": "calico", "backend": "bgp"},
    "kubeProxy": {"mode": "nftables"},
    "images": {"web": {"argv": ["/bin/true"]}},
}
BGP = {
    "localAS": 64512,
    "routerID": "10.0.0.1",
    "listen": ["0.0.0.0"],
    "peers": [{"name": "t", "address": "10.0.0.2", "remoteAS": 65001, "export": {"rules": [{"prefix": "10.0.0.0/8"}]}}],
    "announce": [{"prefix": "10.1.0.0/24", "communities": ["64512:1"]}, "10.2.0.0/24"],
    "kernel": [{"prefix": "0.0.0.0/0", "le": 32, "tunnel": "tunl0"}],
    "families": ["ipv4"],
}
KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "clusterDNS": ["10.96.0.10"],
    "maxPods": 10,
    "syncFrequency": "10s",
}
PROXY = {
    "apiVersion": kube_proxy.API_VERSION,
    "kind": kube_proxy.KIND,
    "mode": "nftables",
    "bindAddress": "0.0.0.0",
    "conntrack": {"maxPerCore": 1, "tcpEstablishedTimeout": "1h"},
    "nftables": {"syncPeriod": "30s", "masqueradeAll": True},
    "clusterCIDR": "10.244.0.0/16",
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
KUBECONFIG = {
    "current-context": "x",
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority-data": "YQ=="}}],
    "users": [{"name": "u", "user": {"token": "t", "client-key-data": "YQ=="}}],
}


def written(chance: random.Random, document: Any) -> str:
    """A mutation as a file: of the data, of the text, or of both."""
    text = yaml.safe_dump(mutated_json(chance, document))
    return mutated(chance, (text.encode(),)).decode(errors="replace") if chance.random() < 0.3 else text


def test_lab_files(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    def read(text: str) -> None:
        with contextlib.suppress(SpecError):
            LabSpec.from_document(Document.parse(text, "FILE"))

    for _ in range(examples):
        text = written(chance, LAB)
        timely(partial(read, text))


def test_scenario_files(
    examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None], tmp_path: Path
) -> None:
    """Next to the lab files that they name; each mutation is of one of the catalogue."""

    def read(path: Path) -> None:
        with contextlib.suppress(SpecError):
            loader.load(path)

    corpus = [(path, yaml.safe_load(path.read_text())) for path in SCENARIOS]
    path = tmp_path / f"x{loader.SUFFIX}"
    for _ in range(examples // 4):
        _, document = chance.choice(corpus)
        path.write_text(written(chance, document))
        timely(lambda: read(path))


def test_configuration_of_components(
    examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None], tmp_path: Path
) -> None:
    path = tmp_path / "file"

    def read(text: str) -> None:
        with contextlib.suppress(bgp.ConfigError):
            bgp.parse(text)
        with contextlib.suppress(ConfigurationError):
            read_configuration(text, "FILE")
        with contextlib.suppress(ManifestError):
            read_manifest(text, "FILE", "node", "now")
        path.write_text(text)
        with contextlib.suppress(kube_proxy.ConfigError):
            kube_proxy.load(str(path))
        with contextlib.suppress(kubeconfig.KubeconfigError):
            kubeconfig.load(path)
        with contextlib.suppress(InvalidCatalogue):
            Catalogue.load(path)

    for _ in range(examples):
        text = written(chance, chance.choice((BGP, KUBELET, PROXY, POD, KUBECONFIG, LAB["images"])))
        text = text.replace("\r", "")
        timely(partial(read, text))


@given(st.text(max_size=30) | st.floats() | st.integers() | st.from_regex(r"[0-9.]{1,400}(ms|s|m|h)", fullmatch=True))
def test_times(value: str | float) -> None:
    with contextlib.suppress(ValueError):
        assert seconds(value) >= 0 or not isinstance(value, str)


_PATH = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            ".",
            "..",
            "a",
            "['a']",
            "[0]",
            "[-1]",
            "[1:2]",
            "[*]",
            "?(@.x",
            '=="y")',
            "[",
            "]",
            "\\.",
            "(",
            ")",
            "9" * 9,
        ]
    )
    | st.text(max_size=2),
    max_size=14,
).map("".join)


@given(_PATH)
def test_json_paths(text: str) -> None:
    with contextlib.suppress(JSONPathError):
        JSONPath.parse(text).render({"a": [{"x": "y"}, {"x": 1}, "z"], "b": {"a": None}})


@given(st.text(max_size=60) | st.from_regex(r"[a-z0-9./:@_-]{0,80}", fullmatch=True))
def test_image_names(name: str) -> None:
    with contextlib.suppress(InvalidImageName):
        Reference.parse(name)


def test_long_names_are_read_in_linear_time(timely: Callable[[Callable[[], object]], None]) -> None:
    def read() -> None:
        for text in ("a-" * 50_000, "a." * 50_000, "a/" * 50_000, "a__" * 50_000, "a-" * 50_000 + "!"):
            with contextlib.suppress(InvalidImageName):
                Reference.parse(text)
        with contextlib.suppress(JSONPathError):
            JSONPath.parse("{" + "[?(@.a" * 5_000 + "}")

    timely(read)
