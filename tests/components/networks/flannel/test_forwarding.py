"""Desired entries and the commands that lead to them, as golden text."""

import ipaddress
from dataclasses import replace
from itertools import pairwise

import pytest

from kubewire.components.kernel.forwarding import Forwarding, Neighbour, Route, difference
from kubewire.components.networks.flannel.forwarding import host_gateway, vxlan
from kubewire.components.networks.flannel.lease import Lease


def lease(number, backend="vxlan", **changes):
    made = Lease(
        f"worker-{number}",
        ipaddress.IPv4Network(f"10.244.{number}.0/24"),
        ipaddress.IPv4Address(f"172.18.0.{number + 2}"),
        backend,
        1,
        f"5e:00:00:00:00:0{number}",
    )
    return replace(made, **changes)


THREE = [lease(1), lease(2), lease(3)]


def overlay(leases, **options):
    return vxlan(leases, "worker-1", 1, "flannel.1", **options)


def text(commands):
    return f"# bridge\n{commands.fdb_set}# ip\n{commands.ip}# bridge\n{commands.fdb_delete}"


def lease6(number, backend="vxlan"):
    return lease(
        number,
        backend,
        subnet=ipaddress.IPv6Network(f"fd00:10:244:{number}::/64"),
        public_ip=ipaddress.IPv6Address(f"fd00:18::{number + 2}"),
        vtep_mac=f"5e:00:00:00:00:6{number}",
    )


THREE6 = [lease6(1), lease6(2), lease6(3)]
OVERLAY6 = vxlan(THREE6, "worker-1", 1, "flannel-v6.1")

CASES = {
    "vxlan-from-nothing": (Forwarding(), overlay(THREE)),
    "vxlan-node-gone": (overlay(THREE), overlay(THREE[:2])),
    "vxlan-node-has-a-new-mac": (overlay(THREE), overlay([*THREE[:2], lease(3, vtep_mac="5e:00:00:00:00:99")])),
    "vxlan-node-has-a-new-address": (
        overlay(THREE),
        overlay([*THREE[:2], lease(3, public_ip=ipaddress.IPv4Address("172.18.0.77"))]),
    ),
    "vxlan-subnet-moves-to-another-node": (
        overlay(THREE[:2]),
        overlay([THREE[0], lease(3, subnet=THREE[1].subnet)]),
    ),
    "vxlan-direct-routing-two-racks": (
        Forwarding(),
        overlay(
            [*THREE[:2], lease(3, public_ip=ipaddress.IPv4Address("172.19.0.3"))],
            outer_device="eth0",
            on_link=[ipaddress.IPv4Network("172.18.0.0/16")],
        ),
    ),
    "dual-stack-vxlan-from-nothing": (Forwarding(), overlay(THREE) | OVERLAY6),
    "dual-stack-vxlan-node-gone": (
        overlay(THREE) | OVERLAY6,
        overlay(THREE[:2]) | vxlan(THREE6[:2], "worker-1", 1, "flannel-v6.1"),
    ),
    "ipv6-vxlan-direct-routing-two-racks": (
        Forwarding(),
        vxlan(
            [*THREE6[:2], replace(THREE6[2], public_ip=ipaddress.IPv6Address("fd00:19::3"))],
            "worker-1",
            1,
            "flannel-v6.1",
            outer_device="eth0",
            on_link=[ipaddress.IPv4Network("172.18.0.0/16"), ipaddress.IPv6Network("fd00:18::/64")],
        ),
    ),
    "ipv6-host-gw-from-nothing": (
        Forwarding(),
        host_gateway([lease6(n, "host-gw") for n in (1, 2, 3)], "worker-1", "eth0"),
    ),
    "host-gw-from-nothing": (
        Forwarding(),
        host_gateway([lease(n, "host-gw", vtep_mac="") for n in (1, 2, 3)], "worker-1", "eth0"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_commands(name, golden):
    golden(f"flannel/{name}.txt", text(difference(*CASES[name])))


@pytest.mark.parametrize("name", CASES)
def test_the_commands_lead_where_they_should(name):
    now, wanted = CASES[name]
    assert applied(now, difference(now, wanted)) == wanted


def applied(now, commands):
    """The kernel's tables after the commands: replace sets by key, del removes by key."""
    routes = {route.destination: route for route in now.routes}
    neighbours = {entry.address: entry for entry in now.neighbours}
    fdb = {entry.mac: entry for entry in now.fdb}
    for line in (commands.fdb_set + commands.ip + commands.fdb_delete).splitlines():
        kind, verb, key, *rest = line.split()
        words = dict(pairwise(rest))
        if verb == "del":
            {"route": routes, "neigh": neighbours, "fdb": fdb}[kind].pop(key)
        elif kind == "route":
            routes[key] = Route.via(key, words["via"], words["dev"], onlink="onlink" in rest)
        elif kind == "neigh":
            neighbours[key] = Neighbour(key, words["lladdr"], words["dev"])
        else:
            fdb[key] = next(iter(now.fdb), None) or next(iter(overlay(THREE).fdb))
            fdb[key] = replace(fdb[key], mac=key, address=words["dst"], device=words["dev"])
    return Forwarding(frozenset(routes.values()), frozenset(neighbours.values()), frozenset(fdb.values()))


def test_nothing_to_do_is_nothing():
    assert not difference(overlay(THREE), overlay(list(reversed(THREE))))


@pytest.mark.parametrize(
    "other",
    [lease(2, "host-gw"), lease(2, vni=2), lease(2, vtep_mac=""), lease(1)],
    ids=["another backend", "another VNI", "no MAC yet", "this node itself"],
)
def test_leases_that_are_not_for_us_are_left_alone(other):
    assert overlay([other]) == Forwarding()
