"""The VPC's books: limits, refusals, and that no address has two owners."""

import pytest

from kubewire.components.vpc import fabric
from kubewire.components.vpc.instances import LIMITS, max_pods
from kubewire.components.vpc.model import ANYWHERE, Refused, Rule, Subnet, Vpc

ROUTER = ("10.0.0.1", "02:00:00:00:00:fe", "router@seg")


def vpc(cidr="10.0.0.0/24", kind="t3.small"):
    one = Vpc("10.0.0.0/16", [Subnet("subnet-a", cidr, "seg", ROUTER)])
    one.create_group("nodes")
    one.authorize("nodes", Rule(ANYWHERE))
    instance = one.launch("worker-1", kind, "subnet-a", "10.0.0.5", "02:00:00:00:00:05", "w1@seg", "nodes")
    return one, instance, one.attached(instance.id)[0]


def refused(work, *arguments):
    with pytest.raises(Refused) as caught:
        work(*arguments)
    return caught.value.code


@pytest.mark.parametrize(
    ("kind", "pods", "with_prefixes"),
    [("t3.small", 11, 110), ("t3.medium", 17, 110), ("t3.nano", 4, 34), ("m5.large", 29, 110)],
)
def test_max_pods_of_a_type(kind, pods, with_prefixes):
    assert (max_pods(kind), max_pods(kind, prefixes=True)) == (pods, with_prefixes)


def test_five_addresses_of_a_subnet_are_not_to_be_had():
    empty = Vpc("10.0.0.0/16", [Subnet("subnet-a", "10.0.0.0/28", "seg", ROUTER)])
    empty.create_group("g")
    assert empty.free_addresses("subnet-a") == 11
    found = empty.create_interface("subnet-a", ["g"], secondary=10)
    assert list(found.addresses()) == [f"10.0.0.{number}" for number in range(4, 15)]
    assert refused(empty.create_interface, "subnet-a", ["g"]) == "InsufficientFreeAddressesInSubnet"


def test_an_instance_has_so_many_interfaces_with_so_many_addresses():
    one, instance, first = vpc()
    interfaces, addresses = LIMITS["t3.small"]
    assert len(one.assign(first.id, addresses - 1)) == 3
    assert refused(one.assign, first.id, 1) == "PrivateIpAddressLimitExceeded"
    for index in range(1, interfaces):
        one.attach(one.create_interface("subnet-a", ["nodes"]).id, instance.id, index)
    extra = one.create_interface("subnet-a", ["nodes"])
    assert refused(one.attach, extra.id, instance.id, 3) == "AttachmentLimitExceeded"
    too_large = one.create_interface("subnet-a", ["nodes"], secondary=5)
    one.detach(one.attached(instance.id)[-1].id)
    assert refused(one.attach, too_large.id, instance.id, 2) == "PrivateIpAddressLimitExceeded"


def test_a_refused_interface_takes_no_address():
    one, _, _ = vpc("10.0.0.0/28")
    before = one.free_addresses("subnet-a")
    assert refused(one.create_interface, "subnet-a", ["nodes"], 12) == "InsufficientFreeAddressesInSubnet"
    assert one.free_addresses("subnet-a") == before


def test_prefixes_take_places_of_addresses_and_must_be_free_as_a_whole():
    one, _, first = vpc("10.0.0.0/26")
    assert one.assign_prefixes(first.id, 2) == ["10.0.0.16/28", "10.0.0.32/28"]
    assert refused(one.assign_prefixes, first.id, 1) == "InsufficientCidrBlocks"
    assert len(list(first.addresses())) == 33
    one.unassign(first.id, [], ["10.0.0.16/28"])
    assert one.assign_prefixes(first.id, 1) == ["10.0.0.16/28"]


def test_everything_that_is_named_must_be_there():
    one, instance, first = vpc()
    assert refused(one.create_interface, "subnet-b", ["nodes"]) == "InvalidSubnetID.NotFound"
    assert refused(one.create_interface, "subnet-a", ["web"]) == "InvalidGroup.NotFound"
    assert refused(one.assign, "eni-0", 1) == "InvalidNetworkInterfaceID.NotFound"
    assert refused(one.detach, first.id) == "OperationNotPermitted"
    assert refused(one.unassign, first.id, ["10.0.0.9"]) == "InvalidParameterValue"
    assert refused(one.revoke, "nodes", Rule("10.0.0.0/8")) == "InvalidPermission.NotFound"
    assert one.instance_at("10.0.0.5") == instance


def test_what_the_switches_are_told(golden):
    one, instance, first = vpc()
    one.create_group("pods-sg")
    one.authorize("pods-sg", Rule("nodes", "tcp", (80, 90)))
    one.assign(first.id, 1)
    second = one.create_interface("subnet-a", ["pods-sg"], secondary=1)
    one.attach(second.id, instance.id, 1)
    second.port = "w1.1@seg"
    golden("vpc/rules.nft", fabric.rules(one))


def test_what_the_switches_answer_for_and_what_the_router_knows(golden):
    one, instance, _ = vpc()
    second = one.create_interface("subnet-a", ["nodes"], secondary=1)
    one.attach(second.id, instance.id, 1)
    second.port = "w1.1@seg"
    one.create_route("10.244.1.0/24", instance.id)
    nothing, before = fabric.Mapping(), fabric.mapping(one)
    there = fabric.difference(nothing, before)
    one.unassign(second.id, second.secondary[:])
    fewer = fabric.difference(before, fabric.mapping(one))
    parts = {
        "from nothing: neighbours": there[0],
        "from nothing: FDB": there[1],
        "an address less": "".join(fewer),
        "the router": fabric.routes(one),
    }
    golden("vpc/mapping.txt", "".join(f"# {title}\n{text}" for title, text in parts.items()))
