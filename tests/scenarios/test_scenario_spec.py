"""Lab files: what is read, and what is said about mistakes."""

import io
from pathlib import Path

import pytest

from kubewire.components.kube_proxy import modes
from kubewire.scenarios.engine.file.spec import CNI, Image, LabSpec, SpecError, Topology
from kubewire.topologies.description import Link


@pytest.mark.parametrize("mode", [*(mode.name for mode in modes.MODES), "none"])
def test_a_lab_file_takes_every_proxy_mode(mode: str) -> None:
    host_users = {"hostUsers": True} if mode == "ipvs" else {}
    assert LabSpec.parse({"kubeProxy": {"mode": mode}, **host_users}).kubeProxy.mode == mode


def test_defaults_are_those_of_the_address_table():
    spec = LabSpec.parse({})
    assert (spec.network.nodeCIDR, spec.network.clusterCIDR, spec.network.serviceCIDR) == (
        "172.18.0.0/16",
        "10.244.0.0/16",
        "10.96.0.0/12",
    )
    assert spec.topology == Topology("one-segment", 3, Link(bandwidth=None))


DUAL = {
    "nodeCIDR": "172.18.0.0/16,fd00:18::/64",
    "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
    "serviceCIDR": "10.96.0.0/12,fd00:10:96::/112",
}


def swapped(ranges):
    return {key: ",".join(reversed(text.split(","))) for key, text in ranges.items()}


@pytest.mark.parametrize(
    ("network", "families", "sizes"),
    [
        pytest.param({}, "IPv4", {4: 24}, id="IPv4"),
        pytest.param(DUAL, "IPv4/IPv6", {4: 24, 6: 64}, id="dual-stack"),
        pytest.param(swapped(DUAL), "IPv6/IPv4", {4: 24, 6: 64}, id="IPv6 first"),
        pytest.param(
            {key: text.split(",")[1] for key, text in DUAL.items()} | {"nodeCIDRMaskSize": 60},
            "IPv6",
            {6: 60},
            id="IPv6 alone",
        ),
        pytest.param(
            DUAL | {"nodeCIDRMaskSizeIPv4": 25, "nodeCIDRMaskSizeIPv6": 72},
            "IPv4/IPv6",
            {4: 25, 6: 72},
            id="a mask of each family",
        ),
        pytest.param(
            DUAL | {"serviceCIDR": "10.96.0.0/12"}, "IPv4/IPv6", {4: 24, 6: 64}, id="dual-stack pods, IPv4 Services"
        ),
    ],
)
def test_ranges_of_both_families(network, families, sizes):
    spec = LabSpec.parse({"network": network})
    assert spec.network.ip_families == families
    assert {version: spec.network.mask_size(version) for version in sizes} == sizes
    assert LabSpec.parse(spec.as_dict()) == spec


def test_a_spec_written_out_reads_as_the_same_spec():
    spec = LabSpec.parse(
        {
            "topology": {"workers": 5, "links": {"bandwidth": 100}},
            "cni": {"backend": "host-gw"},
            "images": {"app:1": {"argv": ["/bin/app"], "env": {"A": "b"}}},
        }
    )
    assert LabSpec.parse(spec.as_dict()) == spec
    assert spec.images == (("app:1", Image(("/bin/app",), "", (("A", "b"),))),)


def test_an_image_has_the_forms_of_the_kubelets_catalogue():
    given = {
        "entrypoint": ["/bin/app"],
        "cmd": ["serve"],
        "programs": {"/bin/app": "package.module:main"},
        "workingDir": "/srv",
        "preload": "components",
        "tools": {"busybox": "/opt/busybox/bin"},
        "aliases": ["other/app"],
    }
    spec = LabSpec.parse({"images": {"example/*": given}})
    assert spec.as_dict()["images"] == {"example/*": given}
    assert LabSpec.parse(spec.as_dict()) == spec


