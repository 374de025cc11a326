"""Descriptions of topologies: what is refused, which addresses and routes are chosen, where packets end."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.topologies import description, routes
from kubewire.topologies.addressing import planned
from kubewire.topologies.description import Link
from kubewire.topologies.plan import PlanError, TopologyPlan

NODES = "172.18.0.0/16"


def of(hosts: dict[str, Any], **switches: Any) -> description.Description:
    return description.parse(hosts, switches)


def host(role: str = "worker", /, **interfaces: Any) -> dict[str, Any]:
    return {"role": role, "interfaces": interfaces}


CP = host("control-plane", eth0="lan")


@pytest.mark.parametrize(
    ("hosts", "switches", "problem"),
    [
        pytest.param(
            {"a": host(eth0="lan")}, {"lan": {}}, "one host needs role: control-plane, and none", id="no node"
        ),
        pytest.param({"a": CP, "b": CP}, {"lan": {}}, "these have it: a, b", id="two control planes"),
        pytest.param({"A": CP}, {"lan": {}}, "not a name of lower-case letters", id="a name that is no label"),
        pytest.param({"lan": CP}, {"lan": {}}, "a switch has this name", id="one name twice"),
        pytest.param({"a": CP, "b": host()}, {"lan": {}}, "has no interface", id="no interface"),
        pytest.param(
            {"a": CP, "b": host(eth0="lam")}, {"lan": {}}, "no switch lam (did you mean lan?)", id="no such switch"
        ),
        pytest.param({"a": CP, "b": host(eth0="a")}, {"lan": {}}, "a cable to a host is HOST:INTERFACE", id="a host"),
        pytest.param({"a": CP, "b": host(eth0="a:eth9")}, {"lan": {}}, "no interface a:eth9", id="no such interface"),
        pytest.param(
            {"a": CP, "b": host(eth0="a:eth0")}, {"lan": {}}, "a:eth0 leads to lan, not to b:eth0", id="half a cable"
        ),
        pytest.param({"a": CP, "b": host(eth0="b:eth0")}, {"lan": {}}, "leads to itself", id="a cable to itself"),
        pytest.param(
            {"a": CP, "b": host(**{"an-interface-too-long": "lan"})}, {"lan": {}}, "15 letters at most", id="long name"
        ),
        pytest.param(
            {"a": CP, "b": host(eth0={"to": "lan", "addresses": ["172.18.0.2"]})},
            {"lan": {}},
            "no prefix length",
            id="an address without a length",
        ),
        pytest.param(
            {"a": CP, "b": host(eth0={"to": "lan", "addresses": ["172.18.0.0/16"]})},
            {"lan": {}},
            "its network's own address",
            id="a network's address",
        ),
        pytest.param(
            {
                "a": host("control-plane", eth0={"to": "lan", "addresses": ["172.18.0.2/16"]}),
                "b": host(eth0={"to": "lan", "addresses": ["172.18.0.2/16"]}),
            },
            {"lan": {}},
            "172.18.0.2 is a:eth0's already",
            id="an address twice",
        ),
        pytest.param(
            {
                "a": CP
                | {
                    "routes": {"default": "10.0.0.1"},
                    "interfaces": {"eth0": {"to": "lan", "addresses": ["10.1.0.1/16"]}},
                }
            },
            {"lan": {}},
            "the kernel refuses such a gateway",
            id="a gateway on no link",
        ),
        pytest.param(
            {"a": CP | {"routes": {"all": "eth0"}}}, {"lan": {}}, "a destination is default or", id="no range"
        ),
        pytest.param(
            {"a": CP | {"routes": {"default": "eth1"}}}, {"lan": {}}, "neither an address nor an interface", id="no via"
        ),
        pytest.param({"a": CP | {"asn": 65000}}, {"lan": {}}, "is for role: router", id="a node with an AS number"),
        pytest.param({"a": CP, "r": host("router", eth0="lan") | {"zone": "z"}}, {"lan": {}}, "for nodes", id="zone"),
        pytest.param({"a": CP}, {"lan": {"to": ["lam"]}}, "no switch lam", id="a trunk to nowhere"),
        pytest.param({"a": CP}, {"lan": {"to": ["lan"]}}, "leads to itself", id="a trunk to itself"),
        pytest.param(
            {"a": CP},
            {"lan": {"to": ["x"]}, "x": {"to": ["lan"]}},
            "name it at one end",
            id="a trunk named at both ends",
        ),
        pytest.param({"a": CP}, {"lan": {"to": ["x", "x"]}, "x": {}}, "is named twice", id="a trunk twice"),
        pytest.param({"a": CP}, {"lan": {}, "a-switch-that-is-long": {}}, "(15 at most)", id="a long switch"),
    ],
)
def test_what_cannot_be_built_is_said_with_what_would_be_right(
    hosts: dict[str, Any], switches: dict[str, Any], problem: str
) -> None:
    found = [text for _, text in description.problems(of(hosts, **switches))]
    assert any(problem in text for text in found), found


def test_a_description_comes_back_from_its_mapping() -> None:
    cable = host("router", eth0="lan", up={"to": "s:left", "mtu": 1400, "delay": "2ms"})
    hosts = {"cp": CP, "r": cable | {"asn": 65001}, "s": host("router", left="r:up") | {"routes": {}}}
    whole = of(hosts, lan={"to": ["wan"], "loss": 1}, wan={})
    again = description.as_dict(whole)
    assert of(again["hosts"], **again["switches"]) == whole
    assert list(description.problems(whole)) == []


def fabric() -> TopologyPlan:
    hosts = {
        "cp": CP,
        "w": host(eth0="far"),
        "r1": host("router", eth0="lan", eth1="r2:eth1"),
        "r2": host("router", eth0="far", eth1={"to": "r1:eth1", "mtu": 1400}),
    }
    whole = of(hosts, lan={}, far={})
    assert list(description.problems(whole)) == []
    return planned(whole, NODES, link=Link(bandwidth=10))


def test_every_segment_gets_a_part_of_the_node_range_with_the_router_first() -> None:
    plan = fabric()
    assert {m.name: [i.address for i in m.interfaces] for m in plan.machines} == {
        "cp": ["172.18.0.2/18"],
        "w": ["172.18.64.2/18"],
        "r1": ["172.18.0.1/18", "172.18.128.1/18"],
        "r2": ["172.18.64.1/18", "172.18.128.2/18"],
    }


def test_routes_are_the_shortest_ways_and_packets_arrive() -> None:
    plan = fabric()
    assert plan.machine("cp").routes == (("default", "172.18.0.1"),)
    assert plan.machine("r1").routes == (("default", "172.18.128.2"),)
    for one in plan.nodes:
        assert [routes.problem(plan.machines, one, other.address) for other in plan.nodes] == ["", ""]


def test_both_ends_of_a_cable_have_its_properties_and_those_of_every_link() -> None:
    plan = fabric()
    ends = [plan.machine(name).interfaces[1] for name in ("r1", "r2")]
    assert [(end.peer, end.switch, end.link) for end in ends] == [
        ("r2:eth1", "", Link(bandwidth=10, mtu=1400)),
        ("r1:eth1", "", Link(bandwidth=10, mtu=1400)),
    ]


def test_addresses_that_are_given_stay_and_others_of_the_segment_share_their_subnet() -> None:
    hosts = {
        "cp": host("control-plane", eth0={"to": "lan", "addresses": ["172.18.7.1/24"]}),
        "w": host(eth0="lan"),
        "r": host("router", eth0="lan"),
    }
    plan = planned(of(hosts, lan={}), NODES)
    assert [m.address for m in plan.machines] == ["172.18.7.1", "172.18.7.3", "172.18.7.2"]


def test_a_node_without_a_router_has_a_default_route_onto_its_link() -> None:
    """Else it could not send to a ClusterIP, which is in no subnet."""
    plan = planned(of({"cp": CP}, lan={}), "172.18.0.0/16,fd00:18::/64")
    assert plan.machine("cp").routes == (("default", "eth0"), ("::/0", "eth0"))


def test_switches_that_are_linked_are_one_segment_and_a_ring_needs_a_spanning_tree() -> None:
    hosts = {"cp": host("control-plane", eth0="s1"), "w": host(eth0="s3")}
    line = planned(of(hosts, s1={"to": ["s2"]}, s2={"to": ["s3"]}, s3={}), NODES)
    ring = planned(of(hosts, s1={"to": ["s2", "s3"]}, s2={"to": ["s3"]}, s3={}), NODES)
    assert [m.address for m in line.machines] == ["172.18.0.1", "172.18.0.2"] == [m.address for m in ring.machines]
    assert (line.spanning_tree, ring.spanning_tree) == (False, True)


def test_names_of_switch_ports_fit_and_differ() -> None:
    names = [f"a-node-with-a-long-name-{number}" for number in range(12)]
    hosts = {"cp": CP, **{name: host(eth0="lan", eth1="lan") for name in names}}
    ports = [i.port for m in planned(of(hosts, lan={}), NODES).machines for i in m.interfaces]
    assert len(ports) == len(set(ports)) == 25 and max(map(len, ports)) <= 15


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"r1": {"routes": {}}}, "r1 has no route to 172.18.64.2"),
        ({"cp": {"routes": {}}}, "cp has no route to 172.18.64.2"),
        ({"cp": {"routes": {"default": "172.18.0.9"}}}, "cp sends it to 172.18.0.9, which no host has"),
        ({"r2": {"role": "outside"}}, "has no route to 172.18.64.2"),
        ({"r2": {"routes": {"172.18.64.2/32": "172.18.128.1"}}}, "its routes form a loop through"),
    ],
)
def test_a_packet_that_does_not_arrive_is_explained(change: dict[str, Any], problem: str) -> None:
    hosts: dict[str, Any] = {
        "cp": CP,
        "w": host(eth0="far"),
        "r1": host("router", eth0="lan", eth1="r2:eth1"),
        "r2": host("router", eth0="far", eth1="r1:eth1"),
    }
    hosts = {name: value | change.get(name, {}) for name, value in hosts.items()}
    plan = planned(of(hosts, lan={}, far={}), NODES)
    assert problem in routes.problem(plan.machines, plan.machine("cp"), "172.18.64.2")


def test_a_range_that_is_too_small_is_refused() -> None:
    hosts = {"cp": CP, **{f"w{number}": host(eth0="lan") for number in range(4)}}
    with pytest.raises(PlanError, match=r"172\.18\.0\.0/30 has no address left for w1:eth0"):
        planned(of(hosts, lan={}), "172.18.0.0/30")
    with pytest.raises(PlanError, match="is too small for 3 segments"):
        planned(of({"cp": CP, "a": host(eth0="x"), "b": host(eth0="y")}, lan={}, x={}, y={}), "172.18.0.0/29")
