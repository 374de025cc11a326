from ipaddress import IPv4Network, IPv6Network

import pytest

from kubewire.components.networks.flannel.netconf import NetConfError, VxlanBackend, load, parse


def test_upstreams_default_configuration():
    conf = parse('{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}')
    assert (conf.networks, conf.backend_type, conf.vxlan) == ((IPv4Network("10.244.0.0/16"),), "vxlan", VxlanBackend())
    assert (conf.vxlan.vni, conf.vxlan.port, conf.vxlan.device(4)) == (1, 8472, "flannel.1")


def test_both_families_ipv4_first():
    conf = parse(
        '{"IPv6Network": "fd00:10:244::/56", "Network": "10.244.0.0/16", "EnableIPv6": true, '
        '"Backend": {"Type": "vxlan"}}'
    )
    assert conf.networks == (IPv4Network("10.244.0.0/16"), IPv6Network("fd00:10:244::/56"))
    assert (conf.network(6), conf.vxlan.device(6)) == (IPv6Network("fd00:10:244::/56"), "flannel-v6.1")


def test_ipv6_alone():
    conf = parse(
        '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "host-gw"}}'
    )
    assert conf.networks == (IPv6Network("fd00:10:244::/56"),)
    assert conf.network(4) is None


def test_a_network_whose_family_is_not_enabled_is_not_used():
    conf = parse('{"Network": "10.244.0.0/16", "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}')
    assert conf.network(6) is None


def test_keys_are_found_in_any_case_as_go_finds_them():
    conf = parse(
        '{"network": "10.0.0.0/8", "backend": {"type": "vxlan", "vni": 42, "directrouting": true, "mtu": 9000}}'
    )
    assert conf.vxlan == VxlanBackend(vni=42, direct_routing=True, mtu=9000)
    assert (conf.vxlan.device(4), conf.vxlan.device(6)) == ("flannel.42", "flannel-v6.42")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "error parsing subnet config"),
        ("[]", "not a JSON object"),
        ('{"Backend": {"Type": "vxlan"}}', "please define a correct Network parameter"),
        ('{"Network": "10.244.0.1/16", "Backend": {"Type": "vxlan"}}', "has host bits set"),
        ('{"Network": "10.244.0.0/16"}', r"unknown backend type: udp \(supported are host-gw, vxlan\)"),
        ('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": "one"}}', "Backend.VNI must be a int"),
        ('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 70000}}', "Backend.Port must be from 1"),
        (
            '{"Network": "10.244.0.0/16", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}',
            "please define a correct IPv6Network parameter",
        ),
        ('{"Network": "fd00::/48", "Backend": {"Type": "vxlan"}}', "please define a correct Network parameter"),
        ('{"EnableIPv4": false, "Backend": {"Type": "vxlan"}}', "none defined stack"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(NetConfError, match=said):
        parse(text)


def test_a_missing_file_has_upstreams_text(tmp_path):
    with pytest.raises(NetConfError, match=r"^failed to read net conf: open .*/x\.json: no such file or directory$"):
        load(tmp_path / "x.json")