def test_labs_that_differ_in_name_only_are_equal():
    assert LabSpec.parse({"name": "a"}) == LabSpec.parse({"name": "b"})
    assert LabSpec.parse({}) != LabSpec.parse({"cni": {"backend": "host-gw"}})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(
            {"tpology": {}},
            "tpology: unknown key (did you mean topology?); allowed here: authorization, cni",
            id="unknown key",
        ),
        pytest.param(
            {"topology": {"worker": 3}}, "topology.worker: unknown key (did you mean workers?)", id="nested key"
        ),
        pytest.param({"topology": {"workers": "3"}}, 'topology.workers: must be a whole number, not "3"', id="type"),
        pytest.param({"topology": {"workers": -1}}, "topology.workers: must be 0 or more, not -1", id="minimum"),
        pytest.param(
            {"cni": {"plugin": "flanel"}},
            'cni.plugin: "flanel" is not known (did you mean flannel?); allowed: flannel, calico, weave, aws-vpc, azure, none',
            id="unknown CNI",
        ),
        pytest.param({"kubeProxy": {"mode": "ipvs!"}}, "kubeProxy.mode: ", id="unknown proxy mode"),
        pytest.param(
            {"network": {"clusterCIDR": "10.100.0.0/16"}},
            "network.serviceCIDR: 10.96.0.0/12 overlaps clusterCIDR 10.100.0.0/16",
            id="pods overlap Services",
        ),
        pytest.param(
            {"network": {"nodeCIDR": "10.244.3.0/24"}},
            "network.clusterCIDR: 10.244.0.0/16 overlaps nodeCIDR",
            id="nodes",
        ),
        pytest.param({"network": {"nodeCIDR": "203.0.113.0/24"}}, "lies outside the cluster", id="outside network"),
        pytest.param(
            {"network": {"clusterCIDR": "10.244.1.0/16"}},
            "has host bits set; the range it lies in is 10.244.0.0/16",
            id="host bits",
        ),
        pytest.param({"network": {"clusterCIDR": "10.244.0.0/40"}}, "is not an IP range", id="no range"),
        pytest.param(
            {"network": {"nodeCIDRMaskSize": 12}},
            "network.nodeCIDRMaskSize: /12 does not fit in clusterCIDR",
            id="mask",
        ),
        pytest.param(
            {"network": {"nodeCIDRMaskSize": 17}},
            "10.244.0.0/16 holds 2 ranges of /17, but there are 4 nodes",
            id="few",
        ),
        pytest.param(
            {"network": {"nodeCIDR": "172.18.0.0/30"}}, "too few addresses for 4 nodes", id="nodes do not fit"
        ),
        pytest.param(
            {"topology": {"shape": "two-racks"}, "network": {"nodeCIDR": "172.18.0.0/28"}},
            "network.nodeCIDR: 172.18.0.0/28 is too small for two racks; take a /26 or shorter",
            id="two racks do not fit",
        ),
        pytest.param(
            {"topology": {"shape": "two-racks", "workers": 40}, "network": {"nodeCIDR": "172.18.0.0/26"}},
            "network.nodeCIDR: 172.18.0.0/28 has too few addresses for the nodes of rack-1 (of 41)",
            id="a rack is too small",
        ),
        pytest.param(
            {"network": {"serviceCIDR": "127.0.0.0/24"}},
            "network.serviceCIDR: 127.0.0.0/24 overlaps 127.0.0.0/8 (loopback)",
            id="loopback",
        ),
        pytest.param(
            {"network": {"clusterCIDR": "224.0.0.0/16"}},
            "network.clusterCIDR: 224.0.0.0/16 overlaps 224.0.0.0/4 (multicast)",
            id="multicast",
        ),
        pytest.param(
            {"network": {"clusterCIDR": "10.244.0.0/16,10.245.0.0/16"}},
            "network.clusterCIDR: 10.244.0.0/16,10.245.0.0/16 has two ranges of one IP family",
            id="two ranges of one family",
        ),
        pytest.param(
            {"network": {"clusterCIDR": DUAL["clusterCIDR"]}},
            "network.clusterCIDR: has an IPv6 range, but nodeCIDR has none; add one there",
            id="pods of a family that nodes do not have",
        ),
        pytest.param(
            {"network": {"serviceCIDR": DUAL["serviceCIDR"]}},
            "network.serviceCIDR: has an IPv6 range, but clusterCIDR has none",
            id="Services of a family that pods do not have",
        ),
        pytest.param(
            {"network": DUAL | {"serviceCIDR": "fd00:10:96::/112,10.96.0.0/12"}},
            'service IP family "fd00:10:96::/112" must match public address family "172.18.0.0/16"',
            id="Services begin with another family than nodes",
        ),
        pytest.param(
            {"network": DUAL | {"nodeCIDRMaskSize": 24}},
            "network.nodeCIDRMaskSize: is for one IP family; with two take nodeCIDRMaskSizeIPv4 and nodeCIDRMaskSizeIPv6",
            id="one mask for two families",
        ),
        pytest.param(
            {"network": {"nodeCIDRMaskSizeIPv6": 64}},
            "network.nodeCIDRMaskSizeIPv6: clusterCIDR has no IPv6 range",
            id="a mask of a family that is not there",
        ),
        pytest.param(
            {"network": {"nodeCIDRMaskSize": 24, "nodeCIDRMaskSizeIPv4": 24}},
            "network.nodeCIDRMaskSizeIPv4: is not allowed if nodeCIDRMaskSize is set",
            id="two masks for one family",
        ),
        pytest.param(
            {"network": DUAL | {"clusterCIDR": "10.244.0.0/16,fd00:10:244::/47"}},
            "network.nodeCIDRMaskSizeIPv6: /64 does not fit in clusterCIDR fd00:10:244::/47; allowed: 47 to 63",
            id="more than 16 bits between cluster and node mask",
        ),
        pytest.param(
            {"network": DUAL | {"clusterCIDR": "10.244.0.0/16,fd00:10:244::/63"}},
            "network.nodeCIDRMaskSizeIPv6: fd00:10:244::/63 holds 2 ranges of /64, but there are 4 nodes",
            id="an IPv6 range with room for few nodes",
        ),
        pytest.param(
            {"network": DUAL | {"serviceCIDR": "10.96.0.0/12,fd00:10:96::/64"}},
            "network.serviceCIDR: /64 is not possible; allowed masks: /108 to /124",
            id="an IPv6 Service range that is too large",
        ),
        pytest.param(
            {"network": DUAL | {"nodeCIDR": "172.18.0.0/16,fe80::/64"}}, "overlaps fe80::/10 (link-local)", id="fe80"
        ),
        pytest.param(
            {"network": DUAL | {"nodeCIDR": "172.18.0.0/16,2001:db8::/32"}},
            "overlaps 2001:db8:113::/64, which lies outside the cluster",
            id="outside network in IPv6",
        ),
        pytest.param(
            {"network": DUAL | {"serviceCIDR": "10.96.0.0/12,fd00:10:244:8::/112"}},
            "network.serviceCIDR: fd00:10:244:8::/112 overlaps clusterCIDR fd00:10:244::/56",
            id="IPv6 ranges that overlap",
        ),
        pytest.param(
            {"network": {"nodeCIDR": "fd00:18::1/64"}},
            "host bits set; the range it lies in is fd00:18::/64",
            id="IPv6 host bits",
        ),
        pytest.param({"network": {"serviceNodePortRange": "9-3"}}, "must be LOW-HIGH", id="ports the wrong way round"),
        pytest.param(
            {"dns": {"corefile": ".:53 {\n  ready\n  health\n  forwrd . 1.1.1.1\n}\n"}},
            "dns.corefile: Corefile:4 - Error during parsing: Unknown directive 'forwrd'",
            id="an unknown plugin in the Corefile",
        ),
        pytest.param(
            {"dns": {"corefile": ".:53 {\n  ready\n  health\n  forward .\n}\n"}},
            "dns.corefile: plugin/forward: Corefile:4 - Error during parsing: Wrong argument count",
            id="a plugin's argument in the Corefile",
        ),
        pytest.param(
            {"dns": {"corefile": "# nothing\n"}}, "dns.corefile: it has no server block", id="no server block"
        ),
        pytest.param(
            {"dns": {"corefile": ".:53 {\n  health\n  forward . /etc/nothing.conf\n}\n"}},
            "dns.corefile: the plugin ready is missing, which the readinessProbe of CoreDNS's pods asks",
            id="a Corefile whose pods would never be ready",
        ),
        pytest.param(
            {"components": [{"name": "x"}]},
            "components[0]: x needs either command or program",
            id="a process without command",
        ),
        pytest.param(
            {"components": [{"name": "X", "command": ["a"]}]},
            'components[0].name: "X" is not a name of lower-case letters',
            id="a process with a wrong name",
        ),
        pytest.param(
            {"components": [{"name": "x", "command": ["a"], "nodes": "router"}]},
            "components[0].nodes: router matches no node; there are control-plane, worker-1",
            id="a process on no node",
        ),
        pytest.param(
            {"components": [{"name": "x", "command": ["a"]}, {"name": "x", "command": ["b"], "nodes": "worker-2"}]},
            "components[1].name: x is on worker-2 already, by components[0]",
            id="two processes of one name on a node",
        ),
        pytest.param(
            {"images": {"x": {"argv": ["x"], "entrypoint": ["x"]}}},
            "images.x: only one of entrypoint, argv (the same) and main can be given",
            id="an entrypoint twice",
        ),
        pytest.param(
            {"images": {"x": {"cmd": ["x"], "workingDir": "srv"}}},
            "images.x: workingDir: 'srv' must be an absolute path",
            id="a working directory",
        ),
        pytest.param({"images": {"X*": {"cmd": ["x"]}}}, "images.X*: couldn't parse image name \"", id="no image name"),
        pytest.param({"images": {"x": {}}}, "images.x: an image needs argv or main", id="image without a program"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(data, said):
    with pytest.raises(SpecError) as error:
        LabSpec.parse(data, "lab.yaml")
    assert said in str(error.value)
    assert str(error.value).startswith("lab.yaml: ")


def test_mistakes_in_a_file_are_named_with_their_lines(tmp_path: Path):
    file = tmp_path / "lab.yaml"
    file.write_text("topology:\n  workers: 3\n  shap: one-segment\ncni:\n  plugin: kindnet\n")
    with pytest.raises(SpecError) as error:
        LabSpec.load(file)
    assert [problem.split(" ")[0] for problem in error.value.problems] == [f"{file}:3:", f"{file}:5:"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("cni: {plugin: flannel\n", "lab.yaml:", id="no YAML"),
        pytest.param("cni: {}\ncni: {}\n", "lab.yaml:2: cni: the key is given twice", id="key twice"),
        pytest.param("- 1\n", "must be a mapping, not [1]", id="a list"),
    ],
)
def test_what_is_no_lab_file_is_refused(tmp_path: Path, text: str, said: str):
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as error:
        LabSpec.load(file)
    assert said in str(error.value)


