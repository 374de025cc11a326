"""What each pod network brings to a lab, by backend and IP family: processes, files, objects, and the lab file itself."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from kubewire.components.kubeapi.kubeconfig import Credentials
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.lab.bringup import addons, kubeadm
from kubewire.lab.bringup.components import PROXY_CONFIG, NodeFile, component_specs, node_files
from kubewire.lab.bringup.pki import Authority
from kubewire.scenarios.engine.file.spec import LabSpec

IPV4 = ("ipv4",)
ALL = ("ipv4", "ipv6", "dual", "dual-ipv6-first")
BACKENDS: dict[str, dict[str, tuple[str, ...]]] = {
    "flannel": {"vxlan": ALL, "vxlan-directrouting": ALL, "host-gw": ALL},
    "calico": {"vxlan": ALL, "vxlan-crosssubnet": ALL, "bgp": ALL, "ipip": IPV4, "ipip-crosssubnet": IPV4},
    "weave": {"vxlan": IPV4, "fastdp-encrypted": IPV4, "sleeve": IPV4, "sleeve-encrypted": IPV4},
    "aws-vpc": {"secondary-ip": IPV4, "prefix-delegation": IPV4},
    "azure": {"transparent": IPV4, "overlay": IPV4},
    "none": {"vxlan": ALL},
}
#: Settings of a lab file besides the defaults.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "aws-vpc": [
        {"instanceType": "m5.large", "maxPods": 7, "env": {"WARM_IP_TARGET": "2", "ENI_SECURITY_GROUPS": "a b"}},
        {"backend": "prefix-delegation", "env": {"ENABLE_PREFIX_DELEGATION": "false"}},
    ],
    "azure": [{"maxPods": 9}, {"backend": "overlay", "maxPods": 9}],
}


def lab_files(plugin: str) -> Iterator[dict[str, Any]]:
    """A lab file for each backend in each of its families, then two racks, then other settings."""
    for backend, families in BACKENDS[plugin].items():
        for family in families:
            yield lab_file(plugin, {"backend": backend}, family, "one-segment")
        yield lab_file(plugin, {"backend": backend}, "ipv4", "two-racks")
    for settings in SETTINGS.get(plugin, ()):
        yield lab_file(plugin, settings, "ipv4", "one-segment")


def lab_file(plugin: str, settings: dict[str, Any], family: str, shape: str) -> dict[str, Any]:
    return {
        "topology": {"shape": shape, "workers": 2 if shape == "two-racks" else 1},
        "cni": {"plugin": plugin, **settings},
        "network": {"ipFamily": family},
        "dns": {"replicas": 0},
    }


@pytest.mark.parametrize("plugin", BACKENDS)
def test_what_a_network_brings(
    plugin: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    told = [text for data in lab_files(plugin) for text in described(LabSpec.parse(data), authority, monkeypatch)]
    golden(f"networks/{plugin}.txt", "\n".join(told) + "\n")


#: What every lab has, whatever its network: here only the flags that a network decides.
CORE = ("apiserver", "scheduler", "kubelet", "dns")
DECIDED = {"controllers": "--allocate-node-cidrs", "kube-proxy": "--cluster-cidr"}


def described(spec: LabSpec, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    plan = spec.plan
    yield f"=== {spec.label()}"
    yield f"lab.json {json.dumps(spec.as_dict()['cni'])}"
    yield f"requires {json.dumps(spec.cni.requires)}"
    for component in component_specs(spec, plan, "/runtime.sock", ""):
        if component.name in DECIDED:
            decided = [flag for flag in component.args if flag.startswith(DECIDED[component.name])]
            yield f"process {component.id} {' '.join(decided)}"
        elif component.name not in CORE:
            yield f"process {component.id} {component.main} {json.dumps(component.args)}"
    for file in node_files(spec, plan, authority, "lab"):
        if shown := content(file):
            yield f"file {file.host} {file.path} {file.mode:o} {shown}"
    every = kubeadm.objects(FakeClient.credentials)
    for obj in objects(spec, monkeypatch):
        if obj in every:
            continue
        digest = sha256(json.dumps(obj).encode()).hexdigest()[:16]
        yield f"object {obj['apiVersion']} {obj['kind']} {obj['metadata']['name']} {digest}"


def content(file: NodeFile) -> str:
    """Of a kubeconfig the user, for keys and certificates are new each time; of the kubelet's file what a network
    decides. "" for the files of every lab."""
    if file.path == "/var/lib/kubelet/config.yaml":
        return f"maxPods {json.loads(file.content).get('maxPods')}"
    if file.path == PROXY_CONFIG:
        return f"clusterCIDR {json.loads(file.content).get('clusterCIDR')}"
    if file.host == "dns" or "/pki/" in file.path or file.path in CORE_FILES:
        return ""
    if not file.path.endswith(".conf"):
        return json.dumps(file.content.decode())
    user = yaml.safe_load(file.content)["users"][0]["user"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(user["client-certificate-data"]))
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


CORE_FILES = {
    f"/etc/kubernetes/{name}.conf" for name in ("admin", "controller-manager", "scheduler", "kubelet", "kube-proxy")
}


class FakeClient:
    """Stands in for the API's client."""

    credentials = Credentials(server="https://172.18.0.2:6443", ca=b"authority")

    @classmethod
    def from_kubeconfig(cls, path: str, user_agent: str) -> FakeClient:
        return cls()

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def patch(self, *_: object) -> None:
        """The role label of the control plane."""


