import ipaddress
from dataclasses import replace

import pytest

from kubewire.components.networks.flannel.device import VxlanDevice, commands, incompatible, mtu_of, new_mac

NETWORK = ipaddress.IPv4Network("10.244.0.0/16")
WANTED = VxlanDevice(
    "flannel.1", 1, 8472, 1450, "172.18.0.3", "eth0", "5e:00:00:00:00:01", addresses=("10.244.1.0/32",)
)


def test_a_new_device_is_made_addressed_and_set_up():
    assert commands(WANTED, None, NETWORK).splitlines() == [
        "link add flannel.1 address 5e:00:00:00:00:01 mtu 1450 type vxlan id 1 dev eth0 local 172.18.0.3 "
        "dstport 8472 nolearning",
        "address add 10.244.1.0/32 dev flannel.1",
        "link set dev flannel.1 up",
    ]


def test_a_device_that_is_right_is_not_touched():
    assert commands(WANTED, WANTED, NETWORK) == ""


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"mtu": 1400}, ["link set dev flannel.1 address 5e:00:00:00:00:01 mtu 1450"]),
        ({"mac": "aa:00:00:00:00:01"}, ["link set dev flannel.1 address 5e:00:00:00:00:01 mtu 1450"]),
        ({"up": False}, ["link set dev flannel.1 up"]),
        (
            {"addresses": ("10.244.9.0/32", "169.254.1.1/32")},
            ["address delete 10.244.9.0/32 dev flannel.1", "address add 10.244.1.0/32 dev flannel.1"],
        ),
    ],
    ids=["MTU", "MAC", "down", "address of an earlier subnet"],
)
def test_a_compatible_device_is_set_right_in_place(found, expected):
    assert commands(WANTED, replace(WANTED, **found), NETWORK).splitlines() == expected


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"vni": 2}, "vni: 1 vs 2"),
        ({"port": 4789}, "port: 8472 vs 4789"),
        ({"local": "172.18.0.9"}, "vtep (external) IP: 172.18.0.3 vs 172.18.0.9"),
        ({"link": "eth1"}, "vtep (external) interface: eth0 vs eth1"),
    ],
)
def test_what_cannot_be_changed_makes_a_new_device(found, reason):
    other = replace(WANTED, **found)
    assert incompatible(WANTED, other) == reason
    assert commands(WANTED, other, NETWORK).startswith("link delete flannel.1\nlink add flannel.1 ")


@pytest.mark.parametrize(
    ("version", "outer", "wanted", "expected"),
    [
        pytest.param(4, 1500, 0, 1450, id="IPv4: 50 bytes around each packet"),
        pytest.param(6, 1500, 0, 1430, id="IPv6: 70"),
        pytest.param(6, 1500, 1414, 1364, id="what net-conf.json says less 50, where that fits"),
        pytest.param(6, 1500, 1490, 1430, id="else what fits"),
        pytest.param(4, 1500, 9000, 1450, id="the outer interface's own is the most in IPv4 too"),
    ],
)
def test_the_mtu_leaves_room_for_the_outer_headers(version, outer, wanted, expected):
    assert mtu_of(version, outer, wanted) == expected


def test_an_ipv6_device_has_a_host_address_of_its_family():
    device = VxlanDevice(
        "flannel-v6.1", 1, 8472, 1430, "fd00:18::3", "eth0", "5e:00:00:00:00:61", addresses=("fd00:10:244:1::/128",)
    )
    assert commands(device, None, ipaddress.IPv6Network("fd00:10:244::/56")).splitlines() == [
        "link add flannel-v6.1 address 5e:00:00:00:00:61 mtu 1430 type vxlan id 1 dev eth0 local fd00:18::3 "
        "dstport 8472 nolearning",
        "address add fd00:10:244:1::/128 dev flannel-v6.1",
        "link set dev flannel-v6.1 up",
    ]


def test_macs_are_local_unicast_and_differ():
    macs = {new_mac() for _ in range(50)}
    assert len(macs) == 50
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
