"""Who is collected, and in which order."""

from __future__ import annotations

import pytest

from kubewire.components.controllers.actions import Delete, Patch
from kubewire.components.controllers.garbage.graph import Graph, Node, OwnerState, Verdict, decide
from kubewire.components.controllers.garbage.podgc import beyond_threshold, orphaned, removal, unscheduled_terminating
from kubewire.components.kubeapi.resources import PODS, REPLICASETS
from tests.components.controllers.objects import NOW, at, pod

DANGLING, SOLID, WAITING, UNKNOWN = (
    OwnerState.DANGLING,
    OwnerState.SOLID,
    OwnerState.WAITING,
    OwnerState.UNKNOWN,
)


def owner(uid, block=True):
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "blockOwnerDeletion": block}


def item(uid="x", owners=(), **given):
    return Node(PODS, "default", uid, uid, tuple(owner(one) for one in owners), **given)


CASES = [
    ("no owner", [], Verdict.KEEP, ""),
    ("its owner exists", [SOLID], Verdict.KEEP, ""),
    ("its owner is gone", [DANGLING], Verdict.DELETE, "Background"),
    ("one of two owners is gone", [SOLID, DANGLING], Verdict.DROP_REFERENCES, ""),
    ("both owners are gone", [DANGLING, DANGLING], Verdict.DELETE, "Background"),
    ("its owner waits for it", [WAITING], Verdict.DELETE, "Background"),
    ("one owner waits, the other stays", [SOLID, WAITING], Verdict.DROP_REFERENCES, ""),
    ("its owner cannot be looked up", [UNKNOWN], Verdict.KEEP, ""),
    ("one gone, one that cannot be looked up", [UNKNOWN, DANGLING], Verdict.DROP_REFERENCES, ""),
]


@pytest.mark.parametrize(("states", "verdict", "policy"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_what_becomes_of_an_object(states, verdict, policy):
    uids = [f"owner-{number}" for number in range(len(states))]
    known = dict(zip(uids, states, strict=True))
    decision = decide(item(owners=uids), [], lambda reference: known[reference["uid"]])
    assert (decision.verdict, decision.policy) == (verdict, policy)
    if verdict is Verdict.DROP_REFERENCES:
        assert decision.drop == {uid for uid, state in known.items() if state in (DANGLING, WAITING)}


def test_an_object_with_dependents_follows_a_foreground_deletion_in_the_foreground():
    decision = decide(item(owners=["o"]), [item("child", ["x"])], lambda _: WAITING)
    assert (decision.verdict, decision.policy) == (Verdict.DELETE, "Foreground")


def test_a_circle_of_owners_that_block_each_other_is_opened():
    waiting = item("child", ["x"], deleting=True, finalizers=("foregroundDeletion",))
    decision = decide(item(owners=["child"]), [waiting], lambda _: WAITING)
    assert (decision.verdict, decision.policy, decision.unblock) == (Verdict.DELETE, "Foreground", True)
    assert not decide(item(owners=["o"]), [item("child", ["x"])], lambda _: WAITING).unblock


def test_foreground_deletion_waits_for_blocking_dependents_only():
    going = item(deleting=True, finalizers=("foregroundDeletion",))
    blocking = item("child", ["x"])
    loose = Node(PODS, "default", "loose", "loose", (owner("x", block=False),))
    assert decide(going, [blocking, loose], lambda _: SOLID).verdict is Verdict.WAIT
    assert decide(going, [loose], lambda _: SOLID).verdict is Verdict.REMOVE_FINALIZER


def test_orphan_deletion_cuts_the_dependents_loose():
    assert decide(item(deleting=True, finalizers=("orphan",)), [], lambda _: SOLID).verdict is Verdict.ORPHAN


def test_the_finalizer_of_an_object_decides_how_it_is_deleted():
    decision = decide(item(owners=["o"], finalizers=("orphan",)), [], lambda _: DANGLING)
    assert decision.policy == "Orphan"


def test_the_graph_knows_dependents_also_before_and_after_their_owner():
    graph = Graph()
    graph.put(item("child", ["o"]))
    assert [node.uid for node in graph.dependents("o")] == ["child"]
    graph.put(Node(REPLICASETS, "default", "o", "o"))
    graph.remove("o")
    assert [node.uid for node in graph.dependents("o")] == ["child"]
    graph.put(item("child"))
    assert graph.dependents("o") == []


def test_pods_that_nobody_will_clean_up():
    lost, waiting = pod("lost", node="gone"), pod("waiting", node=None, deleting=True)
    fine = pod("fine", node="node-1")
    assert orphaned([lost, waiting, fine], {"node-1"}) == [lost]
    assert unscheduled_terminating([lost, waiting, fine]) == [waiting]


def test_the_oldest_finished_pods_go_first():
    ended = [pod(f"p{n}", phase="Succeeded", created=at(n)) for n in range(5)]
    assert [item["metadata"]["name"] for item in beyond_threshold(ended, 3)] == ["p0", "p1"]
    assert beyond_threshold(ended, 0) == []


def test_a_lost_pod_is_failed_first_and_then_deleted_without_grace():
    mark, delete = removal(pod("lost", node="gone"), NOW, orphan=True)
    assert isinstance(mark, Patch) and isinstance(delete, Delete)
    assert mark.patch["status"]["phase"] == "Failed"
    assert mark.patch["status"]["conditions"][-1]["reason"] == "DeletionByPodGC"
    assert delete.grace_period_seconds == 0
