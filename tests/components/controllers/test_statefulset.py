"""Ordered and parallel StatefulSets, followed step by step."""

from __future__ import annotations

import pytest

from kubewire.components.controllers.pods import is_ready
from kubewire.components.controllers.statefulset.plan import plan
from kubewire.components.kubeapi.resources import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS
from tests.components.controllers.objects import template, workload
from tests.components.controllers.world import World


def start(replicas=3, **spec):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    world = World()
    world.put(
        STATEFULSETS,
        workload("StatefulSet", replicas=replicas, **{"serviceName": "nginx", "updateStrategy": strategy, **spec}),
    )
    return world


def sync(world):
    statefulset = world.get(STATEFULSETS, "web")
    return world.apply(plan(statefulset, world.all(PODS), world.all(CONTROLLERREVISIONS), world.now).actions)


def images(world):
    return {name: world.get(PODS, name)["spec"]["containers"][0]["image"] for name in world.names(PODS)}


def change(world, **spec):
    statefulset = world.get(STATEFULSETS, "web")
    statefulset["spec"] |= spec
    statefulset["metadata"]["generation"] += 1


def test_pods_start_one_after_the_other_each_when_the_one_before_is_ready():
    world = start(3)
    sync(world)
    assert world.names(PODS) == ["web-0"]
    sync(world)
    assert world.names(PODS) == ["web-0"], "web-0 is not ready yet"
    world.run_pods()
    sync(world)
    assert world.names(PODS) == ["web-0", "web-1"]
    world.settle(sync)
    assert world.names(PODS) == ["web-0", "web-1", "web-2"]


def test_pods_have_stable_names_host_names_and_index_labels():
    world = start(1, ordinals={"start": 5})
    world.settle(sync)
    (pod,) = world.all(PODS)
    (revision,) = world.names(CONTROLLERREVISIONS)
    assert pod["spec"]["hostname"] == pod["metadata"]["name"] == "web-5"
    assert pod["spec"]["subdomain"] == "nginx"
    assert pod["metadata"]["labels"] == {
        "app": "web",
        "apps.kubernetes.io/pod-index": "5",
        "controller-revision-hash": revision,
        "statefulset.kubernetes.io/pod-name": "web-5",
    }


def test_parallel_starts_and_stops_all_at_once():
    world = start(3, podManagementPolicy="Parallel")
    sync(world)
    assert world.names(PODS) == ["web-0", "web-1", "web-2"]
    world.run_pods()
    change(world, replicas=0)
    sync(world)
    assert all(item["metadata"].get("deletionTimestamp") for item in world.all(PODS))


def test_scaling_down_goes_from_the_top_one_at_a_time():
    world = start(4)
    world.settle(sync)
    change(world, replicas=1)
    seen = []

    def check():
        going = [n for n in world.names(PODS) if world.get(PODS, n)["metadata"].get("deletionTimestamp")]
        assert len(going) <= 1
        seen.extend(going)

    world.settle(sync, check)
    assert list(dict.fromkeys(seen)) == ["web-3", "web-2", "web-1"]
    assert world.names(PODS) == ["web-0"]


