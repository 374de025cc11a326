"""CNI results in every version."""

import pytest

from kubewire.components.kubelet.cni.types import DNS, CNIError, Interface, IPConfig, Result, Route, at_least

BODY = {
    "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
    "ips": [
        {"interface": 1, "address": "10.244.1.5/24", "gateway": "10.244.1.1"},
        {"interface": 1, "address": "fd00::5/64"},
    ],
    "routes": [{"dst": "10.244.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.244.1.1"}],
    "dns": {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]},
}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_result_survives_being_read_and_written(version):
    result = Result.parse(BODY | {"cniVersion": version}, "")
    assert Result.parse(result.dump(), "") == result


def test_versions_before_1_0_0_say_the_ip_version_and_later_ones_do_not():
    old = Result.parse(BODY, "0.3.1").dump()
    assert [ip["version"] for ip in old["ips"]] == ["4", "6"]
    new = Result.parse(old, "").as_version("1.0.0").dump()
    assert new == BODY | {"cniVersion": "1.0.0"}


def test_fields_of_1_1_0_are_left_out_for_older_versions():
    result = Result(
        "1.1.0",
        (Interface("eth0", mtu=1450, pci_id="0000:00:1f.6"),),
        (IPConfig("10.0.0.2/24"),),
        (Route("0.0.0.0/0", mtu=1400, table=0),),
        DNS(),
    )
    assert result.dump()["interfaces"] == [{"name": "eth0", "mtu": 1450, "pciID": "0000:00:1f.6"}]
    assert result.dump()["routes"] == [{"dst": "0.0.0.0/0", "mtu": 1400, "table": 0}]
    assert result.as_version("1.0.0").dump()["interfaces"] == [{"name": "eth0"}]
    assert result.as_version("1.0.0").dump()["routes"] == [{"dst": "0.0.0.0/0"}]


def test_a_result_without_a_version_has_its_configurations():
    assert Result.parse({"ips": []}, "0.4.0").cni_version == "0.4.0"


@pytest.mark.parametrize(
    "body",
    [{"cniVersion": "2.0.0"}, {"ips": [{"address": "10.0.0.300/24"}]}, {"ips": [{}]}, {"routes": [{"dst": "x"}]}],
    ids=["unknown version", "bad address", "no address", "bad route"],
)
def test_nonsense_is_refused(body):
    with pytest.raises(ValueError):
        Result.parse(body, "1.0.0")


def test_versions_compare_as_numbers():
    assert at_least("1.10.0", "1.9.0") and not at_least("0.3.1", "0.4.0")


def test_an_error_reads_as_libcnis():
    error = CNIError("failed to allocate", code=100, details="no IP").within('plugin type="bridge" failed (add): ')
    assert str(error) == 'plugin type="bridge" failed (add): failed to allocate; no IP'
    assert (error.code, error.msg, error.details) == (100, "failed to allocate", "no IP")
