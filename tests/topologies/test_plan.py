"""Topologies as data: every host reaches every other through the routes it is given."""

import ipaddress

import pytest

from kubewire.topologies.addressing import planned
from kubewire.topologies.plan import Machine, PlanError, TopologyPlan
from kubewire.topologies.shapes import SHAPES

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def plan_of(shape: str, workers: int, nodes: str) -> TopologyPlan:
    return planned(SHAPES[shape](workers, nodes), nodes, shape)


def next_hop(machine: Machine, target: Address) -> str | None:
    """None: on link; else the gateway of the longest matching route."""
    for interface in machine.interfaces:
        if any(target in ipaddress.ip_interface(address).network for address in interface.addresses):
            return None
    routes = [(destination(text, via), via) for text, via in machine.routes]
    matching = [(net.prefixlen, via) for net, via in routes if target in net]
    assert matching, f"{machine.name} has no route to {target}"
    return max(matching)[1]


def destination(text: str, via: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """ip route's "default" is of the gateway's family."""
    return ipaddress.ip_network(("::/0" if ":" in via else "0.0.0.0/0") if text == "default" else text)


def walk(plan: TopologyPlan, source: Machine, target: Machine, family: int = 0) -> list[str]:
    """The hosts on the way to target's address of a family (0: the primary)."""
    owners = {address.split("/")[0]: m for m in plan.machines for i in m.interfaces for address in i.addresses}
    here, path, wanted = source, [source.name], target.addresses[family]
    while here is not target:
        via = next_hop(here, ipaddress.ip_address(wanted))
        here = owners[via or wanted]
        path.append(here.name)
        assert len(path) < 8, f"a loop: {path}"
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("workers", [1, 3, 20])
@pytest.mark.parametrize(
    "nodes", ["172.18.0.0/16", "172.18.0.0/16,fd00:18::/64", "fd00:18::/64,172.18.0.0/16", "fd00:18::/64"]
)
def test_every_host_reaches_every_other(shape: str, workers: int, nodes: str) -> None:
    plan = plan_of(shape, workers, nodes)
    hosts = [machine for machine in plan.machines if machine.role != "router"]
    for family in range(nodes.count(",") + 1):
        for source in hosts:
            for target in hosts:
                assert walk(plan, source, target, family)[-1] == target.name


def test_one_segment_addresses_follow_the_documented_order() -> None:
    plan = plan_of("one-segment", 2, "172.18.0.0/16")
    assert [(m.name, m.address) for m in plan.machines] == [
        ("control-plane", "172.18.0.2"),
        ("worker-1", "172.18.0.3"),
        ("worker-2", "172.18.0.4"),
        ("router", "172.18.0.1"),
        ("client", "203.0.113.10"),
        ("dns", "203.0.113.53"),
    ]


def test_dual_stack_addresses_have_the_same_number_in_both_families() -> None:
    plan = plan_of("one-segment", 1, "172.18.0.0/16,fd00:18::/64")
    assert {m.name: m.addresses for m in plan.machines} == {
        "control-plane": ("172.18.0.2", "fd00:18::2"),
        "worker-1": ("172.18.0.3", "fd00:18::3"),
        "router": ("172.18.0.1", "fd00:18::1"),
        "client": ("203.0.113.10", "2001:db8:113::10"),
        "dns": ("203.0.113.53", "2001:db8:113::53"),
    }


def test_the_first_range_is_the_primary_family() -> None:
    assert plan_of("one-segment", 1, "fd00:18::/64,172.18.0.0/16").nodes[0].addresses == ("fd00:18::2", "172.18.0.2")


def test_without_ipv4_no_host_has_an_ipv4_address() -> None:
    for shape in SHAPES:
        plan = plan_of(shape, 2, "fd00:18::/64")
        assert all(":" in address for m in plan.machines for i in m.interfaces for address in i.addresses)


def test_nodes_of_different_racks_talk_through_both_top_of_rack_routers() -> None:
    plan = plan_of("two-racks", 2, "172.18.0.0/16")
    path = walk(plan, plan.machine("worker-1"), plan.machine("worker-2"))
    assert path == ["worker-1", "tor-1", "router", "tor-2", "worker-2"]


def test_no_address_is_given_twice() -> None:
    for shape in SHAPES:
        machines = plan_of(shape, 30, "172.18.0.0/16,fd00:18::/64").machines
        addresses = [address for m in machines for i in m.interfaces for address in i.addresses]
        assert len(addresses) == len(set(addresses))


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        ("one-segment", "172.18.0.0/30"),
        ("one-segment", "fd00:18::/126"),
        ("two-racks", "172.18.0.0/27"),
        ("two-racks", "fd00:18::/123"),
    ],
)
def test_a_range_too_small_for_the_hosts_is_refused_with_the_range(shape: str, nodes: str) -> None:
    with pytest.raises(PlanError, match=nodes.split("/")[0]):
        plan_of(shape, 3, nodes)
