"""Which node a pod gets, or why it gets none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from kubewire.components.kubeapi.podneeds import total_requests
from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.components.scheduler.cluster import Cluster
from kubewire.components.scheduler.placement import Placed, Unplaced, choose
from kubewire.components.scheduler.podspec import PodInfo
from tests.components.controllers.objects import node, pod

CONTROL_PLANE: Any = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
WEB = LabelSelector.from_map({"app": "web"})
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def cluster_of(*nodes, pods=()):
    cluster = Cluster()
    cluster.set_namespace("default", {"team": "a"})
    for item in nodes:
        cluster.set_node(item)
    for item in pods:
        cluster.place(PodInfo.of(item), item["spec"]["nodeName"])
    return cluster


def pending(name="p", labels=None, **spec):
    return PodInfo.of(pod(name, node=None, labels=labels or {"app": "web"}, spec=spec))


def requesting(name="p", **requests):
    return pending(name, containers=[{"name": "c", "resources": {"requests": requests}}])


def where(info, cluster, spread=None):
    decision = choose(info, cluster, spread)
    return decision.node if isinstance(decision, Placed) else decision.message


def test_the_message_counts_every_reason_as_upstream_does():
    nodes = [node("cp", taints=[CONTROL_PLANE]), *(node(f"w{n}", allocatable={"cpu": "1"}) for n in range(3))]
    assert where(requesting(cpu="2"), cluster_of(*nodes)) == (
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), "
        "3 Insufficient cpu. no new claims to deallocate, preemption: 0/4 nodes are available: "
        "4 Preemption is not helpful for scheduling."
    )


def test_a_full_node_could_be_emptied_by_preemption():
    full = pod("big", spec={"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}, node="a")
    assert where(requesting(cpu="2"), cluster_of(node("a"), pods=[full])) == (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: "
        "1 No preemption victims found for incoming pod."
    )


def test_without_nodes_the_message_says_so():
    assert where(pending(), cluster_of()) == "no nodes available to schedule pods"


FILTERS = [
    ("cordoned", node("a") | {"spec": {"unschedulable": True}}, {}, "node(s) were unschedulable"),
    ("node selector", node("a"), {"nodeSelector": {"d": "x"}}, "node(s) didn't match Pod's node affinity/selector"),
    (
        "untolerated NoExecute",
        node("a", taints=[{"key": "k", "value": "v", "effect": "NoExecute"}]),
        {},
        "node(s) had untolerated taint(s)",
    ),
    ("no room for pods", node("a", allocatable={"pods": "0"}), {}, "Too many pods"),
    (
        "extended resource",
        node("a"),
        {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]},
        "Insufficient example.com/gpu",
    ),
    (
        "named by affinity elsewhere",
        node("a"),
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
                        ]
                    }
                }
            }
        },
        "node(s) didn't satisfy plugin(s) [NodeAffinity]",
    ),
]


@pytest.mark.parametrize(("target", "spec", "reason"), [row[1:] for row in FILTERS], ids=[row[0] for row in FILTERS])
def test_reasons_of_the_filters(target, spec, reason):
    assert where(pending(**spec), cluster_of(target)).startswith(
        f"0/1 nodes are available: 1 {reason}. no new claims to deallocate, preemption: "
    )


@pytest.mark.parametrize(
    ("operator", "values", "labels", "admitted"),
    [
        ("In", ["x", "y"], {"k": "y"}, True),
        ("In", ["x"], {}, False),
        ("NotIn", ["x"], {}, True),
        ("NotIn", ["x"], {"k": "x"}, False),
        ("Exists", [], {"k": ""}, True),
        ("DoesNotExist", [], {"k": ""}, False),
        ("Gt", ["5"], {"k": "6"}, True),
        ("Gt", ["5"], {"k": "5"}, False),
        ("Lt", ["5"], {"k": "x"}, False),
    ],
)
def test_node_affinity_operators(operator, values, labels, admitted):
    terms = [{"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    decision = choose(pending(affinity={"nodeAffinity": required}), cluster_of(node("a", labels=labels)))
    assert isinstance(decision, Placed) is admitted


def hosting(port, **given):
    return {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port, **given}]}]}


@pytest.mark.parametrize(
    ("taken", "wanted", "free"),
    [
        (hosting(80), hosting(80), False),
        (hosting(80), hosting(81), True),
        (hosting(80), hosting(80, protocol="UDP"), True),
        (hosting(80, hostIP="10.0.0.1"), hosting(80, hostIP="10.0.0.2"), True),
        (hosting(80, hostIP="10.0.0.1"), hosting(80), False),
    ],
)
def test_host_ports_conflict_per_address_and_protocol(taken, wanted, free):
    cluster = cluster_of(node("a"), pods=[pod("x", node="a", spec=taken)])
    assert isinstance(choose(pending(**wanted), cluster), Placed) is free


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [{"resources": {"requests": {"cpu": cpu}}} for cpu in ("100m", "1")]}, 1100),
        (
            {
                "containers": [{"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"resources": {"requests": {"cpu": "3"}}}],
            },
            3000,
        ),
        (
            {
                "containers": [{"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [
                    {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                    {"resources": {"requests": {"cpu": "2"}}},
                ],
            },
            3000,
        ),
        ({"containers": [{}], "overhead": {"cpu": "250m"}}, 250),
        ({"containers": [{"resources": {"requests": {"cpu": "1"}}}], "resources": {"requests": {"cpu": "4"}}}, 4000),
    ],
)
def test_requests_of_a_pod(spec, cpu):
    assert total_requests(spec, {}).get("cpu") == cpu


def test_pods_of_a_service_spread_over_nodes_and_zones():
    nodes = [node(f"n{n}", labels={ZONE: f"z{n % 3}"}) for n in range(6)]
    cluster = cluster_of(*nodes)
    for number in range(12):
        info = pending(f"p{number}")
        cluster.place(info, where(info, cluster, WEB))
    assert sorted(len(item.pods) for item in cluster.nodes.values()) == [2] * 6


def test_the_emptier_node_is_better():
    heavy = pod("x", node="a", labels={}, spec={"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]})
    assert where(requesting(cpu="500m"), cluster_of(node("a"), node("b"), pods=[heavy])) == "b"


def test_a_prefer_no_schedule_taint_is_avoided_while_there_is_another_node():
    soft = {"key": "k", "effect": "PreferNoSchedule"}
    assert where(pending(), cluster_of(node("a", taints=[soft]), node("b"))) == "b"
    assert where(pending(), cluster_of(node("a", taints=[soft]))) == "a"


def test_preferred_node_affinity_wins_over_spreading():
    preferred = [{"weight": 100, "preference": {"matchExpressions": [{"key": "d", "operator": "Exists"}]}}]
    spec = {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}
    assert where(pending(**spec), cluster_of(node("a"), node("b", labels={"d": "1"}))) == "b"


def spread(skew=1, key=HOST, when="DoNotSchedule", **given):
    constraint = {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    return {"topologySpreadConstraints": [constraint | given]}


def test_do_not_schedule_keeps_the_skew():
    running = [pod("x", node="a"), pod("y", node="a")]
    cluster = cluster_of(node("a"), node("b", allocatable={"cpu": "0"}), pods=running)
    spec = spread() | {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}
    message = where(pending(**spec), cluster)
    assert "1 Insufficient cpu" in message
    assert "1 node(s) didn't match pod topology spread constraints" in message


def test_a_node_without_the_topology_label_is_out():
    message = where(pending(**spread(key=ZONE)), cluster_of(node("a")))
    assert "node(s) didn't match pod topology spread constraints (missing required label)" in message


def test_schedule_anyway_prefers_the_emptier_domain():
    nodes = [node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"})]
    cluster = cluster_of(*nodes, pods=[pod("r", node="a")])
    assert where(pending(**spread(key=ZONE, when="ScheduleAnyway")), cluster) == "b"


def test_min_domains_counts_domains_that_do_not_exist_as_empty():
    nodes = [node("a", labels={ZONE: "x"})]
    cluster = cluster_of(*nodes, pods=[pod("r", node="a")])
    assert where(pending(**spread(key=ZONE)), cluster) == "a"
    assert "topology spread" in where(pending(**spread(key=ZONE, minDomains=2)), cluster)


def affinity(kind, app, key=HOST):
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def test_pod_affinity_goes_where_the_other_runs():
    cluster = cluster_of(node("a"), node("b"), pods=[pod("db", node="b", labels={"app": "db"})])
    assert where(pending(**affinity("podAffinity", "db")), cluster) == "b"
    assert "node(s) didn't match pod affinity rules" in where(pending(**affinity("podAffinity", "none")), cluster)


def test_the_first_of_pods_that_want_each_other_may_start_anywhere():
    assert where(pending(**affinity("podAffinity", "web")), cluster_of(node("a"))) == "a"


def test_pod_anti_affinity_in_both_directions():
    apart = affinity("podAntiAffinity", "web")
    cluster = cluster_of(node("a"), pods=[pod("r", node="a")])
    assert "node(s) didn't match pod anti-affinity rules" in where(pending(**apart), cluster)
    cluster = cluster_of(node("a"), pods=[pod("r", node="a", spec=apart)])
    assert "node(s) didn't satisfy existing pods anti-affinity rules" in where(pending(), cluster)
    cluster.remove(("default", "r"))
    assert where(pending(), cluster) == "a"


def test_pods_of_a_node_that_registers_again_are_still_counted():
    cluster = cluster_of(node("a", allocatable={"pods": "1"}), pods=[pod("r", node="a")])
    cluster.remove_node("a")
    cluster.set_node(node("a", allocatable={"pods": "1"}))
    assert "Too many pods" in where(pending(), cluster)


def test_room_comes_back_when_a_pod_goes():
    cluster = cluster_of(node("a", allocatable={"cpu": "1"}))
    first = requesting("one", cpu="1")
    cluster.place(first, "a")
    before = cluster.relief
    assert isinstance(choose(requesting("two", cpu="1"), cluster), Unplaced)
    cluster.remove(first.key)
    assert cluster.relief > before
    assert where(requesting("two", cpu="1"), cluster) == "a"


def test_200_pods_over_20_nodes_spread_evenly():
    cluster = cluster_of(*(node(f"n{n:02}") for n in range(20)))
    for number in range(200):
        info = pending(f"p{number}")
        cluster.place(info, where(info, cluster, WEB))
    assert Counter(len(item.pods) for item in cluster.nodes.values()) == {10: 20}
