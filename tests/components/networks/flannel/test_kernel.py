"""The appliers against the kernel, in a scratch namespace."""

import asyncio
import ipaddress
import socket
import struct
import subprocess

import pytest

from kubewire.components.kernel import iptables
from kubewire.components.networks.flannel import kernel, rules
from kubewire.components.networks.flannel.drift import concerns
from tests.existing import existing
from tests.scratch import isolated

pytestmark = pytest.mark.packet

NETWORK, SUBNET = ipaddress.IPv4Network("10.244.0.0/16"), ipaddress.IPv4Network("10.244.1.0/24")
RULES = rules.masquerade(NETWORK, SUBNET) | rules.forward(NETWORK)


def ip(text):
    subprocess.run(["ip", *text.split()], check=True)


def ensured():
    assert asyncio.run(iptables.ensure(RULES)) is True
    # What iptables-save prints is what we compare with, word by word.
    assert asyncio.run(iptables.ensure(RULES)) is False
    subprocess.run(["iptables", "-A", "FORWARD", "-j", "ACCEPT"], check=True)
    assert asyncio.run(iptables.ensure(RULES)) is False


def test_rules_are_set_once_and_then_left_alone():
    isolated(ensured)


def generations():
    first = iptables.generation()
    assert isinstance(first, int) and iptables.generation() == first
    subprocess.run(["iptables", "-N", "SOMEBODYS"], check=True)
    assert existing(iptables.generation()) > first


def test_the_generation_moves_with_every_change_and_only_then():
    isolated(generations)


def links():
    ip("link add eth0 type veth peer name eth1")
    ip("address add 172.18.0.3/16 dev eth0")
    ip("address add 192.0.2.7/24 dev eth1")
    ip("address add 192.0.2.8/24 dev eth1")
    ip("link set eth0 up")
    ip("link set eth1 up")
    ip("route add default via 172.18.0.1")

    def found(*arguments, **options):
        link = asyncio.run(kernel.outer_link(*arguments, **options))
        return link.name, str(link.address)

    assert found() == ("eth0", "172.18.0.3")
    assert found(["eth9", "eth1"]) == ("eth1", "192.0.2.7")
    assert found(["192.0.2.8"]) == ("eth1", "192.0.2.8")
    assert found((), [r"192\.0\.2\."]) == ("eth1", "192.0.2.7")
    assert found(reachable="192.0.2.99") == ("eth1", "192.0.2.7")
    with pytest.raises(kernel.LinkError, match=r"failed to find interface to use that matches .*: eth9"):
        found(["eth9"])
    ip("route del default")
    with pytest.raises(kernel.LinkError, match="unable to find default route"):
        found()


def test_the_outer_interface_is_found_by_name_address_pattern_route_or_default():
    isolated(links)


def ipv6_links():
    ip("link add eth0 type veth peer name eth1")
    ip("address add 172.18.0.3/16 dev eth0")
    ip("address add fd00:18::3/64 dev eth0 nodad")
    ip("address add fd00:19::3/64 dev eth1 nodad")
    ip("link set eth0 up")
    ip("link set eth1 up")
    ip("-6 route add default via fd00:18::1")

    def found(interfaces=(), patterns=(), reachable=""):
        link = asyncio.run(kernel.outer_link(interfaces, patterns, reachable, version=6))
        return link.name, str(link.address), [str(network) for network in link.networks]

    assert found() == found(["eth0"]) == ("eth0", "fd00:18::3", ["fd00:18::/64"]), "not the link-local one"
    assert found(["fd00:19::3"]) == found((), ["^fd00:19:"]) == ("eth1", "fd00:19::3", ["fd00:19::/64"])
    assert found(reachable="fd00:19::9")[0] == "eth1"
    ip("-6 route del default")
    with pytest.raises(kernel.LinkError, match="failed to get default v6 interface"):
        found()
    ip("-6 address flush dev eth1 scope global")
    with pytest.raises(kernel.LinkError, match="failed to find IPv6 address for interface eth1"):
        found(["eth1"])


def test_the_outer_interface_is_found_in_ipv6_too():
    isolated(ipv6_links)


@pytest.mark.parametrize(
    ("inner", "outer", "said"),
    [
        ("fd00:10:244:1::/64", "fd00:10:244::/56", True),
        ("fd00:10:244::/56", "fd00:10:244::/56", True),
        ("fd00:10::/32", "fd00:10:244::/56", False),
        ("fd00:10:245::/64", "fd00:10:244::/56", False),
        ("10.244.1.0/24", "fd00:10:244::/56", False),
        ("10.244.1.0/24", "10.244.0.0/16", True),
    ],
)
def test_which_ranges_are_parts_of_a_network(inner, outer, said):
    assert kernel.within(ipaddress.ip_network(inner), ipaddress.ip_network(outer)) is said


@pytest.mark.parametrize(
    ("kind", "family", "protocol", "said"),
    [
        pytest.param(24, socket.AF_INET, 2, True, id="an IPv4 route"),
        pytest.param(25, socket.AF_INET6, 3, True, id="an IPv6 route that ip has set"),
        pytest.param(24, socket.AF_INET6, 2, False, id="one that the kernel makes with an interface"),
    ],
)
def test_routes_that_may_be_drift(kind, family, protocol, said):
    rtmsg = struct.pack("=BBBBBBBBI", family, 64, 0, 0, 254, protocol, 0, 1, 0)
    assert concerns(kind, rtmsg, ()) is said


@pytest.mark.parametrize(("kind", "index", "said"), [(16, 7, True), (29, 8, True), (28, 9, False)])
def test_links_and_neighbours_of_either_overlay_may_be_drift(kind, index, said):
    assert concerns(kind, struct.pack("=BxHi", 0, 0, index), {7, 8}) is said


def foreign_routes():
    ip("link add eth0 type veth peer name eth1")
    ip("address add 172.18.0.3/16 dev eth0")
    ip("link set eth1 up")
    ip("link set eth0 up")
    for route in ("default", "192.0.2.0/24", "10.244.7.0/24"):
        ip(f"route add {route} via 172.18.0.1")
    now = asyncio.run(kernel.forwarding(NETWORK, outer="eth0"))
    return {route.destination for route in now.routes}


def test_only_routes_into_the_flannel_network_are_flannels():
    assert isolated(foreign_routes) == {"10.244.7.0/24"}


def no_device():
    assert asyncio.run(kernel.vxlan_device("nowhere")) is None
    with pytest.raises(kernel.LinkError, match="lo exists and is not a vxlan device"):
        asyncio.run(kernel.vxlan_device("lo"))


def test_a_device_that_is_no_vxlan_is_not_taken_for_one():
    isolated(no_device)
