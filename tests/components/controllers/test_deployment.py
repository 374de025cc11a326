"""Rollouts, followed step by step against a world of dictionaries."""

from __future__ import annotations

import itertools

import pytest

from kubewire.components.controllers.actions import Create, Emit, Patch, Update
from kubewire.components.controllers.deployment import sizes
from kubewire.components.controllers.deployment.plan import new_replicaset, plan, sort_sets
from kubewire.components.controllers.meta import annotations_of, condition
from kubewire.components.controllers.pods import is_active, is_ready
from kubewire.components.controllers.podtemplate import compute_hash
from kubewire.components.controllers.replicaset.plan import plan_replicas, plan_status, status_differs
from kubewire.components.kubeapi.resources import DEPLOYMENTS, PODS, REPLICASETS
from tests.components.controllers.objects import NOW, template, workload
from tests.components.controllers.world import World
from tests.existing import existing


def make(replicas=3, surge="25%", unavailable="25%", **spec):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return workload("Deployment", replicas=replicas, **{"strategy": strategy, "progressDeadlineSeconds": 600, **spec})


def sync_deployment(world):
    deployment = world.get(DEPLOYMENTS, "web")
    return world.apply(plan(deployment, world.all(REPLICASETS), world.all(PODS), world.now).actions)


def sync_replicasets(world):
    writes = 0
    for item in world.all(REPLICASETS):
        pods = world.owned(PODS, item)
        writes += world.apply(plan_replicas(item, pods, {}, world.now))
        status = plan_status(item, world.owned(PODS, item), world.now)
        if status_differs(item.get("status", {}), status):
            item["status"] = status
            writes += 1
    return writes


def settle(world, check=lambda: None, *, pods_start=True):
    """Runs all controllers until nothing changes. check is called after every step."""
    for _ in range(200):
        writes = sync_deployment(world)
        check()
        writes += sync_replicasets(world)
        check()
        if pods_start:
            world.run_pods()
        writes += sync_replicasets(world)
        world.tick(1)
        check()
        if not writes:
            return
    raise AssertionError("the rollout does not settle")


def start(deployment):
    world = World()
    world.put(DEPLOYMENTS, deployment)
    settle(world)
    return world


def change_image(world, image):
    deployment = world.get(DEPLOYMENTS, "web")
    deployment["spec"]["template"] = template(image)
    deployment["metadata"]["generation"] += 1


def live_sizes(world):
    return sorted(sizes.replicas_of(item) for item in world.all(REPLICASETS))


def test_a_new_deployment_makes_one_replicaset_named_by_the_hash_of_its_template():
    world = start(make(3))
    (replicaset,) = world.all(REPLICASETS)
    digest = replicaset["metadata"]["labels"]["pod-template-hash"]
    assert replicaset["metadata"]["name"] == f"web-{digest}"
    assert replicaset["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert replicaset["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == digest
    assert f"ScalingReplicaSet: Scaled up replica set web-{digest} from 0 to 3" in world.events
    assert annotations_of(world.get(DEPLOYMENTS, "web"))["deployment.kubernetes.io/revision"] == "1"
    assert [is_ready(item) for item in world.all(PODS)] == [True] * 3


def test_conditions_after_a_rollout_are_upstreams():
    world = start(make(2))
    status = world.get(DEPLOYMENTS, "web")["status"]
    (name,) = world.names(REPLICASETS)
    available = existing(condition(status, "Available"))
    progressing = existing(condition(status, "Progressing"))
    assert (available["status"], available["reason"]) == ("True", "MinimumReplicasAvailable")
    assert available["message"] == "Deployment has minimum availability."
    assert (progressing["status"], progressing["reason"]) == ("True", "NewReplicaSetAvailable")
    assert progressing["message"] == f'ReplicaSet "{name}" has successfully progressed.'
    assert {key: status[key] for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")} == {
        "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable"),
    [
        *itertools.product((1, 2, 3, 4, 10), (0, 1, "25%", "100%"), (1, "25%", "50%", "100%")),
        *itertools.product((1, 4, 10), (1, "25%"), (0, "0%")),
        (5, 0, 0),
        (7, "30%", 2),
    ],
)
def test_a_rolling_update_stays_within_surge_and_unavailability_and_finishes(replicas, surge, unavailable):
    world = start(make(replicas, surge, unavailable))
    deployment = world.get(DEPLOYMENTS, "web")
    ceiling = replicas + sizes.max_surge(deployment)
    floor = sizes.min_available(deployment)

    def check():
        active = [item for item in world.all(PODS) if is_active(item)]
        assert len(active) <= ceiling
        assert sum(is_ready(item) for item in active) >= floor

    change_image(world, "nginx:2")
    settle(world, check)
    assert live_sizes(world) == [0, replicas]
    assert {item["spec"]["containers"][0]["image"] for item in world.all(PODS)} == {"nginx:2"}
    assert annotations_of(world.get(DEPLOYMENTS, "web"))["deployment.kubernetes.io/revision"] == "2"


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (4, "25%", "25%", (1, 1)),
        (1, "25%", "25%", (1, 0)),
        (3, "0%", "10%", (0, 1)),
        (100, "7%", "7%", (7, 7)),
        (5, 0, 0, (0, 1)),
        (3, 2, 1, (2, 1)),
    ],
)
def test_surge_rounds_up_and_unavailable_down_and_never_both_zero(replicas, surge, unavailable, expected):
    assert sizes.fenceposts(make(replicas, surge, unavailable)) == expected


