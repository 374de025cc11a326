"""The configuration file."""

from ipaddress import ip_network

import pytest

from kubewire.components.bgp.config import ConfigError, Filter, Rule, community, parse

BASE = "localAS: 64512\nrouterID: 10.0.0.1\n"


def test_defaults():
    (peer,) = parse(f"{BASE}peers: [{{address: 10.0.0.2, remoteAS: 64512}}]").peers
    assert (peer.name, peer.hold_time, peer.passive, peer.password) == ("10.0.0.2", 90, False, "")
    assert peer.imports.accepts(ip_network("0.0.0.0/0"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("routerID: 10.0.0.1", "localAS is missing"),
        (f"{BASE}asn: 1", "unknown key asn"),
        (f"{BASE}peers: [{{address: tor, remoteAS: 1}}]", "peers.address"),
        (f"{BASE}peers: [{{address: 10.0.0.2, remoteAS: 1, holdTime: 2}}]", "not from 3"),
        (f"{BASE}peers: [{{address: 10.0.0.2, remoteAS: 1}}, {{address: 10.0.0.2, remoteAS: 2}}]", "there twice"),
        (f"{BASE}peers: [{{address: '', remoteAS: 1}}]", "peers.address: '' is not"),
        (f"{BASE}peers: [{{address: 10.0.0.2, remoteAS: 1, localAddress: fd00::1}}]", "not both IPv4 or both IPv6"),
        (f"{BASE}clusterID: fd00::1", "clusterID: 'fd00::1' is not an IPv4 address"),
        (f"{BASE}listen: [tor]", "listen: 'tor' is not"),
        (f"{BASE}announce: [{{prefix: 10.0.0.0/8, nextHop: fd00::1}}]", "not both IPv4 or both IPv6"),
        (f"{BASE}announce: [10.0.0.1/8]", "host bits set"),
        (f"{BASE}announce: [{{prefix: 10.0.0.0/8, communities: [x]}}]", "neither AS:VALUE"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_communities():
    assert community("64512:100") == 64512 << 16 | 100
    assert community("no-export") == 0xFFFFFF01


@pytest.mark.parametrize(
    ("prefix", "accepted"),
    [
        ("10.244.1.0/24", False),
        ("10.244.0.0/16", True),
        ("10.244.1.64/26", False),
        ("192.0.2.0/24", True),
        ("::/0", True),
    ],
)
def test_a_rule_with_ge_is_for_what_is_longer(prefix, accepted):
    rule = Rule(ip_network("10.244.0.0/16"), accept=False, ge=24)
    assert Filter((rule,)).accepts(ip_network(prefix)) is accepted