def test_a_rolling_update_goes_from_the_top_and_completes():
    world = start(3)
    world.settle(sync)
    change(world, template=template("nginx:2"))
    seen = []

    def check():
        going = [n for n in world.names(PODS) if world.get(PODS, n)["metadata"].get("deletionTimestamp")]
        assert sum(is_ready(item) for item in world.all(PODS)) - len(going) >= 2
        seen.extend(going)

    world.settle(sync, check)
    assert list(dict.fromkeys(seen)) == ["web-2", "web-1", "web-0"]
    assert set(images(world).values()) == {"nginx:2"}
    status = world.get(STATEFULSETS, "web")["status"]
    assert status["currentRevision"] == status["updateRevision"]
    assert (status["currentReplicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)


def test_the_partition_keeps_lower_ordinals_at_the_old_revision_even_when_they_are_made_again():
    world = start(3, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
    world.settle(sync)
    change(world, template=template("nginx:2"))
    world.settle(sync)
    assert images(world) == {"web-0": "nginx:1", "web-1": "nginx:1", "web-2": "nginx:2"}
    world.get(PODS, "web-0")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.run_pods()
    world.settle(sync)
    assert images(world)["web-0"] == "nginx:1"
    status = world.get(STATEFULSETS, "web")["status"]
    assert status["currentRevision"] != status["updateRevision"]
    assert status["updatedReplicas"] == 1


def test_on_delete_waits_for_people():
    world = start(2, updateStrategy={"type": "OnDelete"})
    world.settle(sync)
    change(world, template=template("nginx:2"))
    world.settle(sync)
    assert set(images(world).values()) == {"nginx:1"}
    world.get(PODS, "web-1")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.run_pods()
    world.settle(sync)
    assert images(world) == {"web-0": "nginx:1", "web-1": "nginx:2"}


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_ended_is_replaced(phase):
    world = start(1)
    world.settle(sync)
    before = world.get(PODS, "web-0")["metadata"]["uid"]
    world.get(PODS, "web-0")["status"]["phase"] = phase
    world.settle(sync)
    assert world.get(PODS, "web-0")["metadata"]["uid"] != before


def test_undoing_a_change_renumbers_the_old_revision():
    world = start(1)
    world.settle(sync)
    (first,) = world.names(CONTROLLERREVISIONS)
    change(world, template=template("nginx:2"))
    world.settle(sync)
    change(world, template=template("nginx:1"))
    world.settle(sync)
    assert len(world.names(CONTROLLERREVISIONS)) == 2
    assert world.get(CONTROLLERREVISIONS, first)["revision"] == 3


def test_revisions_beyond_the_limit_are_deleted():
    world = start(1, revisionHistoryLimit=1)
    world.settle(sync)
    for number in range(2, 6):
        change(world, template=template(f"nginx:{number}"))
        world.settle(sync)
    assert sorted(item["revision"] for item in world.all(CONTROLLERREVISIONS)) == [4, 5]


def claiming(**spec):
    template = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    return start(**{"volumeClaimTemplates": [template], **spec})


def sync_with_claims(world):
    statefulset = world.get(STATEFULSETS, "web")
    held = {item["metadata"]["name"]: item for item in world.all(PERSISTENTVOLUMECLAIMS)}
    revisions = world.all(CONTROLLERREVISIONS)
    return world.apply(plan(statefulset, world.all(PODS), revisions, world.now, held).actions)


def owners(world):
    return {
        item["metadata"]["name"]: [owner["uid"] for owner in item["metadata"].get("ownerReferences") or []]
        for item in world.all(PERSISTENTVOLUMECLAIMS)
    }


def test_each_pod_has_a_claim_of_its_own_which_outlives_it():
    world = claiming(replicas=2)
    world.settle(sync_with_claims)
    assert world.names(PERSISTENTVOLUMECLAIMS) == ["data-web-0", "data-web-1"]
    volumes = world.get(PODS, "web-1")["spec"]["volumes"]
    assert volumes == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}}]
    assert world.get(PERSISTENTVOLUMECLAIMS, "data-web-0")["metadata"]["labels"] == {"app": "web"}
    change(world, replicas=0)
    world.settle(sync_with_claims)
    assert owners(world) == {"data-web-0": [], "data-web-1": []}


def test_the_retention_policy_makes_claims_dependents_of_the_set_or_of_pods_that_are_scaled_away():
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    world = claiming(replicas=2, persistentVolumeClaimRetentionPolicy=policy)
    world.settle(sync_with_claims)
    assert owners(world) == {"data-web-0": ["uid-web"], "data-web-1": ["uid-web"]}
    leaving = world.get(PODS, "web-1")["metadata"]["uid"]
    change(world, replicas=1)
    sync_with_claims(world)
    assert owners(world) == {"data-web-0": ["uid-web"], "data-web-1": [leaving]}
    change(world, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})
    world.settle(sync_with_claims)
    assert owners(world)["data-web-0"] == []


def test_a_pod_waits_until_the_old_claim_of_its_ordinal_is_gone():
    world = claiming(replicas=1)
    world.settle(sync_with_claims)
    world.get(PERSISTENTVOLUMECLAIMS, "data-web-0")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.get(PODS, "web-0")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.run_pods()
    sync_with_claims(world)
    assert world.names(PODS) == []
