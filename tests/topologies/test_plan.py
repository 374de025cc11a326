"""Topologies as data: every host reaches every other through the routes it is given."""

import ipaddress

import pytest

from topologies.plan import SHAPES, Machine, PlanError, TopologyPlan, one_segment, two_racks


def next_hop(machine: Machine, target: ipaddress.IPv4Address) -> str | None:
    """None: on link; else the gateway of the longest matching route."""
    for interface in machine.interfaces:
        if target in ipaddress.ip_interface(interface.address).network:
            return None
    routes = [(ipaddress.ip_network("0.0.0.0/0" if d == "default" else d), via) for d, via in machine.routes]
    matching = [(net.prefixlen, via) for net, via in routes if target in net]
    assert matching, f"{machine.name} has no route to {target}"
    return max(matching)[1]


def walk(plan: TopologyPlan, source: Machine, target: Machine) -> list[str]:
    owners = {i.address.split("/")[0]: m for m in plan.machines for i in m.interfaces}
    here, path = source, [source.name]
    while here is not target:
        via = next_hop(here, ipaddress.IPv4Address(target.address))
        here = owners[via or target.address]
        path.append(here.name)
        assert len(path) < 8, f"a loop: {path}"
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("workers", [1, 3, 20])
def test_every_host_reaches_every_other(shape: str, workers: int) -> None:
    plan = SHAPES[shape](workers, "172.18.0.0/16", None)
    hosts = [machine for machine in plan.machines if machine.role != "router"]
    for source in hosts:
        for target in hosts:
            assert walk(plan, source, target)[-1] == target.name


def test_one_segment_addresses_follow_the_documented_order() -> None:
    plan = one_segment(2, "172.18.0.0/16")
    assert [(m.name, m.address) for m in plan.machines] == [
        ("control-plane", "172.18.0.2"),
        ("worker-1", "172.18.0.3"),
        ("worker-2", "172.18.0.4"),
        ("router", "172.18.0.1"),
        ("client", "203.0.113.10"),
        ("dns", "203.0.113.53"),
    ]


def test_nodes_of_different_racks_talk_through_both_top_of_rack_routers() -> None:
    plan = two_racks(2, "172.18.0.0/16")
    path = walk(plan, plan.machine("worker-1"), plan.machine("worker-2"))
    assert path == ["worker-1", "tor-1", "router", "tor-2", "worker-2"]


def test_no_address_is_given_twice() -> None:
    for shape in SHAPES.values():
        addresses = [i.address for m in shape(30, "172.18.0.0/16", None).machines for i in m.interfaces]
        assert len(addresses) == len(set(addresses))


@pytest.mark.parametrize(("shape", "nodes"), [("one-segment", "172.18.0.0/30"), ("two-racks", "172.18.0.0/27")])
def test_a_range_too_small_for_the_hosts_is_refused_with_the_range(shape: str, nodes: str) -> None:
    with pytest.raises(PlanError, match=nodes.split("/")[0]):
        SHAPES[shape](3, nodes, None)
