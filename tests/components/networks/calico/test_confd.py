"""Nodes, pools and BGP objects as what BIRD is told."""

import json

import pytest

from kubewire.components.bgp.config import parse
from kubewire.components.networks.calico import confd, services
from kubewire.components.networks.calico.confd import State
from kubewire.components.networks.calico.dataplane import Node, Unreadable
from kubewire.components.networks.calico.plugin import block
from tests.components.networks.calico.store import pool

RACK = {"rack": "one"}


def node(name, number, **more):
    return Node(name, f"172.18.0.{number}/16", labels=tuple({"name": name, **more.pop("labels", {})}.items()), **more)


ONE, TWO, THREE = node("worker-1", 1, labels=RACK), node("worker-2", 2), node("worker-3", 3)
NODES = (ONE, TWO, THREE)
BLOCKS = [block.new(f"10.244.{number}.0/26", one.name) for number, one in enumerate(NODES, 1)]


def told(own=ONE, nodes=NODES, pools=None, peers=(), **more):
    """Rendered, and understood by the daemon."""
    state = State(
        own=own,
        router_id="172.18.0.1",
        nodes={one.name: one for one in nodes},
        pools=pools or [pool("10.244.0.0/16")],
        blocks=more.pop("blocks", BLOCKS),
        peers=[{"metadata": {"name": f"peer-{number}"}, "spec": spec} for number, spec in enumerate(peers)],
        **more,
    )
    document = confd.render(state)
    parse(str(document))
    return document


def sessions(document):
    return {peer["name"]: peer for peer in document["peers"]}


def test_a_full_mesh_in_which_the_lower_address_connects():
    found = sessions(told(TWO))
    assert set(found) == {"Mesh_172_18_0_1", "Mesh_172_18_0_3"}
    assert found["Mesh_172_18_0_3"]["passive"] is True
    assert "passive" not in found["Mesh_172_18_0_1"]
    assert found["Mesh_172_18_0_1"]["remoteAS"] == 64512