def objects(spec: LabSpec, monkeypatch: pytest.MonkeyPatch) -> list[KubeObject]:
    """What bring-up applies to the API, in order."""
    applied: list[KubeObject] = []

    async def apply(_: object, obj: KubeObject) -> None:
        applied.append(obj)

    async def at_once(*_: object) -> None:
        pass

    monkeypatch.setattr(addons, "Client", FakeClient)
    monkeypatch.setattr(addons, "apply", apply)
    monkeypatch.setattr(addons, "_answering", at_once)
    monkeypatch.setattr(addons, "_until", at_once)
    asyncio.run(addons.install_and_wait("admin.conf", spec, lambda _: None))
    return applied


@pytest.mark.parametrize(
    ("cni", "family", "said"),
    [
        pytest.param(
            {"plugin": "flannel", "backend": "bgp"},
            "ipv4",
            "cni.backend: flannel has vxlan, vxlan-directrouting, host-gw; not bgp",
            id="a backend of another network",
        ),
        pytest.param(
            {"plugin": "none", "backend": "host-gw"},
            "ipv4",
            "cni.backend: means nothing without a plugin; leave it out or set cni.plugin: flannel",
            id="a backend of no network",
        ),
        pytest.param(
            {"backend": "tunnel"},
            "ipv4",
            'cni.backend: "tunnel" is not known; allowed: vxlan, vxlan-directrouting, host-gw, vxlan-crosssubnet, bgp, '
            "ipip, ipip-crosssubnet, fastdp-encrypted, sleeve, sleeve-encrypted, secondary-ip, prefix-delegation, "
            "transparent, overlay",
            id="an unknown backend",
        ),
        pytest.param(
            {"plugin": "calico", "maxPods": 5},
            "ipv4",
            "cni.maxPods: is for aws-vpc and azure, not for calico",
            id="maxPods",
        ),
        pytest.param(
            {"plugin": "azure", "instanceType": "t3.nano"},
            "ipv4",
            "cni.instanceType: is for aws-vpc, not for azure",
            id="instanceType",
        ),
        pytest.param({"env": {"A": "b"}}, "ipv4", "cni.env: is for aws-vpc, not for flannel", id="env"),
        pytest.param(
            {"plugin": "aws-vpc", "instanceType": "huge"},
            "ipv4",
            "cni.instanceType: huge is not known; known are t3.nano, t3.micro, t3.small,",
            id="an unknown instance type",
        ),
        pytest.param(
            {"plugin": "aws-vpc"},
            "dual",
            "cni.plugin: aws-vpc is IPv4 here; take flannel or calico for IPv6 pods",
            id="aws-vpc with IPv6",
        ),
        pytest.param(
            {"plugin": "azure"},
            "ipv6",
            "cni.plugin: azure is IPv4 here; take flannel or calico for IPv6 pods",
            id="azure with IPv6",
        ),
        pytest.param(
            {"plugin": "weave"},
            "dual-ipv6-first",
            "cni.plugin: weave is IPv4 only, as upstream; take flannel or calico for IPv6 pods",
            id="weave with IPv6",
        ),
        pytest.param(
            {"plugin": "calico", "backend": "ipip-crosssubnet"},
            "dual",
            "cni.backend: calico's IP-in-IP is for IPv4 alone; take vxlan or bgp for IPv6 pods",
            id="IP-in-IP with IPv6",
        ),
    ],
)
def test_what_a_network_refuses(cni: dict[str, Any], family: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        LabSpec.parse({"cni": cni, "network": {"ipFamily": family}})
    assert said in str(error.value)


def test_ipv6_nodes_are_refused_where_only_pods_are_ipv4() -> None:
    network = {"nodeCIDR": "172.18.0.0/16,fd00:18::/64"}
    LabSpec.parse({"cni": {"plugin": "weave"}, "network": network})
    with pytest.raises(ValueError, match="azure is IPv4 here"):
        LabSpec.parse({"cni": {"plugin": "azure"}, "network": network})
