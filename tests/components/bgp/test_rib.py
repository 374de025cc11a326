"""RFC 4271, 9.1 with multipath: which routes are used."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from kubewire.components.bgp.rib import AdjRibIn, Route, next_hops, select

PREFIX = ip_network("172.30.0.0/16")
A = Route(PREFIX, "10.0.1.2", "10.0.1.2", as_path=(65001,))
B = Route(PREFIX, "10.0.2.2", "10.0.2.2", as_path=(65001,))


@pytest.mark.parametrize(
    ("other", "used"),
    [
        pytest.param(B, [A, B], id="equal routes are used together"),
        pytest.param(replace(B, local_pref=200), ["B"], id="the higher local preference alone"),
        pytest.param(replace(B, as_path=(65001, 65002)), [A], id="the shorter AS path"),
        pytest.param(replace(B, origin=2), [A], id="the lower origin"),
        pytest.param(replace(B, med=5), [A], id="the lower MED of one neighbouring AS"),
        pytest.param(
            replace(B, med=5, as_path=(65002,)), [A, "B"], id="MED of different neighbouring ASes says nothing"
        ),
        pytest.param(replace(B, internal=True), [A], id="external before internal"),
    ],
)
def test_choice(other, used):
    expected = tuple(other if one == "B" else one for one in used)
    assert select([other, A], 16) == {PREFIX: expected}


def test_no_more_paths_than_asked_for():
    assert select([A, B], 1) == {PREFIX: (A,)}


def test_two_paths_by_one_router_are_one_next_hop():
    assert next_hops({PREFIX: (A, replace(B, next_hop=A.next_hop))}) == {PREFIX: ("10.0.1.2",)}


def test_a_lost_peer_takes_all_its_routes():
    rib = AdjRibIn()
    for route in (A, B):
        rib.learn(route)
    rib.forget(A.peer)
    assert list(rib.routes()) == [B]
    rib.withdraw(B.peer, PREFIX)
    assert list(rib.routes()) == []
