"""ipamd's warm pool: who gets which address, and how many more are wanted."""

import pytest

from kubewire.components.kernel.iproute import text
from kubewire.components.kernel.iptables import transaction
from kubewire.components.networks.aws_vpc_cni import dataplane
from kubewire.components.networks.aws_vpc_cni.environment import Configuration
from kubewire.components.networks.aws_vpc_cni.pool import COOLDOWN_S, Assignment, Eni, NoAddress, Pool, Targets


def pool(environment=None, enis=3, slots=5, held=(5,)):
    one = Pool(Targets.of(environment or {}), enis, slots)
    for index, count in enumerate(held):
        addresses = [f"10.0.{index}.{number}" for number in range(10, 10 + count)]
        one.enis[f"eni-{index}"] = Eni(
            f"eni-{index}", index, f"02:{index}", f"10.0.{index}.4", "10.0.0.0/16", addresses
        )
    return one


def use(one, count, now=0.0):
    return [one.assign(f"s{number}", now).address for number in range(count)]


def test_addresses_of_the_first_interface_come_first_and_a_sandbox_keeps_its_own():
    one = pool(held=(2, 2))
    assert use(one, 3) == ["10.0.0.10", "10.0.0.11", "10.0.1.10"]
    assert one.assign("s0", 5.0).address == "10.0.0.10"


def test_a_released_address_rests():
    one = pool(held=(1,))
    use(one, 1)
    assert one.release("s0", now=100.0).address == "10.0.0.10"
    assert one.release("s0", now=101.0) is None
    with pytest.raises(NoAddress):
        one.assign("next", now=100.0 + COOLDOWN_S - 1)
    assert one.assign("next", now=100.0 + COOLDOWN_S).address == "10.0.0.10"


@pytest.mark.parametrize(
    ("environment", "held", "used", "more"),
    [
        ({}, (5,), 0, False),
        ({}, (5,), 1, True),  # less than a whole interface is free
        ({}, (5, 5), 5, False),
        ({"WARM_ENI_TARGET": "2"}, (5, 5), 1, True),
        ({"WARM_IP_TARGET": "2"}, (5,), 3, False),
        ({"WARM_IP_TARGET": "2"}, (5,), 4, True),
        ({"WARM_IP_TARGET": "1", "MINIMUM_IP_TARGET": "8"}, (5,), 0, True),
    ],
)
def test_when_more_is_wanted(environment, held, used, more):
    one = pool(environment, held=held)
    use(one, used)
    assert one.wants_more() is more


def test_how_many_are_asked_for():
    assert pool().ask(5) == 5
    assert pool({"WARM_IP_TARGET": "3"}, held=(0,)).ask(5) == 3
    assert pool({"MINIMUM_IP_TARGET": "40", "ENABLE_PREFIX_DELEGATION": "true"}, held=(0,)).ask(5) == 3
    assert pool({"ENABLE_PREFIX_DELEGATION": "true"}, held=(0,)).ask(5) == 1


def test_with_a_target_of_addresses_the_rest_goes_back_from_the_last_interface():
    one = pool({"WARM_IP_TARGET": "1"}, held=(5, 5))
    use(one, 2)
    assert [(eni.index, addresses) for eni, addresses in one.surplus_addresses(100.0)] == [
        (1, ["10.0.1.10", "10.0.1.11", "10.0.1.12", "10.0.1.13", "10.0.1.14"]),
        (0, ["10.0.0.13", "10.0.0.14"]),
    ]
    assert pool(held=(5, 5)).surplus_addresses(100.0) == []


def test_an_interface_without_pods_goes_when_the_others_are_enough():
    one = pool(held=(5, 5, 5))
    use(one, 1)
    assert one.surplus_eni(100.0).index == 2
    assert pool(held=(5, 5)).surplus_eni(0.0).index == 1
    busy = pool(held=(5, 5))
    use(busy, 1)
    assert busy.surplus_eni(100.0) is None


def test_what_a_restarted_daemon_still_finds():
    one = pool(held=(2,))
    saved = [Assignment("10.0.0.11", 0, "old"), Assignment("10.9.9.9", 1, "gone")]
    assert [held.sandbox for held in one.restore(saved)] == ["old"]
    assert one.assign("new", 0.0).address == "10.0.0.10"


def test_rooms_and_numbers_of_interfaces():
    one = pool(held=(5, 3))
    assert [(eni.index, places) for eni, places in one.room()] == [(1, 2)]
    assert (one.can_attach(), one.next_index()) == (True, 2)
    assert (one.enis["eni-0"].table, one.enis["eni-1"].table) == (254, 2)


def test_the_chains_are_upstreams(golden):
    golden(
        "aws_vpc_cni/nat.txt", transaction(dataplane.rules("172.18.0.0/16", "172.18.0.3", "eth0", Configuration()), {})
    )
    assert "SNAT --to-source" not in transaction(
        dataplane.rules("172.18.0.0/16", "172.18.0.3", "eth0", Configuration(external_snat=True)), {}
    )


def test_the_rules_and_routes_of_a_secondary_interface_are_those_of_the_golden_file(golden):
    lines = [*dataplane.eni_setup(pool(held=(1, 1)).enis["eni-1"], 1500), dataplane.mark_rule()]
    golden("aws_vpc_cni/routes.txt", text(lines))
