"""Ranges that overlap or do not, and how much fits into them."""

import pytest

from kubewire.components.apiserver.kinds.services.service_allocation import address_pool
from kubewire.topologies.ranges import AddressPlan, PodRange, ServiceRange, overlaps, parse, parse_one


def plan(nodes="10.0.0.0/16", pods="10.244.0.0/16", services="10.96.0.0/12", **about):
    return AddressPlan(parse(nodes), parse(pods), parse(services), **about)


@pytest.mark.parametrize(
    ("ranges", "room"),
    [
        pytest.param(
            ("10.0.0.0/16", "10.244.0.0/16", "10.96.0.0/12"), [(256, 253)], id="kubeadm's with nodes in 10.0/16"
        ),
        pytest.param(("172.31.0.0/16", "192.168.0.0/16", "10.100.0.0/16"), [(256, 253)], id="AWS and Calico's pods"),
        pytest.param(
            ("192.168.0.0/24", "10.0.0.0/8", "172.20.0.0/16"), [(65536, 253)], id="a /24 of 10/8 for each node"
        ),
        pytest.param(("fc00::/64", "fd00::/48", "fd01::/108"), [(65536, 2**64 - 2)], id="IPv6"),
        pytest.param(
            ("fc00::/64,10.0.0.0/16", "fd00::/48,10.244.0.0/16", "fd01::/108,10.96.0.0/12"),
            [(65536, 2**64 - 2), (256, 253)],
            id="dual-stack",
        ),
    ],
)
def test_what_fits(ranges, room):
    found = plan(*ranges)
    assert (found.problems(), found.overlaps()) == ([], [])
    assert [(pods.parts, pods.pods_of_a_node) for pods in found.pod_ranges] == room


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        ({"pods": "10.244.0.0/24"}, "10.244.0.0/24 holds 1 parts of /24, but there are 4 nodes"),
        ({"pods": "10.244.0.0/25"}, "a node's part /24 does not fit in 10.244.0.0/25; allowed: /25 to /30"),
        ({"pods": "11.0.0.0/8", "masks": {4: 25}}, "a node's part /25 does not fit in 11.0.0.0/8; allowed: /8 to /24"),
        (
            {"masks": {4: 26}},
            "a node's part /26 has 61 addresses for pods, but up to 110 may come (maxPods); take /25 or lower",
        ),
        ({"services": "12.0.0.0/8"}, "Services 12.0.0.0/8: allowed masks are /12 to /28"),
        ({"services": "fd01::/64"}, "Services have an IPv6 range, but pods have none"),
        ({"nodes": "10.0.0.0/30", "node_count": 3}, "nodes 10.0.0.0/30 has 1 addresses besides its router's"),
        ({"nodes": "10.0.0.0/16,10.1.0.0/16"}, "nodes: two ranges of one IP family"),
        ({"node_count": 257}, "10.244.0.0/16 holds 256 parts of /24, but there are 257 nodes"),
    ],
)
def test_what_does_not(about, problem):
    assert [text for text in plan(**about).problems() if text.startswith(problem)]


def test_the_mask_that_is_proposed_is_the_longest_that_does():
    for pods in range(1, 300):
        (mask,) = {
            m
            for m in range(16, 31)
            if PodRange(parse_one("10.0.0.0/16"), m).pods_of_a_node >= pods
            and PodRange(parse_one("10.0.0.0/16"), m + 1).pods_of_a_node < pods
        }
        said = [text for text in plan(masks={4: 30}, max_pods=pods, node_count=1).problems() if "maxPods" in text]
        assert not said if mask == 30 else f"take /{mask} " in said[0]


@pytest.mark.parametrize(
    ("about", "pair", "common"),
    [
        ({"services": "10.0.128.0/20"}, ("nodes", "Services"), "10.0.128.0/20"),
        ({"pods": "10.0.0.0/8"}, ("nodes", "pods"), "10.0.0.0/16"),
        ({"pods": "10.96.0.0/16"}, ("pods", "Services"), "10.96.0.0/16"),
        ({"others": {"office": parse("10.244.16.0/20")}}, ("pods", "office"), "10.244.16.0/20"),
        ({"others": {"a": parse("192.168.0.0/16"), "b": parse("192.168.7.0/24")}}, ("a", "b"), "192.168.7.0/24"),
    ],
)
def test_an_overlap_is_named_with_what_becomes_of_the_packets(about, pair, common):
    found = next(one for one in plan(**about).overlaps() if one.names == pair)
    assert str(found.common) == common
    assert f" in {common}: " in str(found)
    assert found.consequence.split()[0] in ("a", "the", "nodes", "which")


def test_families_and_neighbours_do_not_overlap():
    assert list(overlaps({"a": parse("10.0.0.0/25,fd00::/64"), "b": parse("10.0.0.128/25,fd00:0:0:1::/64")})) == []


def test_parts_are_given_out_in_order():
    pods = PodRange(parse_one("10.244.0.0/16"), 24)
    assert [str(pods.part(number)) for number in (0, 1, 255)] == ["10.244.0.0/24", "10.244.1.0/24", "10.244.255.0/24"]
    assert str(PodRange(parse_one("fd00::/48"), 64).part(65535)) == "fd00:0:0:ffff::/64"


@pytest.mark.parametrize(
    "cidr", ["10.96.0.0/12", "10.96.0.0/24", "10.96.0.0/28", "10.96.0.0/27", "fd01::/108", "fd01::/120"]
)
def test_services_are_counted_as_the_api_server_gives_them_out(cidr):
    services, pool = ServiceRange(parse_one(cidr)), address_pool(cidr)
    assert services.addresses == pool.last - pool.first + 1
    assert services.static_band == pool.upper - pool.first


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10.0.0.0/33", "is not an IP range"),
        ("ten", "is not an IP range"),
        ("10.0.0.1/8", "has host bits set; the range it lies in is 10.0.0.0/8"),
    ],
)
def test_what_is_no_range(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse(text)
