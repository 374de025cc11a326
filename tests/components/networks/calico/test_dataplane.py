"""Nodes, pools and blocks as routes, neighbours and FDB entries."""

import pytest

from kubewire.components.kernel.forwarding import Commands, FdbEntry, Forwarding, Neighbour, difference
from kubewire.components.kernel.iptables import transaction
from kubewire.components.networks.calico import dataplane
from kubewire.components.networks.calico.dataplane import DEVICE, Node, blackhole, entries, way
from kubewire.components.networks.calico.plugin import block
from tests.components.networks.calico.store import pool
from tests.existing import existing

OWN = Node("worker-1", "172.18.0.3/16", "10.244.1.0")
NEAR = Node("worker-2", "172.18.0.4/16", "10.244.2.0")
FAR = Node("worker-3", "172.19.0.4/16", "10.244.3.0")
NODES = {node.name: node for node in (OWN, NEAR, FAR)}
BLOCKS = [block.new(f"10.244.{number}.0/26", name) for number, name in enumerate(NODES, 1)]


def wanted(mode, blocks=None):
    pools = [pool("10.244.0.0/16", vxlanMode=mode)]
    return entries(OWN, NODES, pools, BLOCKS if blocks is None else blocks, "eth0")


@pytest.mark.parametrize(
    ("mode", "routes", "peers"),
    [
        (
            "Always",
            {way("10.244.2.0/26", "10.244.2.0", DEVICE), way("10.244.3.0/26", "10.244.3.0", DEVICE)},
            {NEAR, FAR},
        ),
        (
            "CrossSubnet",
            {way("10.244.2.0/26", "172.18.0.4", "eth0"), way("10.244.3.0/26", "10.244.3.0", DEVICE)},
            {FAR},
        ),
        ("Never", set(), set()),
    ],
)
def test_the_ways_to_other_nodes_by_mode(mode, routes, peers):
    found = wanted(mode)
    assert found.routes == routes | ({blackhole("10.244.1.0/26")} if mode != "Never" else set())
    assert found.neighbours == {Neighbour(peer.tunnel, peer.mac, DEVICE) for peer in peers}
    assert found.fdb == {FdbEntry(peer.mac, peer.ip, DEVICE) for peer in peers}


def test_a_borrowed_address_has_a_route_to_who_borrowed_it():
    lent = block.new("10.244.9.0/26", "worker-2")
    assert block.take(lent, "a", {"node": "worker-3"}) == "10.244.9.0"
    assert block.take(lent, "b", {"node": "worker-1"}) == "10.244.9.1"
    routes = wanted("Always", [lent]).routes
    assert routes == {way("10.244.9.0/26", "10.244.2.0", DEVICE), way("10.244.9.0/32", "10.244.3.0", DEVICE)}


def test_a_node_without_a_tunnel_address_yet_is_not_routed():
    nodes = {**NODES, "worker-2": Node("worker-2", "172.18.0.4/16")}
    found = entries(OWN, nodes, [pool("10.244.0.0/16", vxlanMode="Always")], BLOCKS, "eth0")
    assert way("10.244.2.0/26", "", DEVICE) not in found.routes
    assert len(found.fdb) == 1


def test_macs_are_known_from_names_and_look_like_felixs():
    assert OWN.mac == Node("worker-1", "1.2.3.4/8").mac != NEAR.mac
    assert OWN.mac.startswith("66:")


def test_a_change_is_what_changed_and_its_order_leaves_no_half_path():
    before = wanted("Always")
    commands = difference(Forwarding(), before)
    assert sorted(commands.fdb_set.splitlines()) == sorted(
        f"fdb replace {peer.mac} dev {DEVICE} dst {peer.ip} self permanent" for peer in (NEAR, FAR)
    )
    lines = commands.ip.splitlines()
    assert [line.split()[0] for line in lines] == ["neigh", "neigh", "route", "route", "route"]
    assert "route replace blackhole 10.244.1.0/26 proto 80" in lines
    assert f"route replace 10.244.2.0/26 proto 80 via 10.244.2.0 dev {DEVICE} onlink" in lines
    assert difference(before, before) == Commands()
    gone = difference(before, wanted("Always", BLOCKS[:2]))
    assert gone.ip.splitlines() == ["route del 10.244.3.0/26 proto 80", f"neigh del 10.244.3.0 dev {DEVICE}"]
    assert gone.fdb_delete == f"fdb del {FAR.mac} dev {DEVICE} dst {FAR.ip} self\n"
    assert gone.fdb_set == ""


def lent():
    """A block of worker-2, of whose addresses worker-1 and worker-3 have borrowed one each."""
    made = block.new("10.244.2.0/26", "worker-2")
    block.take(made, "a", {"node": "worker-3"})
    block.take(made, "b", {"node": "worker-1"})
    return [BLOCKS[0], made, BLOCKS[2]]


def six():
    own, other = (
        Node("worker-1", "fd00:18::3/64", "fd00:10:244:1::"),
        Node("worker-2", "fd00:18::4/64", "fd00:10:244:2::"),
    )
    blocks = [block.new("fd00:10:244:1::/122", "worker-1"), block.new("fd00:10:244:2::/122", "worker-2")]
    pools = [pool("fd00:10:244::/56", "six", vxlanMode="Always")]
    return entries(own, {one.name: one for one in (own, other)}, pools, blocks, "eth0")


