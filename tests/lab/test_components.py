"""Which flags and files a lab's components get, by the IP families of its lab file."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from cryptography import x509

from kubewire.components.networks.flannel.network import net_conf
from kubewire.lab.bringup.components import (
    ClusterAddresses,
    Role,
    component_specs,
    node_files,
    taken_name,
    unknown_program,
    upstream_dns,
)
from kubewire.lab.bringup.networks import cluster_of
from kubewire.lab.bringup.pki import Authority
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.file.topologyfile import Topology
from kubewire.topologies.plan import TopologyPlan

DUAL = {
    "nodeCIDR": "172.18.0.0/16,fd00:18::/64",
    "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
    "serviceCIDR": "10.96.0.0/12,fd00:10:96::/112",
}
IPV6 = {key: text.split(",")[1] for key, text in DUAL.items()}
IPV6_FIRST = {key: ",".join(reversed(text.split(","))) for key, text in DUAL.items()}


def lab(network: dict[str, str]) -> tuple[LabSpec, TopologyPlan]:
    return of({"network": network})


def of(data: dict[str, Any]) -> tuple[LabSpec, TopologyPlan]:
    spec = LabSpec.parse({"topology": {"workers": 1}, **data})
    return spec, Topology(workers=1).plan(spec.network.nodeCIDR)


def flags(network: dict[str, str], component: str) -> dict[str, str]:
    return flags_of({"network": network}, component)


def flags_of(data: dict[str, Any], component: str) -> dict[str, str]:
    found = next(one for one in component_specs(*of(data), "/s", "") if one.id == component)
    return dict(flag.split("=", 1) for flag in found.args if "=" in flag)


def configuration(data: dict[str, Any], program: str) -> dict[str, Any]:
    """The configuration file of a worker's kubelet or kube-proxy."""
    path = {"kubelet": "/var/lib/kubelet/config.yaml", "kube-proxy": "/var/lib/kube-proxy/config.conf"}[program]
    files = node_files(*of(data), Authority(), "lab")
    found: dict[str, Any] = json.loads(next(one.content for one in files if (one.host, one.path) == ("worker-1", path)))
    return found


@pytest.mark.parametrize(
    ("network", "masks"),
    [
        pytest.param({}, {"--node-cidr-mask-size": "24"}, id="IPv4"),
        pytest.param(IPV6, {"--node-cidr-mask-size": "64"}, id="IPv6"),
        pytest.param(
            DUAL, {"--node-cidr-mask-size-ipv4": "24", "--node-cidr-mask-size-ipv6": "64"}, id="a flag for each of two"
        ),
    ],
)
def test_masks_of_the_node_ranges(network: dict[str, str], masks: dict[str, str]) -> None:
    given = flags(network, "controllers@control-plane")
    assert {flag: value for flag, value in given.items() if "mask-size" in flag} == masks


@pytest.mark.parametrize(
    ("network", "node_ip", "bound"),
    [
        pytest.param({}, "172.18.0.3", "172.18.0.2", id="IPv4"),
        pytest.param(DUAL, "172.18.0.3,fd00:18::3", "172.18.0.2", id="dual-stack"),
        pytest.param(IPV6_FIRST, "fd00:18::3,172.18.0.3", "fd00:18::2", id="IPv6 first"),
        pytest.param(IPV6, "fd00:18::3", "fd00:18::2", id="IPv6"),
    ],
)
def test_addresses_of_nodes_and_of_the_api_server(network: dict[str, str], node_ip: str, bound: str) -> None:
    assert flags(network, "kubelet@worker-1")["--node-ip"] == node_ip
    server = flags(network, "apiserver@control-plane")
    assert server["--bind-address"] == server["--advertise-address"] == bound
    assert configuration({"network": network}, "kube-proxy")["clusterCIDR"] == network.get(
        "clusterCIDR", "10.244.0.0/16"
    )


