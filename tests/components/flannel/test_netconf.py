import pytest

from components.flannel.netconf import NetConfError, VxlanBackend, load, parse


def test_upstreams_default_configuration():
    conf = parse('{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}')
    assert (str(conf.network), conf.backend_type, conf.vxlan) == ("10.244.0.0/16", "vxlan", VxlanBackend())
    assert (conf.vxlan.vni, conf.vxlan.port, conf.vxlan.device) == (1, 8472, "flannel.1")


def test_keys_are_found_in_any_case_as_go_finds_them():
    conf = parse(
        '{"network": "10.0.0.0/8", "backend": {"type": "vxlan", "vni": 42, "directrouting": true, "mtu": 9000}}'
    )
    assert conf.vxlan == VxlanBackend(vni=42, direct_routing=True, mtu=9000)
    assert conf.vxlan.device == "flannel.42"


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
        ('{"Network": "10.244.0.0/16", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}', "routes IPv4"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(NetConfError, match=said):
        parse(text)


def test_a_missing_file_has_upstreams_text(tmp_path):
    with pytest.raises(NetConfError, match=r"^failed to read net conf: open .*/x\.json: no such file or directory$"):
        load(tmp_path / "x.json")
