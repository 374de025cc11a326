"""topology-mode: Auto: who gets which zone's endpoints, when nobody gets any, and what is said about it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubewire.components.controllers.actions import Create, Update
from kubewire.components.controllers.endpointslice.controller import shape_of
from kubewire.components.controllers.endpointslice.desired import desired_groups
from kubewire.components.controllers.endpointslice.reconcile import plan_slices
from kubewire.components.controllers.endpointslice.zonehints import (
    AutoHints,
    NoHints,
    Share,
    cpu_ratios,
    is_auto,
    is_overloaded,
    shares,
)
from tests.components.controllers.objects import node, pod, service

ZONE = "topology.kubernetes.io/zone"
HALVES: Any = {"a": 0.5, "b": 0.5}


def zoned(name: str, zone: str, cpu: str = "4", **given: Any) -> Any:
    labels = {ZONE: zone} if zone else {}
    return node(name, labels=labels | given.pop("labels", {}), allocatable={"cpu": cpu}, **given)


@pytest.mark.parametrize(
    ("nodes", "ratios"),
    [
        pytest.param([zoned("1", "a"), zoned("2", "b", "12")], {"a": 0.25, "b": 0.75}, id="by allocatable CPU"),
        pytest.param([zoned("1", "a", "500m"), zoned("2", "b", "1500m")], {"a": 0.25, "b": 0.75}, id="in millicores"),
        pytest.param(
            [zoned("1", "a"), zoned("2", "b"), zoned("3", "b", ready="False")], HALVES, id="nodes that are not ready do not count"
        ),
        pytest.param(
            [zoned("1", "a"), zoned("2", "b"), zoned("3", "", labels={"node-role.kubernetes.io/control-plane": ""})],
            HALVES,
            id="nor does the control plane",
        ),
        pytest.param([zoned("1", "a"), zoned("2", "b"), zoned("3", "")], None, id="one node without a zone spoils all"),
        pytest.param([zoned("1", "a"), zoned("2", "b", "0")], None, id="so does one without CPU"),
        pytest.param([zoned("1", "a"), zoned("2", "a")], None, id="one zone is none"),
    ],
)  # fmt: skip
def test_a_zones_part_is_its_cpu(nodes, ratios):
    assert cpu_ratios(nodes) == ratios


def test_shares_leave_room_below_the_overload_threshold():
    # 3 of 4 CPUs: 7.5 of 10 endpoints; at least 7.5 / 1.2, rounded up.
    assert shares({"a": 0.25, "b": 0.75}, 10) == {"a": Share(3, 3, 3.0), "b": Share(7, 7, 7.5)}
    assert shares(HALVES, 12) == {"a": Share(5, 7, 6.0), "b": Share(5, 7, 6.0)}


@pytest.mark.parametrize(
    ("ratios", "count", "why"),
    [
        (None, 9, "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"),
        (HALVES, 1, "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        ({"a": 0.5, "b": 0.25, "c": 0.25}, 3,
         "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold "
         "(3 endpoints, 3 zones)"),
    ],
)  # fmt: skip
def test_where_no_division_is_fair_there_are_no_hints(ratios, count, why):
    with pytest.raises(NoHints) as raised:
        shares(ratios, count)
    assert str(raised.value) == why


@pytest.mark.parametrize(
    ("allocated", "ratios", "overloaded"),
    [
        ({"a": 5, "b": 5}, HALVES, False),
        ({"a": 5, "b": 5}, {"a": 0.6, "b": 0.4}, False),
        ({"a": 5, "b": 5}, {"a": 0.61, "b": 0.39}, True),
        ({"a": 5, "b": 5}, {"a": 0.5, "c": 0.5}, True),
        ({"a": 5}, None, True),
        ({}, None, False),
    ],
)
def test_hints_are_looked_at_anew_when_the_nodes_would_overload_a_zone(allocated, ratios, overloaded):
    assert is_overloaded(allocated, ratios) is overloaded


def auto_service(**spec: Any) -> Any:
    svc = service(**spec)
    svc["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    return svc


def test_the_older_annotation_counts_where_the_newer_is_not_set():
    svc = service()
    svc["metadata"]["annotations"] = {"service.kubernetes.io/topology-aware-hints": "auto"}
    assert is_auto(svc)
    svc["metadata"]["annotations"]["service.kubernetes.io/topology-mode"] = "Disabled"
    assert not is_auto(svc)


NODES: Any = {name: zoned(name, zone) for name, zone in (("node-a", "a"), ("node-b", "b"))}


def pods(a: int, b: int, **given: Any) -> list[Any]:
    where = [("node-a", number) for number in range(a)] + [("node-b", number) for number in range(b)]
    return [pod(f"{on}-{n}", ip=f"10.244.{int(on[-1], 16)}.{n + 2}", node=on, **given) for on, n in where]


def synced(
    svc: Any,
    given: list[Any],
    existing: list[Any],
    auto: AutoHints | None,
    size: int = 100,
) -> list[Any]:
    """The slices after the plan is carried out."""
    groups = desired_groups(svc, given, NODES, hints=auto is None)
    slices: dict[str, Any] = {item["metadata"]["name"]: item for item in copy.deepcopy(existing)}
    for number, action in enumerate(plan_slices(shape_of(svc, size, None), existing, groups, ["IPv4"], auto)):
        assert isinstance(action, Create | Update)
        name = action.obj["metadata"].setdefault("name", f"new-{len(slices)}-{number}")
        slices[name] = copy.deepcopy(action.obj)
    return list(slices.values())


def hints(slices: list[dict[str, Any]]) -> dict[str, int]:
    """`HOME->FOR`: how many."""
    found: dict[str, int] = {}
    for one in slices:
        for endpoint in one["endpoints"]:
            zones = ",".join(hint["name"] for hint in endpoint.get("hints", {}).get("forZones", ()))
            key = f"{endpoint['zone']}->{zones}"
            found[key] = found.get(key, 0) + 1
    return found


def test_endpoints_stay_at_home_where_that_is_fair_and_move_where_it_is_not():
    auto = AutoHints(HALVES, False)
    assert hints(synced(auto_service(), pods(3, 3), [], auto)) == {"a->a": 3, "b->b": 3}
    assert auto.events == [
        ("Normal", "TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled, addressType: IPv4")
    ]
    assert auto.allocated == {"IPv4": {"a": 3, "b": 3}}
    auto = AutoHints(HALVES, True)
    assert hints(synced(auto_service(), pods(5, 1), [], auto)) == {"a->a": 3, "a->b": 2, "b->b": 1}
    assert (auto.events, auto.allocated) == ([], {"IPv4": {"a": 3, "b": 3}})


def test_endpoints_that_are_not_ready_have_no_hint_and_no_part():
    given = [*pods(2, 2), pod("node-a-9", ip="10.244.10.99", node="node-a", ready=False)]
    assert hints(synced(auto_service(), given, [], AutoHints(HALVES, True))) == {"a->a": 2, "b->b": 2, "a->": 1}


def test_too_few_endpoints_take_the_hints_away_again_and_say_so():
    slices = synced(auto_service(), pods(3, 3), [], AutoHints(HALVES, False))
    auto = AutoHints(HALVES, True)
    after = synced(auto_service(), pods(1, 0), slices, auto)
    assert hints(after) == {"a->": 1}
    assert auto.events == [
        ("Warning", "TopologyAwareHintsDisabled", "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4")
    ]  # fmt: skip
    assert auto.allocated == {}


def test_slices_that_need_no_change_are_left_alone_and_their_hints_count():
    svc, slices = auto_service(), synced(auto_service(), pods(3, 3), [], AutoHints(HALVES, False), size=6)
    groups = desired_groups(svc, pods(3, 3), NODES, hints=False)
    assert plan_slices(shape_of(svc, 6, None), slices, groups, ["IPv4"], AutoHints(HALVES, True)) == ()
    actions = plan_slices(
        shape_of(svc, 6, None),
        slices,
        desired_groups(svc, pods(4, 3), NODES, hints=False),
        ["IPv4"],
        AutoHints(HALVES, True),
    )
    assert [type(action) for action in actions] == [Create]


def test_other_cpu_shares_move_hints_in_slices_that_stood():
    slices = synced(auto_service(), pods(4, 4), [], AutoHints(HALVES, False))
    moved = hints(synced(auto_service(), pods(4, 4), slices, AutoHints({"a": 0.75, "b": 0.25}, True)))
    assert moved == {"a->a": 4, "b->a": 2, "b->b": 2}


def test_without_the_annotation_the_hints_go_and_traffic_distribution_takes_over():
    slices = synced(auto_service(), pods(5, 1), [], AutoHints(HALVES, False))
    assert hints(synced(service(), pods(5, 1), slices, None)) == {"a->": 5, "b->": 1}
    preferring = service(trafficDistribution="PreferSameZone")
    assert hints(synced(preferring, pods(5, 1), slices, None)) == {"a->a": 5, "b->b": 1}


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        ("PreferClose", {"forZones": [{"name": "a"}]}),
        ("PreferSameZone", {"forZones": [{"name": "a"}]}),
        ("PreferSameNode", {"forZones": [{"name": "a"}], "forNodes": [{"name": "node-a"}]}),
        (None, None),
    ],
)
def test_traffic_distribution_hints_ready_endpoints_only(preference, expected):
    given = [*pods(1, 0), pod("late", ip="10.244.1.9", node="node-a", ready=False)]
    (one,) = synced(service(trafficDistribution=preference), given, [], None)
    by_pod = {endpoint["targetRef"]["name"]: endpoint.get("hints") for endpoint in one["endpoints"]}
    assert by_pod == {"node-a-0": expected, "late": None}
