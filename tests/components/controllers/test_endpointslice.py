"""What a Service's endpoints are, and how few writes lead there."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.actions import Create, Delete, Update
from kubewire.components.controllers.endpoints.controller import is_left_over
from kubewire.components.controllers.endpoints.plan import OVER_CAPACITY, plan, subsets
from kubewire.components.controllers.endpointslice.controller import shape_of
from kubewire.components.controllers.endpointslice.desired import desired_groups
from kubewire.components.controllers.endpointslice.mirroring import is_mirrored, mirrored_groups
from kubewire.components.controllers.endpointslice.reconcile import TRIGGER_TIME, plan_slices
from kubewire.components.controllers.endpointslice.triggertime import observe, trigger_time
from tests.components.controllers.objects import at, node, pod, service, stamp

NODES: Any = {name: node(name, labels={"topology.kubernetes.io/zone": f"zone-{name}"}) for name in ("node-1", "node-2")}


def endpoints_of(svc, *pods, nodes=NODES):
    return [item for group in desired_groups(svc, pods, nodes) for item in group.endpoints]


@pytest.mark.parametrize(
    ("given", "publish", "ready", "serving", "terminating"),
    [
        ({}, False, True, True, False),
        ({"ready": False}, False, False, False, False),
        ({"deleting": True}, False, False, True, True),
        ({"deleting": True, "ready": False}, False, False, False, True),
        ({"ready": False}, True, True, False, False),
        ({"deleting": True}, True, True, True, True),
    ],
)
def test_conditions_of_an_endpoint(given, publish, ready, serving, terminating):
    (endpoint,) = endpoints_of(service(publishNotReadyAddresses=publish), pod("p", ip="10.244.1.2", **given))
    assert endpoint["conditions"] == {"ready": ready, "serving": serving, "terminating": terminating}


def test_an_endpoint_names_pod_node_and_zone():
    (endpoint,) = endpoints_of(service(), pod("p", ip="10.244.1.2", node="node-2"))
    assert endpoint["targetRef"] == {"kind": "Pod", "namespace": "default", "name": "p", "uid": "uid-p"}
    assert (endpoint["nodeName"], endpoint["zone"]) == ("node-2", "zone-node-2")
    assert "hostname" not in endpoint


@pytest.mark.parametrize(("subdomain", "named"), [("web", True), ("other", False)])
def test_the_host_name_counts_under_the_pods_own_subdomain_only(subdomain, named):
    (endpoint,) = endpoints_of(service(), pod("p", ip="10.0.0.1", spec={"hostname": "h", "subdomain": subdomain}))
    assert (endpoint.get("hostname") == "h") is named


@pytest.mark.parametrize("given", [{"phase": "Succeeded", "ip": "10.0.0.1"}, {"phase": "Failed", "ip": "10.0.0.1"}, {}])
def test_pods_that_ended_or_have_no_address_are_no_endpoints(given):
    assert endpoints_of(service(), pod("p", **given)) == []


def test_a_pod_on_a_node_that_is_gone_counts_only_when_everything_is_published():
    lost = pod("p", ip="10.0.0.1", node="gone")
    assert endpoints_of(service(), lost) == []
    assert len(endpoints_of(service(publishNotReadyAddresses=True), lost)) == 1


def named_port(number):
    return {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": number, "protocol": "TCP"}]}]}


def test_a_named_target_port_is_resolved_pod_by_pod_into_several_slices():
    svc = service(ports=[{"name": "x", "port": 80, "targetPort": "http", "protocol": "TCP"}])
    pods = [pod("a", ip="10.0.0.1", spec=named_port(8080)), pod("b", ip="10.0.0.2", spec=named_port(9090))]
    groups = desired_groups(svc, pods, NODES)
    assert sorted(group.ports[0]["port"] for group in groups) == [8080, 9090]


def test_dual_stack_gives_each_family_its_slices():
    svc = service(ipFamilies=["IPv4", "IPv6"])
    groups = desired_groups(svc, [pod("a", ip=["10.0.0.1", "fd00::1"])], NODES)
    assert [(g.address_type, g.endpoints[0]["addresses"]) for g in groups] == [
        ("IPv4", ["10.0.0.1"]),
        ("IPv6", ["fd00::1"]),
    ]


def test_traffic_distribution_gives_zone_and_node_hints():
    near = service(trafficDistribution="PreferSameZone")
    (endpoint,) = endpoints_of(near, pod("a", ip="10.0.0.1"))
    assert endpoint["hints"] == {"forZones": [{"name": "zone-node-1"}]}
    (endpoint,) = endpoints_of(service(trafficDistribution="PreferSameNode"), pod("a", ip="10.0.0.1"))
    assert endpoint["hints"]["forNodes"] == [{"name": "node-1"}]


class Slices:
    """The slices there are; step() writes what the plan says and returns it."""

    def __init__(self, svc=None):
        self.service = svc or service()
        self.found = {}

    def step(self, pods, limit=100):
        shape = shape_of(self.service, limit, stamp())
        groups = desired_groups(self.service, pods, NODES)
        actions = plan_slices(shape, list(self.found.values()), groups, self.service["spec"]["ipFamilies"])
        for action in actions:
            if isinstance(action, Create):
                name = f"web-{len(self.found)}-{id(action)}"
                metadata = action.obj["metadata"] | {"name": name, "uid": name, "resourceVersion": "1"}
                self.found[name] = {**action.obj, "metadata": metadata}
            elif isinstance(action, Update):
                self.found[action.obj["metadata"]["name"]] = action.obj
            elif isinstance(action, Delete):
                del self.found[action.name]
        return [type(action).__name__ for action in actions]

    def sizes(self):
        return sorted(len(item["endpoints"]) for item in self.found.values())

    def addresses(self):
        return sorted(e["addresses"][0] for item in self.found.values() for e in item["endpoints"])


def pods_of(numbers, **given):
    return [pod(f"p{n:03}", ip=f"10.1.{n // 250}.{n % 250 + 1}", **given) for n in numbers]


def test_labels_annotations_and_owner_of_a_slice():
    slices = Slices(service(clusterIP="None"))
    slices.step(pods_of(range(1)))
    (one,) = slices.found.values()
    assert one["metadata"]["labels"] == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }
    assert one["metadata"]["annotations"][TRIGGER_TIME] == stamp()
    assert one["metadata"]["generateName"] == "web-"
    assert one["metadata"]["ownerReferences"][0]["controller"] is True


def test_a_service_without_pods_has_an_empty_slice_that_is_reused():
    slices = Slices()
    assert slices.step([]) == ["Create"]
    assert slices.sizes() == [0]
    assert slices.step([]) == []
    assert slices.step(pods_of(range(2))) == ["Update"]
    assert slices.step([]) == ["Update"]
    assert slices.sizes() == [0]


def test_250_pods_fill_three_slices_and_nothing_is_written_twice():
    slices = Slices()
    slices.step(pods_of(range(250)))
    assert slices.sizes() == [50, 100, 100]
    assert slices.step(pods_of(range(250))) == []


def test_one_pod_more_or_less_changes_one_slice():
    slices = Slices()
    slices.step(pods_of(range(250)))
    assert slices.step(pods_of(range(251))) == ["Update"]
    assert slices.step(pods_of(range(1, 251))) == ["Update"]
    assert slices.addresses() == sorted(p["status"]["podIP"] for p in pods_of(range(1, 251)))


def test_gaps_in_a_slice_that_changes_are_filled_before_a_new_slice_is_made():
    slices = Slices()
    slices.step(pods_of(range(100)))
    assert slices.step(pods_of(range(10, 110))) == ["Update"]
    assert slices.sizes() == [100]


def test_readiness_is_changed_in_place():
    slices = Slices()
    slices.step(pods_of(range(3)))
    before = [e["addresses"] for s in slices.found.values() for e in s["endpoints"]]
    assert slices.step(pods_of(range(3), ready=False)) == ["Update"]
    assert [e["addresses"] for s in slices.found.values() for e in s["endpoints"]] == before


def test_another_port_reuses_the_slice():
    slices = Slices()
    slices.step(pods_of(range(3)))
    slices.service["spec"]["ports"][0]["targetPort"] = 9090
    assert slices.step(pods_of(range(3))) == ["Update"]


def test_the_trigger_time_is_the_earliest_change_since_the_last_sync():
    svc = service()
    first = observe(svc, pods_of(range(2)))
    assert trigger_time(None, first) == stamp()
    assert trigger_time(first, first) is None
    later = observe(svc, [*pods_of([0], ready_since=at(9)), *pods_of([1], ready_since=at(5))])
    assert trigger_time(first, later) == stamp(at(5))


def test_endpoints_group_addresses_by_ports_sorted():
    pods = [*pods_of([2, 1]), *pods_of([3], ready=False)]
    (subset,), truncated = subsets(service(), pods)
    assert [item["ip"] for item in subset["addresses"]] == ["10.1.0.2", "10.1.0.3"]
    assert [item["ip"] for item in subset["notReadyAddresses"]] == ["10.1.0.4"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert not truncated


def test_terminating_pods_are_no_legacy_endpoints():
    assert subsets(service(), pods_of([1], deleting=True)) == ([], False)
    assert len(subsets(service(publishNotReadyAddresses=True), pods_of([1], deleting=True))[0]) == 1


def test_more_than_1000_addresses_are_cut_and_marked():
    (action,) = plan(service(), pods_of(range(1200)), None, None)
    assert isinstance(action, Create)
    assert len(action.obj["subsets"][0]["addresses"]) == 1000
    assert action.obj["metadata"]["annotations"][OVER_CAPACITY] == "truncated"


def test_ready_addresses_go_first_when_not_all_fit():
    pods = [*pods_of(range(600)), *pods_of(range(600, 1300), ready=False)]
    (action,) = plan(service(), pods, None, None)
    assert isinstance(action, Create)
    (subset,) = action.obj["subsets"]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (600, 400)


def test_endpoints_that_are_right_are_left_alone():
    (action,) = plan(service(), pods_of(range(3)), None, stamp())
    assert isinstance(action, Create)
    made: Any = action.obj
    assert made["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"] == "endpoint-controller"
    assert plan(service(), pods_of(range(3)), made, None) == ()
    (update,) = plan(service(), pods_of(range(2)), made, None)
    assert isinstance(update, Update)


def hand_made(**metadata):
    ports = [{"name": "p", "port": 80}]
    ready, unready = [{"ip": "203.0.113.1"}, {"ip": "fd00::1"}], [{"ip": "203.0.113.2"}]
    subset = {"addresses": ready, "notReadyAddresses": unready, "ports": ports}
    return {"metadata": {"name": "web", "namespace": "default", **metadata}, "subsets": [subset]}


def test_mirrored_slices_split_by_family_and_keep_readiness():
    four, six = mirrored_groups(hand_made())
    assert [(e["addresses"][0], e["conditions"]["ready"]) for e in four.endpoints] == [
        ("203.0.113.1", True),
        ("203.0.113.2", False),
    ]
    assert six.endpoints[0]["addresses"] == ["fd00::1"]


@pytest.mark.parametrize(
    ("metadata", "svc", "expected"),
    [
        ({}, service(selector=None), True),
        ({}, service(), False),
        ({}, None, False),
        ({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}, service(selector=None), False),
        ({"annotations": {"control-plane.alpha.kubernetes.io/leader": "x"}}, service(selector=None), False),
    ],
)
def test_what_is_mirrored(metadata, svc, expected):
    assert is_mirrored(hand_made(**metadata), svc) is expected


def test_of_hand_made_endpoints_a_thousand_addresses_per_subset_are_mirrored():
    ready = [{"ip": f"10.1.{n // 250}.{n % 250 + 1}"} for n in range(990)]
    unready = [{"ip": f"10.2.0.{n + 1}"} for n in range(20)]
    endpoints = hand_made()
    endpoints["subsets"] = [{"addresses": ready, "notReadyAddresses": unready, "ports": [{"port": 80}]}]
    (group,) = mirrored_groups(endpoints)
    assert len(group.endpoints) == 1000
    assert sum(not endpoint["conditions"]["ready"] for endpoint in group.endpoints) == 10


@pytest.mark.parametrize(
    ("labels", "deleted", "goes"),
    [
        pytest.param({}, False, False, id="written by hand"),
        pytest.param({}, True, True, id="its Service was deleted"),
        pytest.param({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}, False, True, id="left over"),
    ],
)
def test_endpoints_without_a_service(labels, deleted, goes):
    endpoints: Any = {"kind": "Endpoints", "metadata": {"name": "e", "namespace": "default", "labels": labels}}
    assert is_left_over(endpoints, deleted=deleted) is goes