def test_a_rollout_whose_pods_never_get_ready_keeps_the_old_ones_and_times_out():
    world = start(make(4, progressDeadlineSeconds=60))
    change_image(world, "broken:1")
    settle(world, pods_start=False)
    ready = [item for item in world.all(PODS) if is_ready(item) and is_active(item)]
    assert len(ready) == 3
    assert {item["spec"]["containers"][0]["image"] for item in ready} == {"nginx:1"}
    world.tick(120)
    settle(world, pods_start=False)
    progressing = existing(condition(world.get(DEPLOYMENTS, "web")["status"], "Progressing"))
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    newest = existing(sort_sets(world.get(DEPLOYMENTS, "web"), world.all(REPLICASETS)).newest)
    assert progressing["message"] == f'ReplicaSet "{newest["metadata"]["name"]}" has timed out progressing.'


def test_the_deadline_is_looked_at_again_without_any_event():
    world = start(make(2, progressDeadlineSeconds=60))
    change_image(world, "broken:1")
    settle(world, pods_start=False)
    step = plan(world.get(DEPLOYMENTS, "web"), world.all(REPLICASETS), world.all(PODS), world.now)
    assert 0 < existing(step.requeue_after) <= 61


def test_rollback_to_the_old_template_reuses_its_replicaset_and_raises_the_revision():
    world = start(make(3))
    (first,) = world.names(REPLICASETS)
    change_image(world, "nginx:2")
    settle(world)
    change_image(world, "nginx:1")
    settle(world)
    replicaset = world.get(REPLICASETS, first)
    assert sizes.replicas_of(replicaset) == 3
    assert len(world.all(REPLICASETS)) == 2
    assert annotations_of(replicaset)["deployment.kubernetes.io/revision"] == "3"
    assert annotations_of(replicaset)["deployment.kubernetes.io/revision-history"] == "1"
    assert annotations_of(world.get(DEPLOYMENTS, "web"))["deployment.kubernetes.io/revision"] == "3"


def test_recreate_never_runs_old_and_new_pods_together():
    world = start(workload("Deployment", replicas=3, strategy={"type": "Recreate"}))

    def check():
        images = {item["spec"]["containers"][0]["image"] for item in world.all(PODS)}
        assert len(images) <= 1

    change_image(world, "nginx:2")
    settle(world, check)
    assert live_sizes(world) == [0, 3]


def test_a_paused_deployment_does_not_roll_but_scales():
    world = start(make(3))
    deployment = world.get(DEPLOYMENTS, "web")
    deployment["spec"]["paused"] = True
    change_image(world, "nginx:2")
    settle(world)
    assert live_sizes(world) == [3]
    assert existing(condition(deployment["status"], "Progressing"))["reason"] == "DeploymentPaused"
    deployment["spec"]["replicas"] = 5
    settle(world)
    assert live_sizes(world) == [5]
    deployment["spec"]["paused"] = False
    settle(world)
    assert live_sizes(world) == [0, 5]


def test_scaling_in_the_middle_of_a_rollout_is_shared_in_proportion():
    world = start(make(10, surge=3, unavailable=2))
    change_image(world, "broken:1")
    settle(world, pods_start=False)
    assert live_sizes(world) == [5, 8]
    world.get(DEPLOYMENTS, "web")["spec"]["replicas"] = 15
    sync_deployment(world)
    # The example of the documentation: of 5 more, 3 go to the old ReplicaSet and 2 to the new one.
    assert live_sizes(world) == [7, 11]


def test_old_replicasets_beyond_the_history_limit_are_deleted_oldest_first():
    world = start(make(1, revisionHistoryLimit=2))
    for number in range(2, 7):
        change_image(world, f"nginx:{number}")
        settle(world)
    kept = sorted(item["spec"]["template"]["spec"]["containers"][0]["image"] for item in world.all(REPLICASETS))
    assert kept == ["nginx:4", "nginx:5", "nginx:6"]


def test_the_template_hash_is_stable_and_sees_every_change():
    one = template("nginx:1")
    assert compute_hash(one) == compute_hash(template("nginx:1")) == compute_hash({**one, "x": None, "y": {}})
    assert compute_hash(one) != compute_hash(template("nginx:2"))
    assert compute_hash(one) != compute_hash(one, 1) != compute_hash(one, 2)
    assert set(compute_hash(one)) <= set("bcdfghjklmnpqrstvwxz2456789")


def test_annotations_are_copied_to_the_replicaset_but_not_those_of_kubectl_apply():
    deployment = make(1)
    deployment["metadata"]["annotations"] = {
        "kubernetes.io/change-cause": "first",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    annotations = annotations_of(new_replicaset(deployment, sort_sets(deployment, [])))
    assert annotations["kubernetes.io/change-cause"] == "first"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in annotations


def test_a_settled_deployment_needs_no_write_at_all():
    world = start(make(3))
    step = plan(world.get(DEPLOYMENTS, "web"), world.all(REPLICASETS), world.all(PODS), world.now)
    assert step.actions == ()


def test_a_deployment_that_is_being_deleted_makes_nothing():
    deployment = make(3)
    deployment["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    actions = plan(deployment, [], [], NOW).actions
    assert not any(isinstance(item, Create | Patch) for item in actions)
    assert all(isinstance(item, Update) for item in actions)


def test_an_empty_selector_is_refused_with_an_event():
    deployment = make(3)
    deployment["spec"]["selector"] = {}
    (action,) = plan(deployment, [], [], NOW).actions
    assert isinstance(action, Emit)
    assert action.reason == "SelectingAll"