REFLECTOR = node("worker-3", 3, cluster_id="244.0.0.1")
GOLDEN = {
    "mesh": {},
    "no-mesh-and-a-router-for-one-rack": {
        "peers": [{"peerIP": "172.18.0.254", "asNumber": 65001, "nodeSelector": "rack == 'one'"}],
        "configuration": {"nodeToNodeMeshEnabled": False, "asNumber": 64999},
    },
    "a-reflector-and-its-clients": {
        "own": REFLECTOR,
        "nodes": (ONE, TWO, REFLECTOR),
        "peers": [{"nodeSelector": "all()", "peerSelector": "name == 'worker-3'"}],
        "configuration": {"nodeToNodeMeshEnabled": False},
    },
    "ipip-in-another-subnet": {"pools": [pool("10.244.0.0/16", ipipMode="CrossSubnet")]},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_configuration_is_that_of_the_golden_file(name, golden):
    golden(f"calico/bird-{name}.json", json.dumps(told(**GOLDEN[name]), indent=1) + "\n")


def test_own_blocks_are_announced_and_what_is_borrowed_one_by_one():
    lent = block.new("10.244.9.0/26", "worker-2")
    block.take(lent, "a", {"node": "worker-1"})
    found = told(blocks=[*BLOCKS, lent])["announce"]
    assert found == [{"prefix": "10.244.1.0/26", "blackhole": True}, {"prefix": "10.244.9.0/32"}]
    assert told(pools=[pool("10.244.0.0/16", disableBGPExport=True)])["announce"] == []


@pytest.mark.parametrize(
    ("spec", "rules"),
    [
        ({}, []),
        ({"ipipMode": "Always"}, [{"prefix": "10.244.0.0/16", "le": 32, "tunnel": "tunl0", "crossSubnet": False}]),
        ({"ipipMode": "CrossSubnet"}, [{"prefix": "10.244.0.0/16", "le": 32, "tunnel": "tunl0", "crossSubnet": True}]),
        ({"vxlanMode": "CrossSubnet"}, [{"prefix": "10.244.0.0/16", "le": 32, "action": "reject"}]),
    ],
)
def test_the_kernel_gets_what_felix_does_not_program(spec, rules):
    assert told(pools=[pool("10.244.0.0/16", **spec)])["kernel"] == rules


def test_no_mesh_and_a_router_for_one_rack():
    tor = {"peerIP": "172.18.0.254", "asNumber": 65001, "nodeSelector": "rack == 'one'"}
    off = {"nodeToNodeMeshEnabled": False}
    assert list(sessions(told(ONE, peers=[tor], configuration=off))) == ["Global_172_18_0_254"]
    assert sessions(told(TWO, peers=[tor], configuration=off)) == {}


def test_a_route_reflector_leaves_the_mesh_and_reflects_to_its_clients():
    reflector = node("worker-3", 3, cluster_id="244.0.0.1")
    nodes = (ONE, TWO, reflector)
    peer = {"nodeSelector": "all()", "peerSelector": "name == 'worker-3'"}
    off = {"nodeToNodeMeshEnabled": False}
    client = sessions(told(ONE, nodes, peers=[peer], configuration=off))
    assert list(client) == ["Node_172_18_0_3"]
    assert "routeReflectorClient" not in client["Node_172_18_0_3"]
    at_reflector = told(reflector, nodes, peers=[peer], configuration=off)
    assert at_reflector["clusterID"] == "244.0.0.1"
    assert [peer["routeReflectorClient"] for peer in at_reflector["peers"]] == [True, True]
    assert set(sessions(told(ONE, nodes))) == {"Mesh_172_18_0_2"}


def test_two_reflectors_of_one_cluster_are_no_clients_of_each_other():
    first, second = node("worker-2", 2, cluster_id="244.0.0.1"), node("worker-3", 3, cluster_id="244.0.0.1")
    peer = {"nodeSelector": "all()", "peerSelector": "name in {'worker-2', 'worker-3'}"}
    found = sessions(told(first, (ONE, first, second), peers=[peer]))
    assert "routeReflectorClient" not in found["Node_172_18_0_3"]
    assert found["Node_172_18_0_1"]["routeReflectorClient"] is True


def test_as_numbers_of_the_cluster_and_of_a_node():
    own = node("worker-2", 2, as_number=65002)
    document = told(own, (ONE, own), configuration={"asNumber": 64999})
    assert document["localAS"] == 65002
    assert document["peers"][0]["remoteAS"] == 64999


def test_a_session_waits_for_its_password(caplog):
    reference = {"secretKeyRef": {"name": "bgp", "key": "word"}}
    peer = {"peerIP": "172.18.0.254", "asNumber": 65001, "password": reference}
    off = {"nodeToNodeMeshEnabled": False}
    assert told(peers=[peer], configuration=off)["peers"] == []
    assert "BGPPeer peer-0" in caplog.text
    (session,) = told(peers=[peer], configuration=off, secrets={("bgp", "word"): "x"})["peers"]
    assert session["password"] == "x"


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 1), ("0s", 0), ("1h8m15s", 4095), ("2m30s", 150), ("499ms", 0)]
)
def test_a_restart_time_is_in_whole_seconds(text, seconds):
    document = told(configuration={"nodeMeshMaxRestartTime": text})
    assert [peer["restartTime"] for peer in document["peers"]] == [seconds, seconds]


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ({"nodeMeshMaxRestartTime": "1d"}, 'spec.nodeMeshMaxRestartTime: time: unknown unit "d" in duration "1d"'),
        (
            {"nodeMeshPassword": {"secretKeyRef": {"name": "a", "key": "b"}}},
            "spec.nodeMeshPassword: Secret kube-system/a",
        ),
        ({"nodeMeshPassword": {"secret": "a"}}, "spec.nodeMeshPassword: 'secretKeyRef' is missing"),
        ({"prefixAdvertisements": [{"communities": ["x"]}]}, "spec.prefixAdvertisements: 'cidr' is missing"),
        ({"prefixAdvertisements": [{"cidr": "pods"}]}, "spec.prefixAdvertisements:"),
        ({"communities": [7]}, "spec.prefixAdvertisements:"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(configuration, text):
    with pytest.raises(Unreadable) as raised:
        told(configuration=configuration)
    assert str(raised.value).startswith("BGPConfiguration default: ")
    assert text in str(raised.value)


@pytest.mark.parametrize("spec", [{"maxRestartTime": "1d"}, {"password": {}}, {"asNumber": "x"}])
def test_a_peer_that_cannot_be_read_is_logged_and_left_out(caplog, spec):
    peer = {"peerIP": "172.18.0.254", "asNumber": 65001} | spec
    assert "Global_172_18_0_254" not in sessions(told(peers=[peer])) or spec == {"password": {}}


def test_filters_and_communities():
    bgp_filter = {
        "spec": {
            "exportV4": [{"action": "Reject", "matchOperator": "Equal", "cidr": "10.244.1.0/26"}],
            "importV4": [{"action": "Accept", "cidr": "172.30.0.0/16"}],
        }
    }
    peer = {"peerIP": "172.18.0.254", "asNumber": 65001, "filters": ["one"], "maxRestartTime": "2m5s"}
    configuration = {
        "communities": [{"name": "pods", "value": "64512:7"}],
        "prefixAdvertisements": [{"cidr": "10.244.0.0/16", "communities": ["pods", "64512:8"]}],
    }
    document = told(peers=[peer], filters={"one": bgp_filter}, configuration=configuration)
    session = sessions(document)["Global_172_18_0_254"]
    assert session["export"] == {"rules": [{"prefix": "10.244.1.0/26", "action": "reject"}]}
    assert session["import"] == {"rules": [{"prefix": "172.30.0.0/16", "action": "accept", "ge": 16, "le": 32}]}
    assert session["restartTime"] == 125
    assert document["announce"][0]["communities"] == ["64512:7", "64512:8"]


def test_what_a_daemon_cannot_do_is_said_and_left_out(caplog):
    peer = {"peerIP": "172.18.0.254:1790", "asNumber": 65001}
    assert "Global_172_18_0_254" not in sessions(told(peers=[peer]))
    assert "only port 179" in caplog.text


RANGES = {"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "serviceExternalIPs": [{"cidr": "203.0.113.128/25"}]}


def service(name, policy, **more):
    spec = {"clusterIPs": ["10.96.0.7"], "externalIPs": ["203.0.113.200", "198.51.100.1"], **more}
    return {"metadata": {"namespace": "n", "name": name}, "spec": spec | {"externalTrafficPolicy": policy}}


def endpoint(name, where, ready=True):
    labels = {"kubernetes.io/service-name": name}
    endpoints = [{"nodeName": where, "conditions": {"ready": ready}}]
    return {"metadata": {"namespace": "n", "labels": labels}, "endpoints": endpoints}


@pytest.mark.parametrize(
    ("policy", "slices", "more"),
    [
        ("Cluster", [endpoint("web", "worker-1")], []),
        ("Local", [endpoint("web", "worker-1")], ["10.96.0.7/32", "203.0.113.200/32"]),
        ("Local", [endpoint("web", "worker-2")], []),
        ("Local", [endpoint("web", "worker-1", ready=False)], []),
    ],
)
def test_services_are_announced_whole_and_local_ones_where_their_endpoints_are(policy, slices, more):
    found = services.announced(RANGES, [service("web", policy)], slices, "worker-1", {})
    assert found == sorted(["10.96.0.0/12", "203.0.113.128/25", *more])


def test_a_node_that_is_excluded_announces_no_service():
    excluded = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    assert services.announced(RANGES, [], [], "worker-1", excluded) == []


def test_ipv6_has_sessions_and_prefixes_of_its_own():
    own, other = Node("worker-1", "fd00:18::3/64"), Node("worker-2", "fd00:18::4/64")
    pools = [pool("10.244.0.0/16", ipipMode="Always"), pool("fd00:10:244::/56", "six")]
    blocks = [*BLOCKS, block.new("fd00:10:244:1::/122", "worker-1")]
    peers = [{"peerIP": "172.18.0.254", "asNumber": 65001}, {"peerIP": "[fd00:18::ff]:179", "asNumber": 65001}]
    document = told(own, (own, other), pools, peers, blocks=blocks, services=["10.96.0.0/12", "fd00:96::/112"])
    assert [peer["address"] for peer in document["peers"]] == ["fd00:18::4", "fd00:18::ff"]
    assert document["announce"] == [{"prefix": "fd00:10:244:1::/122", "blackhole": True}, {"prefix": "fd00:96::/112"}]
    assert (document["kernel"], document["families"], document["listen"]) == ([], ["ipv6"], ["::"])