#: What is there, and what is wanted.
CHANGES = {
    "vxlan-from-nothing": (Forwarding(), wanted("Always")),
    "vxlan-cross-subnet-from-nothing": (Forwarding(), wanted("CrossSubnet")),
    "vxlan-becomes-cross-subnet": (wanted("Always"), wanted("CrossSubnet")),
    "vxlan-never": (wanted("Always"), wanted("Never")),
    "a-node-is-gone": (wanted("Always"), wanted("Always", BLOCKS[:2])),
    "addresses-are-borrowed": (wanted("Always"), wanted("Always", lent())),
    "ipv6-from-nothing": (Forwarding(), six()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_commands_are_those_of_the_golden_file(name, golden):
    change = difference(*CHANGES[name])
    golden(f"calico/{name}.txt", f"# bridge\n{change.fdb_set}# ip\n{change.ip}# bridge\n{change.fdb_delete}")


def test_masquerading_follows_the_pools(golden):
    pools = [
        pool("10.244.0.0/16", natOutgoing=True),
        pool("10.7.0.0/24", "plain"),
        pool("fd00::/48", "six", natOutgoing=True),
    ]
    golden("calico/nat.txt", dataplane.ipsets(pools) + transaction(dataplane.rules(pools, [dataplane.VXLAN]), {}))
    assert "cali-nat-outgoing -m set" not in transaction(
        dataplane.rules([pool("10.244.0.0/16")], [dataplane.VXLAN]), {}
    )
    assert DEVICE not in transaction(dataplane.rules(pools, []), {})


def test_nodes_say_where_they_are():
    annotations = {
        "projectcalico.org/IPv4Address": "172.18.0.3/16",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.244.1.0",
    }
    assert dataplane.node_of({"metadata": {"name": "worker-1", "annotations": annotations}}) == OWN
    assert dataplane.node_of({"metadata": {"name": "new"}}) is None


def test_ipv6_has_a_device_and_addresses_of_its_own(golden):
    own, other = (
        Node("worker-1", "fd00:18::3/64", "fd00:10:244:1::"),
        Node("worker-2", "fd00:18::4/64", "fd00:10:244:2::"),
    )
    blocks = [*BLOCKS, block.new("fd00:10:244:1::/122", "worker-1"), block.new("fd00:10:244:2::/122", "worker-2")]
    pools = [
        pool("10.244.0.0/16", vxlanMode="Always"),
        pool("fd00:10:244::/56", "six", vxlanMode="Always", natOutgoing=True),
    ]
    found = entries(own, {one.name: one for one in (own, other)}, pools, blocks, "eth0")
    assert found.routes == {
        blackhole("fd00:10:244:1::/122"),
        way("fd00:10:244:2::/122", "fd00:10:244:2::", "vxlan-v6.calico"),
    }
    assert found.neighbours == {Neighbour("fd00:10:244:2::", other.mac, "vxlan-v6.calico")}
    assert other.mac != Node("worker-2", "172.18.0.4/16").mac
    six = dataplane.IPV6
    golden(
        "calico/nat6.txt",
        dataplane.ipsets(pools, six) + transaction(dataplane.rules(pools, [dataplane.VXLAN6], six), {}),
    )
    assert dataplane.node_of({"metadata": {"name": "n", "annotations": {six.annotation: "fd00::1/64"}}}) is None


def test_a_dual_stack_node_is_two_nodes():
    annotations = {
        "projectcalico.org/IPv4Address": "172.18.0.3/16",
        "projectcalico.org/IPv6Address": "fd00:18::3/64",
        "projectcalico.org/IPv6VXLANTunnelAddr": "fd00:10:244:1::",
    }
    obj = {"metadata": {"name": "worker-1", "annotations": annotations}}
    assert dataplane.node_of(obj, dataplane.IPV6) == Node("worker-1", "fd00:18::3/64", "fd00:10:244:1::")
    assert dataplane.node_of(obj) == Node("worker-1", "172.18.0.3/16")


def test_felix_configuration_says_which_vxlan():
    settings = dataplane.Settings.of({"vxlanVNI": 7, "vxlanPort": 8472, "vxlanMTU": 1400})
    assert (settings.vni, settings.port) == (7, 8472)
    assert (settings.mtu(dataplane.VXLAN, 1500), settings.mtu(dataplane.VXLAN6, 1500)) == (1400, 1430)
    assert dataplane.Settings.of({}) == dataplane.Settings(4096, 4789)


@pytest.mark.parametrize("text", ["\u00b2", "9" * 5000, "-1"])
def test_a_nodes_as_number_that_is_no_number_is_left_out(text):
    annotations = {dataplane.NODE_ADDRESS: "10.0.0.1/24", dataplane.AS_NUMBER: text}
    assert existing(dataplane.node_of({"metadata": {"name": "x", "annotations": annotations}})).as_number == 0


@pytest.mark.parametrize(
    ("given", "tunnel", "expected"),
    [
        pytest.param({}, dataplane.VXLAN, 1450, id="what the outer interface carries"),
        pytest.param({"vxlanMTU": 1400}, dataplane.VXLAN, 1400, id="less, where FelixConfiguration says so"),
        pytest.param({"vxlanMTU": 9000}, dataplane.VXLAN, 1450, id="more is cut, as the kernel does"),
        pytest.param({"vxlanMTUV6": 9000}, dataplane.VXLAN6, 1430, id="IPv6"),
        pytest.param({"ipipMTU": 9000}, dataplane.IPIP, 9000, id="tunl0 has no outer interface"),
    ],
)
def test_the_mtu_of_a_tunnels_device(given, tunnel, expected):
    assert dataplane.Settings.of(given).mtu(tunnel, 1500) == expected
