"""Blocks: claimed, used up, borrowed from, given back; and that nothing is given twice."""

import ipaddress

import pytest

from kubewire.components.networks.calico.agent import release_node
from kubewire.components.networks.calico.plugin import block, ipam
from kubewire.components.networks.calico.plugin.selector import SelectorError, matches
from tests.components.networks.calico.store import Memory, node, pool


def assign(store, name="worker-1", handle="h", count=1, asked=()):
    pools = ipam.usable_pools(store, node(name), list(asked))
    return [ipam.assign(store, name, pools, f"{handle}-{number}", {"node": name}) for number in range(count)]


def given(store):
    return [address for one in store.list(ipam.BLOCKS) for address, _, _ in block.allocations(one)]


def test_addresses_come_in_order_out_of_one_block_of_the_node():
    store = Memory(ippools=[pool("10.244.0.0/16")])
    addresses = assign(store, count=3)
    (one,) = store.list(ipam.BLOCKS)
    first = int(ipaddress.ip_network(one["spec"]["cidr"])[0])
    assert [int(ipaddress.ip_address(address)) - first for address in addresses] == [0, 1, 2]
    (affinity,) = store.list(ipam.AFFINITIES)
    assert affinity["spec"] == {
        "cidr": one["spec"]["cidr"],
        "node": "worker-1",
        "state": "confirmed",
        "deleted": "false",
        "type": "host",
    }
    assert block.host(one) == "worker-1"


def test_what_is_freed_is_the_last_to_be_given_again():
    store = Memory(ippools=[pool("10.244.0.0/26")])
    first, second = assign(store, count=2)
    assert ipam.release(store, "h-0") == [first]
    later = assign(store, handle="later", count=62)
    assert first not in later and second not in later
    assert assign(store, handle="last") == [first]


def test_nodes_have_blocks_of_their_own_and_a_full_one_brings_the_next():
    store = Memory(ippools=[pool("10.244.0.0/24")])
    assign(store, "worker-1", count=65)
    assign(store, "worker-2", "two", count=1)
    owners = sorted(block.host(one) for one in store.list(ipam.BLOCKS))
    assert owners == ["worker-1", "worker-1", "worker-2"]
    assert len(set(given(store))) == 66


def test_without_a_free_block_single_addresses_are_borrowed_until_none_is_left():
    store = Memory(ippools=[pool("10.244.0.0/25")])
    assign(store, "worker-1", "one")
    assign(store, "worker-2", "two")
    borrowed = assign(store, "worker-3", "three", count=126)
    assert len(set(given(store))) == 128
    assert {block.host(one) for one in store.list(ipam.BLOCKS)} == {"worker-1", "worker-2"}
    assert len(borrowed) == 126
    with pytest.raises(ipam.NoAddress, match=r"No IPs available in pools: \[10.244.0.0/25\]"):
        assign(store, "worker-3", "four")


def test_strict_affinity_borrows_nothing():
    config = {"metadata": {"name": "default"}, "spec": {"strictAffinity": True, "autoAllocateBlocks": True}}
    store = Memory(ippools=[pool("10.244.0.0/26")], ipamconfigs=[config])
    assign(store, "worker-1")
    with pytest.raises(ipam.NoAddress, match="No more free affine blocks and strict affinity enabled"):
        assign(store, "worker-2")


def test_more_blocks_than_allowed_are_not_claimed():
    config = {
        "metadata": {"name": "default"},
        "spec": {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 1},
    }
    store = Memory(ippools=[pool("10.244.0.0/24")], ipamconfigs=[config])
    assign(store, count=64)
    with pytest.raises(ipam.NoAddress):
        assign(store, handle="next")


def test_who_loses_the_race_for_an_address_takes_another():
    store = Memory(ippools=[pool("10.244.0.0/26")])
    assign(store, handle="first")
    store.before_update = lambda: assign(store, handle="quicker")
    (address,) = assign(store, handle="slower")
    assert sorted(given(store)) == ["10.244.0.0", "10.244.0.1", "10.244.0.2"]
    assert address == "10.244.0.2"
    assert ipam.release(store, "slower-0") == ["10.244.0.2"]


def test_who_loses_the_race_for_a_block_takes_another(monkeypatch):
    store = Memory(ippools=[pool("10.244.0.0/24")])
    wanted = next(block.candidates("10.244.0.0/24", 26, "worker-1"))
    create = store.create

    def stolen(kind, obj):
        if kind == ipam.BLOCKS and obj["spec"]["cidr"] == wanted and block.host(obj) == "worker-1":
            create(kind, block.new(wanted, "worker-2"))
        return create(kind, obj)

    monkeypatch.setattr(store, "create", stolen)
    (address,) = assign(store)
    assert not block.contains(wanted, address)
    assert [one["spec"]["node"] for one in store.list(ipam.AFFINITIES)] == ["worker-1"]


