"""Numbers of pods, the order of deletion, status, adoption."""

from __future__ import annotations

import pytest

from kubewire.components.controllers.actions import Delete, SlowStart
from kubewire.components.controllers.claims import claim
from kubewire.components.controllers.pods import until_available
from kubewire.components.controllers.replicaset.plan import as_replicaset, doubled_up, plan_replicas, plan_status
from kubewire.components.kubeapi.resources import PODS
from kubewire.components.kubeapi.selectors import LabelSelector
from tests.components.controllers.objects import NOW, at, pod, workload

SELECTOR = LabelSelector.from_map({"app": "web"})


def deleted(replicaset, pods, crowd=None):
    actions = plan_replicas(replicaset, pods, crowd or {}, NOW)
    deletions = [item for item in actions if isinstance(item, Delete)]
    assert len(deletions) == len(actions)
    return [item.name for item in deletions]


@pytest.mark.parametrize(("have", "made"), [(0, 3), (1, 2), (3, 0)])
def test_missing_pods_are_made(have, made):
    actions = plan_replicas(workload("ReplicaSet"), [pod(f"p{n}") for n in range(have)], {}, NOW)
    assert sum(len(item.creates) for item in actions if isinstance(item, SlowStart)) == made


def test_pods_that_finished_or_are_going_do_not_count():
    pods = [pod("a", phase="Failed"), pod("b", phase="Succeeded"), pod("c", deleting=True), pod("d")]
    (batch,) = plan_replicas(workload("ReplicaSet", replicas=2), pods, {}, NOW)
    assert isinstance(batch, SlowStart)
    assert len(batch.creates) == 1


def test_new_pods_carry_labels_owner_and_a_generated_name():
    replicaset = workload("ReplicaSet", replicas=1)
    (batch,) = plan_replicas(replicaset, [], {}, NOW)
    assert isinstance(batch, SlowStart)
    metadata = batch.creates[0].obj["metadata"]
    assert metadata["generateName"] == "web-"
    assert metadata["labels"] == {"app": "web"}
    assert metadata["ownerReferences"][0] == {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "uid-web",
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


OLD = at(-100_000)
ORDER = [
    ("unassigned before assigned", pod("first", node=None, phase="Pending"), pod("then", phase="Pending")),
    ("pending before running", pod("first", phase="Pending", ready=False), pod("then", ready=False)),
    ("not ready before ready", pod("first", ready=False), pod("then")),
    ("cheap before dear", pod("first", cost="-5"), pod("then", cost="1", restarts=9)),
    ("recently ready first", pod("first", ready_since=at(-10)), pod("then", ready_since=OLD)),
    ("many restarts first", pod("first", restarts=3), pod("then", restarts=1)),
    ("young before old", pod("first", created=at(-10)), pod("then", created=OLD)),
]


@pytest.mark.parametrize(("first", "then"), [row[1:] for row in ORDER], ids=[row[0] for row in ORDER])
def test_deletion_order(first, then):
    for pods in ([first, then], [then, first]):
        assert deleted(workload("ReplicaSet", replicas=1), pods) == ["first"]


def test_pods_on_crowded_nodes_go_first():
    crowd = [pod("a", node="n1"), pod("b", node="n1"), pod("c", node="n2")]
    assert doubled_up(crowd) == {"n1": 2, "n2": 1}
    assert deleted(workload("ReplicaSet", replicas=2), crowd, doubled_up(crowd)) in (["a"], ["b"])


def test_pods_of_like_age_are_picked_by_uid_and_not_always_the_youngest():
    older, younger = pod("a", created=at(-130)), pod("b", created=at(-200))
    assert deleted(workload("ReplicaSet", replicas=1), [younger, older]) == ["a"]


def test_status_counts_ready_available_and_fully_labelled_pods():
    replicaset = workload("ReplicaSet", minReadySeconds=30)
    replicaset["spec"]["template"]["metadata"]["labels"] = {"app": "web", "tier": "x"}
    pods = [
        pod("a", labels={"app": "web", "tier": "x"}, ready_since=at(-60)),
        pod("b", ready_since=at(-10)),
        pod("c", ready=False),
        pod("d", phase="Failed"),
        pod("e", deleting=True),
    ]
    status = plan_status(replicaset, pods, NOW)
    assert status["replicas"] == 3
    assert status["readyReplicas"] == 2
    assert status["availableReplicas"] == 1
    assert status["fullyLabeledReplicas"] == 1
    assert status["terminatingReplicas"] == 1
    assert until_available(pods, 30, NOW) == 20.0


def test_a_failed_create_shows_as_condition_and_goes_with_the_cause():
    replicaset = workload("ReplicaSet")
    status = plan_status(replicaset, [], NOW, "quota")
    assert status["conditions"][0]["type"] == "ReplicaFailure"
    assert status["conditions"][0]["reason"] == "FailedCreate"
    replicaset["status"] = status
    assert plan_status(replicaset, [], at(60), "quota")["conditions"] == status["conditions"]
    assert "conditions" not in plan_status(replicaset, [], at(60))


def test_orphans_that_match_are_adopted_and_strangers_left_alone():
    replicaset, other = workload("ReplicaSet"), workload("ReplicaSet", "other")
    mine, orphan = pod("mine", owner=replicaset), pod("orphan")
    claimed = claim(
        replicaset, SELECTOR, PODS, [mine, orphan, pod("his", owner=other), pod("odd", labels={"app": "db"})]
    )
    assert [item["metadata"]["name"] for item in claimed.owned] == ["mine"]
    (patch,) = claimed.changes
    assert patch.name == "orphan"
    assert patch.patch["metadata"]["ownerReferences"][0]["uid"] == "uid-web"
    assert patch.patch["metadata"]["resourceVersion"] == "1"


def test_a_pod_that_no_longer_matches_is_released():
    replicaset = workload("ReplicaSet")
    (patch,) = claim(replicaset, SELECTOR, PODS, [pod("x", owner=replicaset, labels={})]).changes
    assert patch.patch["metadata"]["ownerReferences"] == []


def test_an_owner_on_its_way_out_adopts_nothing():
    replicaset = workload("ReplicaSet")
    replicaset["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert claim(replicaset, SELECTOR, PODS, [pod("orphan")]).changes == ()


def test_a_replication_controller_is_seen_as_a_replicaset():
    controller = workload("ReplicationController", selector={"app": "web"})
    seen = as_replicaset(controller)
    assert seen["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert controller["spec"]["selector"] == {"app": "web"}
    (created,) = plan_replicas(seen, [], {}, NOW)
    assert isinstance(created, SlowStart)
    assert created.creates[0].obj["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController"
