"""What claims mean for the choice of a node."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubeapi import volumes as matching
from kubewire.components.scheduler.placement import Placed, choose, failure_of_all
from kubewire.components.scheduler.volumes import ClaimProblem, Storage, claims_of, volume_filter
from kubewire.components.scheduler.volumes import choose as choose_volumes
from tests.components.controllers.objects import node
from tests.components.controllers.storage import claim, storage_class, volume
from tests.components.scheduler.test_placement import cluster_of, pending

USING = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}
DONE = {matching.BIND_COMPLETED: "yes"}
WORKERS = [node("worker-1"), node("worker-2")]


def storage(held: Any, *volumes: Any, classes: Any = (), reserved: Any = ()) -> Storage:
    claims = {("default", held["metadata"]["name"]): held} if held else {}
    return Storage(
        claims,
        {item["metadata"]["name"]: item for item in volumes},
        {item["metadata"]["name"]: item for item in classes},
        reserved,
    )


LOCAL = storage_class("local", provisioner=matching.NO_PROVISIONER)
STANDARD = storage_class()
ZONED = storage_class(allowedTopologies=[{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}])


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (storage(None), 'persistentvolumeclaim "data" not found'),
        (storage(claim(deleting=True)), 'persistentvolumeclaim "data" is being deleted'),
        (storage(claim()), "pod has unbound immediate PersistentVolumeClaims"),
        (
            storage(claim(phase="Lost", volume="pv")),
            'persistentvolumeclaim "data" bound to non-existent persistentvolume "pv"',
        ),
    ],
    ids=["absent", "going", "unbound", "lost"],
)
def test_claims_that_keep_a_pod_from_every_node(found: Storage, text: str) -> None:
    with pytest.raises(ClaimProblem, match=text):
        claims_of(pending(**USING), found)


def test_the_message_when_the_claim_is_the_reason() -> None:
    assert failure_of_all(2, "pod has unbound immediate PersistentVolumeClaims") == (
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. no new claims to deallocate, "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


BOUND = claim(volume="pv", notes=DONE, phase="Bound")
WAITING = claim(storage_class="local")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (storage(BOUND, volume(node="worker-2")), "worker-2"),
        (storage(BOUND, volume(node="worker-9")), "2 node(s) didn't match PersistentVolume's node affinity"),
        (storage(BOUND), "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        (storage(WAITING, volume(storage_class="local", node="worker-2"), classes=[LOCAL]), "worker-2"),
        (
            storage(WAITING, volume(storage_class="local", node="worker-2"), classes=[LOCAL], reserved={"pv"}),
            "2 node(s) didn't find available persistent volumes to bind",
        ),
        (storage(claim(storage_class="standard"), classes=[STANDARD]), "worker-1"),
        (
            storage(claim(storage_class="standard"), classes=[ZONED]),
            "2 node(s) didn't find available persistent volumes to bind",
        ),
        (
            storage(claim(storage_class="standard", notes={matching.SELECTED_NODE: "worker-2"}), classes=[STANDARD]),
            "worker-2",
        ),
    ],
    ids=[
        "where the volume is",
        "no node reaches it",
        "the volume is gone",
        "where a volume is free",
        "which another pod was given",
        "anywhere if it can be made there",
        "not where the class does not allow it",
        "where it is being made",
    ],
)
def test_the_node_of_a_pod_with_a_claim(found: Storage, expected: str) -> None:
    info = pending(**USING)
    decision = choose(info, cluster_of(*WORKERS), None, volume_filter(claims_of(info, found), found))
    if isinstance(decision, Placed):
        assert decision.node == expected
    else:
        assert expected in decision.message


def test_two_claims_of_a_pod_do_not_get_the_same_volume() -> None:
    info = pending(volumes=[{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("data", "logs")])
    claims = {("default", name): claim(name, storage_class="local") for name in ("data", "logs")}
    volumes = {name: volume(name, storage_class="local") for name in ("a", "b")}
    both = Storage(claims, volumes, {"local": LOCAL})
    choice = choose_volumes(claims_of(info, both), both, WORKERS[0])
    assert choice is not None
    assert sorted(item["metadata"]["name"] for item in choice.bind.values()) == ["a", "b"]
    one = Storage(claims, {"a": volumes["a"]}, {"local": LOCAL})
    assert choose_volumes(claims_of(info, one), one, WORKERS[0]) is None