def test_the_api_is_served_under_its_ipv6_address_too() -> None:
    spec, plan = lab(IPV6)
    files = {(file.host, file.path): file.content for file in node_files(spec, plan, Authority(), "lab")}
    assert b"https://[fd00:18::2]:6443" in files["worker-1", "/etc/kubernetes/kubelet.conf"]
    assert names_of(files["control-plane", "/etc/kubernetes/pki/apiserver.crt"]) >= {"fd00:18::2", "fd00:10:96::1"}
    assert "fd00:18::3" in names_of(files["worker-1", "/var/lib/kubelet/pki/kubelet.crt"])


def names_of(certificate: bytes) -> set[str]:
    """Its addresses."""
    extension = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return {str(address) for address in extension.value.get_values_for_type(x509.IPAddress)}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        pytest.param({}, {"Network": "10.244.0.0/16"}, id="IPv4"),
        pytest.param(
            DUAL,
            {"Network": "10.244.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:10:244::/56"},
            id="dual-stack",
        ),
        pytest.param(IPV6, {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd00:10:244::/56"}, id="IPv6"),
    ],
)
def test_net_conf(network: dict[str, str], expected: dict[str, object]) -> None:
    spec, plan = lab(network)
    given = net_conf(cluster_of(spec, plan).pod_ranges, spec.cni.choice.mode)
    assert given == expected | {"Backend": {"Type": "vxlan"}}


def test_cluster_services_have_an_address_of_the_first_range() -> None:
    assert ClusterAddresses.of(DUAL["serviceCIDR"]) == ClusterAddresses("10.96.0.1", "10.96.0.10")
    assert ClusterAddresses.of(IPV6_FIRST["serviceCIDR"]) == ClusterAddresses("fd00:10:96::1", "fd00:10:96::a")


def test_the_worlds_names_have_addresses_of_the_labs_families() -> None:
    lines = upstream_dns(lab(DUAL)[1])[0].content.decode().split("\n")
    found = {line.split()[0] for line in lines if line.strip().endswith("example.com www.example.com")}
    assert found == {"203.0.113.10", "2001:db8:113::10"}
    assert all(ipaddress.ip_address(address) for address in found)


def test_a_file_of_kube_proxys_gets_the_fields_of_the_lab_file() -> None:
    given = {"mode": "nftables", "nodePortAddresses": ["172.18.0.0/16"], "clientConnection": {"kubeconfig": "/k"}}
    assert configuration({"kubeProxy": given}, "kube-proxy") == {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/k"},
        "clusterCIDR": "10.244.0.0/16",
        "mode": "nftables",
        "nodePortAddresses": ["172.18.0.0/16"],
    }
    assert flags_of({}, "kube-proxy@worker-1")["--config"] == "/var/lib/kube-proxy/config.conf"