def test_bytes_that_are_no_text_are_refused_with_the_place(tmp_path: Path):
    file = tmp_path / "lab.yaml"
    file.write_bytes(b"name: \xff\n")
    with pytest.raises(SpecError) as error:
        LabSpec.load(file)
    assert error.value.problems == [f"{file}:1: not YAML: not a text in UTF-8 (byte 6 is 0xff)"]


def test_on_and_off_are_texts_as_in_yaml_1_2(tmp_path: Path):
    file = tmp_path / "lab.yaml"
    file.write_text("name: on\n")
    assert LabSpec.load(file).name == "on"


def test_label_says_what_matters():
    assert LabSpec.parse({"topology": {"workers": 1}}).label() == "flannel/vxlan · kube-proxy iptables · 1 worker"
    dual = LabSpec.parse({"topology": {"workers": 1}, "network": DUAL})
    assert dual.label() == "flannel/vxlan · kube-proxy iptables · 1 worker · IPv4/IPv6"
    assert CNI().plugin == "flannel"


def test_a_lab_file_may_come_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"cni: {plugin: calico, backend: bgp}")))
    assert LabSpec.load("-").cni.backend == "bgp"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("name: " + "[" * 10_000, ":1: nested deeper than the 100 levels", id="brackets"),
        pytest.param("a: &a [*a]\n", ":1: the alias *a contains itself", id="a list in itself"),
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
                for before, name in zip("abcde", "bcdef", strict=True)
            ),
            ":5: more than the 20000 values",
            id="billion laughs",
        ),
        pytest.param("#" * (1024 * 1024 + 1), ": larger than the 1048576 bytes", id="size"),
    ],
)
def test_a_file_that_is_more_than_a_file_is_refused_at_once(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as error:
        LabSpec.load(file)
    assert error.value.problems[0].startswith(f"{file}{said}")


@pytest.mark.parametrize("key", ["~", "1", "1.5", "true", "[a]", "{a: 1}"])
def test_keys_are_texts(tmp_path: Path, key: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"name: x\nimages:\n  ? {key}\n  : 1\n")
    with pytest.raises(SpecError) as error:
        LabSpec.load(file)
    assert error.value.problems[0].startswith(f"{file}:3: images: the key ")
