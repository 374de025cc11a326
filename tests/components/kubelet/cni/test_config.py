"""Which network configuration is taken from a directory, and what is said about broken ones."""

import json

import pytest

from kubewire.components.kubelet.cni.config import ConfigError, NoConfigError, load_file, load_network, parse_list


def conflist(name="n", **more):
    return json.dumps({"name": name, "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]} | more)


def test_the_first_valid_file_in_lexical_order_wins(tmp_path):
    (tmp_path / "00-broken.conflist").write_text("{")
    (tmp_path / "10-second.conf").write_text('{"name": "second", "cniVersion": "0.4.0", "type": "ptp"}')
    (tmp_path / "20-third.conflist").write_text(conflist("third"))
    (tmp_path / ".10-flannel.conflist.77").write_text(conflist("half written"))
    (tmp_path / "05-notes.txt").write_text(conflist("not a configuration"))
    network = load_network(tmp_path)
    assert (network.name, network.cni_version, network.plugins[0].type) == ("second", "0.4.0", "ptp")


@pytest.mark.parametrize("content", [None, "{"], ids=["empty directory", "nothing valid"])
def test_no_network_is_an_error_of_its_own(tmp_path, content):
    if content:
        (tmp_path / "10-x.conflist").write_text(content)
    with pytest.raises(NoConfigError):
        load_network(tmp_path)
    with pytest.raises(NoConfigError):
        load_network(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "not a JSON object"),
        ('{"cniVersion": "1.0.0"}', "no name"),
        ('{"name": 5}', "invalid name type"),
        ('{"name": "n"}', "no 'plugins' key"),
        ('{"name": "n", "plugins": []}', "no plugins in list"),
        ('{"name": "n", "plugins": [{}]}', "failed to parse plugin config 0: .*missing 'type'"),
        (conflist(cniVersion="0.1.0"), 'unsupported CNI version "0.1.0"'),
        (conflist(cniVersion="9.9.9"), 'unsupported CNI version "9.9.9"'),
        (conflist(disableCheck="maybe"), 'invalid value "maybe" for disableCheck'),
    ],
)
def test_broken_lists_say_what_is_wrong(content, said):
    with pytest.raises(ConfigError, match=said):
        parse_list(content.encode())


def test_cni_versions_offer_the_newest_that_is_known():
    offered = json.loads(conflist(cniVersion="0.4.0")) | {"cniVersions": ["0.3.1", "1.1.0", "1.2.0"]}
    assert parse_list(json.dumps(offered).encode()).cni_version == "1.1.0"


def test_capabilities_are_those_switched_on_in_any_plugin(tmp_path):
    (tmp_path / "a.conflist").write_text(
        json.dumps(
            {
                "name": "n",
                "cniVersion": "1.0.0",
                "plugins": [
                    {"type": "bridge", "capabilities": {"ips": True, "mac": False}},
                    {"type": "portmap", "capabilities": {"portMappings": True}},
                ],
            }
        )
    )
    assert load_file(tmp_path / "a.conflist").capabilities == {"ips", "portMappings"}