def test_fields_without_an_effect_stay_out_of_the_files_and_flags() -> None:
    kubelet = {"maxPods": 20, "podPidsLimit": 10, "authentication": {"webhook": {"enabled": True}}}
    found = configuration({"kubelet": kubelet}, "kubelet")
    assert found["maxPods"] == 20 and "podPidsLimit" not in found
    assert found["authentication"] == {"x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}}
    proxy = configuration(
        {"kubeProxy": {"oomScoreAdj": -5, "conntrack": {"min": 3, "tcpBeLiberal": True}}}, "kube-proxy"
    )
    assert proxy["conntrack"] == {"tcpBeLiberal": True} and "oomScoreAdj" not in proxy


def test_flags_of_the_lab_file_win() -> None:
    given = {"node-monitor-grace-period": "20s", "leader-elect": False, "profiling": True, "root-ca-file": ""}
    found = flags_of({"controllerManager": given}, "controllers@control-plane")
    assert found["--node-monitor-grace-period"] == "20s" and found["--leader-elect"] == "false"
    assert found["--root-ca-file"] == "" and "--profiling" not in found
    assert flags_of({"scheduler": {"v": 4}}, "scheduler@control-plane")["--v"] == "4"


def test_a_users_component_runs_on_the_nodes_whose_names_match() -> None:
    given = {"name": "watch", "command": ["/usr/bin/sleep", "9"], "nodes": "worker-*", "env": {"A": "b"}}
    listed = list(component_specs(*of({"components": [given]}), "/s", ""))
    users = [one for one in listed if one.role is Role.USER]
    assert [(one.id, one.argv, one.environment) for one in users] == [
        ("watch@worker-1", ("/usr/bin/sleep", "9"), (("A", "b"),))
    ]
    assert taken_name(listed) is None


def program(name: str, nodes: str = "*") -> dict[str, str]:
    return {"name": name, "program": f"/srv/{name}", "nodes": nodes}


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("kube-proxy", "kube-proxy@worker-1"),
        ("kube-scheduler", "scheduler@control-plane"),
        ("kube-controller-manager", "controllers@control-plane"),
        ("flanneld", "flannel@worker-1"),
    ],
)
def test_a_program_gets_the_flags_of_the_component_that_it_replaces(name: str, own: str) -> None:
    ours = {one.id: one for one in component_specs(*of({}), "/s", "")}
    spec, plan = of({"components": [program(name, own.partition("@")[2])]})
    theirs = {one.id: one for one in component_specs(spec, plan, "/s", "")}
    assert theirs[own].argv == (f"/srv/{name}", *ours[own].args)
    assert (theirs[own].main, theirs[own].role) == ("", ours[own].role)
    assert {key: one for key, one in theirs.items() if key != own} == {
        key: one for key, one in ours.items() if key != own
    }
    assert [share.path for share in spec.share] == [f"/srv/{name}"]
    assert LabSpec.parse(spec.as_dict()) == spec
    assert taken_name(theirs.values()) is None


def test_an_api_server_of_the_users_own_gets_an_etcd_and_a_way_from_the_door() -> None:
    spec, plan = of({"components": [program("kube-apiserver", "control-plane")]})
    listed = {one.name: one for one in component_specs(spec, plan, "/s", "") if one.serves_api}
    assert list(listed) == ["etcd", "api-relay", "apiserver"]
    flags = listed["apiserver"].argv
    assert "--etcd-servers=http://127.0.0.1:2379" in flags
    assert "--authorization-mode=Node,RBAC" in flags
    assert not [flag for flag in flags if flag.startswith(("--storage-path", "--listen-fd"))]
    assert [one.name for one in listed.values() if one.door] == ["api-relay"]
    assert listed["etcd"].argv[0] == "/usr/bin/etcd"
    own = [program("kube-apiserver", "control-plane"), program("etcd", "control-plane")]
    spec, plan = of({"components": own})
    assert unknown_program(spec) == ""
    assert {one.name: one for one in component_specs(spec, plan, "/s", "")}["etcd"].argv[0] == "/srv/etcd"


@pytest.mark.parametrize(
    ("name", "nodes", "unknown"),
    [("kube-proxi", "*", "kube-proxi"), ("kube-scheduler", "worker-1", "kube-scheduler"), ("kube-proxy", "*", "")],
    ids=["no component", "a component of another node", "a component"],
)
def test_a_program_replaces_a_component_that_there_is(name: str, nodes: str, unknown: str) -> None:
    spec, _ = of({"components": [program(name, nodes)]})
    assert unknown_program(spec) == unknown


@pytest.mark.parametrize("given", [{}, {"command": ["/bin/true"], "program": "/bin/true"}], ids=["neither", "both"])
def test_a_component_has_a_command_or_a_program(given: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="needs either command or program"):
        LabSpec.parse({"components": [{"name": "x", **given}]})


def test_a_users_component_cannot_have_the_name_of_the_labs_own() -> None:
    listed = component_specs(*of({"components": [{"name": "flannel", "command": ["/bin/true"]}]}), "/s", "")
    taken = taken_name(listed)
    assert taken and taken.id == "flannel@control-plane"
