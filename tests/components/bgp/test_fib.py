"""From the kernel's routes to the wanted ones."""

from ipaddress import ip_network
from typing import Any

import pytest

from kubewire.components.bgp import fib, links
from kubewire.components.bgp.config import KernelRule, Rule

A, B, C = (ip_network(f"10.{number}.0.0/16") for number in (1, 2, 3))


ONE, TWO = fib.Hop("10.0.1.2"), fib.Hop("10.0.2.2")


TUNNEL = fib.Hop("10.0.1.2", "tunl0")
SIX = ip_network("fd00:10:244:1::/64")
#: What is there, and what is wanted.
CHANGES: dict[str, tuple[fib.Table, fib.Table]] = {
    "from-nothing": ({}, {A: (ONE,), B: (ONE, TWO), C: (), SIX: (fib.Hop("fd00:18::2"),)}),
    "only-differences-and-additions-first": ({A: (ONE,), B: (ONE,)}, {A: (ONE,), C: (ONE, TWO)}),
    "a-next-hop-less": ({A: (ONE, TWO)}, {A: (TWO,)}),
    "by-a-tunnel": ({A: (ONE,)}, {A: (TUNNEL,)}),
    # "replace" would add the route beside the blackhole.
    "a-blackhole-becomes-a-route": ({A: ()}, {A: (ONE,)}),
    "a-route-becomes-a-blackhole": ({A: (ONE, TWO)}, {A: ()}),
    "nothing-is-left": ({A: (ONE, TWO), B: (TUNNEL,), C: ()}, {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_that_of_the_golden_file(name, golden):
    golden(f"bgp/{name}.txt", fib.changes(*CHANGES[name]))


def test_nothing_is_said_where_nothing_differs():
    assert fib.changes({A: (ONE, TWO)}, {A: (ONE, TWO)}) == ""


def test_what_ip_prints_is_read():
    entries: list[dict[str, Any]] = [
        {"dst": "default", "gateway": "10.0.1.2", "flags": []},
        {"dst": "10.1.0.0/16", "nexthops": [{"gateway": "10.0.2.2"}, {"gateway": "10.0.1.2"}]},
        {"dst": "10.2.0.7", "via": {"family": "inet6", "host": "fe80::1"}},
        {"type": "blackhole", "dst": "10.3.0.0/16", "protocol": "bird", "flags": []},
        {"dst": "10.4.0.0/16", "gateway": "10.9.0.1", "dev": "tunl0", "flags": ["onlink"]},
    ]
    assert fib.parse(entries, 4) == {
        ip_network("0.0.0.0/0"): (ONE,),
        A: (ONE, TWO),
        ip_network("10.2.0.7/32"): (fib.Hop("fe80::1"),),
        C: (),
        ip_network("10.4.0.0/16"): (fib.Hop("10.9.0.1", "tunl0"),),
    }


AROUND = fib.parse_surroundings(
    [
        {"dst": "default", "gateway": "172.18.0.1", "dev": "eth0"},
        {"dst": "172.18.0.0/18", "dev": "eth0", "protocol": "kernel"},
        {"dst": "172.18.64.0/18", "gateway": "172.18.0.9", "dev": "eth0"},
        {"dst": "10.9.0.0/16", "gateway": "172.18.0.7", "dev": "eth0", "protocol": "bird"},
    ],
    4,
)


@pytest.mark.parametrize(
    ("rules", "next_hop", "hop"),
    [
        ([], "172.18.0.3", fib.Hop("172.18.0.3")),
        ([], "172.18.64.3", fib.Hop("172.18.0.9")),
        ([], "203.0.113.7", fib.Hop("172.18.0.1")),
        ([KernelRule(Rule(A, accept=True), "tunl0")], "172.18.0.3", fib.Hop("172.18.0.3", "tunl0")),
        ([KernelRule(Rule(A, accept=True), "tunl0", cross_subnet=True)], "172.18.0.3", fib.Hop("172.18.0.3")),
        (
            [KernelRule(Rule(A, accept=True), "tunl0", cross_subnet=True)],
            "172.18.64.3",
            fib.Hop("172.18.64.3", "tunl0"),
        ),
    ],
)
def test_a_next_hop_by_link_by_another_route_or_by_a_tunnel(rules, next_hop, hop):
    assert fib.table({A: (next_hop,)}, [], rules, AROUND) == {A: (hop,)}


def test_what_the_kernel_does_not_get_and_what_it_drops():
    rules = [KernelRule(Rule(A, accept=False))]
    assert fib.table({A: ("172.18.0.3",)}, [B], rules, AROUND) == {B: ()}


def test_peers_on_a_link_without_carrier():
    def link(address, *flags):
        return {"flags": flags, "addr_info": [{"local": address, "prefixlen": 24}]}

    entries = [link("10.0.1.1", "UP", "NO-CARRIER"), link("10.0.2.1", "UP", "LOWER_UP")]
    assert links.on_dead_links(entries, ["10.0.1.2", "10.0.2.2", "192.0.2.1"]) == ["10.0.1.2"]