def test_release_of_what_is_not_there_is_fine_and_leaves_no_handle():
    store = Memory(ippools=[pool("10.244.0.0/26")])
    assert ipam.release(store, "k8s-pod-network.nobody") == []
    assign(store)
    ipam.release(store, "h-0")
    assert store.list(ipam.HANDLES) == []
    assert ipam.release(store, "h-0") == []


def test_pools_are_for_nodes_and_uses():
    pools = [
        pool("10.1.0.0/24", "racks", nodeSelector="rack == 'a'"),
        pool("10.2.0.0/24", "all"),
        pool("10.3.0.0/24", "off", disabled=True),
        pool("10.4.0.0/24", "tunnels", allowedUses=["Tunnel"]),
    ]
    store = Memory(ippools=pools)
    names = lambda *args: [one["metadata"]["name"] for one in ipam.usable_pools(store, *args)]  # noqa: E731
    assert names(node("n", rack="a"), []) == ["racks", "all"]
    assert names(node("n", rack="b"), []) == ["all"]
    assert names(node("n", rack="b"), ["racks"]) == ["racks"]
    assert names(node("n"), [], "Tunnel") == ["all", "tunnels"]
    with pytest.raises(ipam.NoAddress, match="no configured Calico pools for node n"):
        names(node("n"), ["off"])


def test_an_address_that_is_asked_for_is_given_once():
    store = Memory(ippools=[pool("10.244.0.0/24")])
    ipam.assign_this(store, "worker-1", "10.244.0.77", "mine", {})
    assert given(store) == ["10.244.0.77"]
    with pytest.raises(ipam.NoAddress, match="already assigned"):
        ipam.assign_this(store, "worker-1", "10.244.0.77", "theirs", {})
    with pytest.raises(ipam.NoAddress, match="not in a configured pool"):
        ipam.assign_this(store, "worker-1", "192.0.2.1", "x", {})


def test_a_node_that_is_gone_gives_everything_back():
    store = Memory(ippools=[pool("10.244.0.0/25")])
    assign(store, "worker-1", "one", count=2)
    assign(store, "worker-2", "two", count=64)
    borrowed = assign(store, "worker-2", "borrowed", count=1)
    release_node(store, "worker-2")
    assert len(given(store)) == 2 and borrowed[0] not in given(store)
    assert [block.host(one) for one in store.list(ipam.BLOCKS)] == ["worker-1"]
    assert [one["spec"]["node"] for one in store.list(ipam.AFFINITIES)] == ["worker-1"]
    assert len(assign(store, "worker-3", "three", count=64)) == 64


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("all()", {}, True),
        ("", {}, True),
        ("rack == 'a'", {"rack": "a"}, True),
        ('rack == "a" && has(zone)', {"rack": "a"}, False),
        ("rack != 'a'", {}, True),
        ("zone in {'x', 'y'}", {"zone": "y"}, True),
        ("zone not in {'x', 'y'}", {"zone": "y"}, False),
        ("!has(node-role.kubernetes.io/control-plane)", {}, True),
    ],
)
def test_selectors(selector, labels, expected):
    assert matches(selector, labels) is expected


def test_a_selector_that_is_none_is_named():
    with pytest.raises(SelectorError, match="invalid selector \"rack = 'a'\""):
        matches("rack = 'a'", {})


def test_nodes_begin_at_different_blocks():
    starts = {next(block.candidates("10.244.0.0/16", 26, f"worker-{number}")) for number in range(20)}
    assert len(starts) >= 18
    assert len(set(block.candidates("10.244.0.0/16", 26, "n"))) == 1024


def test_an_ipv6_pool_has_blocks_of_64_addresses_too_and_more_of_them_than_can_be_looked_through():
    store = Memory(ippools=[pool("fd00:10:244::/56", "six", blockSize=122), pool("10.244.0.0/16")])
    six = ipam.usable_pools(store, node("worker-1"), [], version=6)
    assert [one["metadata"]["name"] for one in six] == ["six"]
    addresses = [ipam.assign(store, "worker-1", six, f"h-{number}", {"node": "worker-1"}) for number in range(65)]
    assert len(set(addresses)) == 65
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network("fd00:10:244::/56") for one in addresses)
    assert len(store.list(ipam.BLOCKS)) == 2
    assert ipam.release(store, "h-3") == [addresses[3]]


def test_addresses_of_an_ipv6_block_are_borrowed_when_the_pool_is_one_block():
    store = Memory(ippools=[pool("fd00:10:244::/122", "six", blockSize=122)])
    six = ipam.usable_pools(store, node("worker-1"), [], version=6)
    first = ipam.assign(store, "worker-1", six, "one", {"node": "worker-1"})
    second = ipam.assign(store, "worker-2", six, "two", {"node": "worker-2"})
    assert (first, second) == ("fd00:10:244::", "fd00:10:244::1")
