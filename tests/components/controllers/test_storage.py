"""Binding of volumes and claims, protection, the provisioner, and claims of ephemeral volumes."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.actions import Action, Change, Create, Delete, Emit
from kubewire.components.controllers.storage import ephemeral, protection, provisioner
from kubewire.components.controllers.storage.binding import Storage, plan_claim, plan_volume
from kubewire.components.kubeapi import volumes as matching
from tests.components.controllers.objects import node, pod
from tests.components.controllers.storage import claim, reference, storage_class, volume

BOUND = {matching.BIND_COMPLETED: "yes"}
STANDARD = storage_class()
IMMEDIATE = storage_class("fast", volumeBindingMode="Immediate", provisioner="example.com/disk")


def storage(*volumes: Any, classes: Any = (STANDARD, IMMEDIATE), users: Any = ()) -> Storage:
    by_name = {item["metadata"]["name"]: item for item in volumes}
    return Storage(by_name, {item["metadata"]["name"]: item for item in classes}, users)


def written(actions: tuple[Action, ...]) -> dict[str, Any]:
    """What the patches write: `NAME` or `NAME/status` -> the parts without the guards."""
    found: dict[str, Any] = {}
    for action in actions:
        if isinstance(action, Change):
            patch = {key: value for key, value in action.patch.items() if key != "metadata"}
            if notes := (action.patch.get("metadata") or {}).get("annotations"):
                patch["annotations"] = notes
            found[f"{action.name}/{action.subresource}".rstrip("/")] = patch
    return found


def events(actions: tuple[Action, ...]) -> list[str]:
    return [f"{action.reason}: {action.message}" for action in actions if isinstance(action, Emit)]


def test_a_binding_writes_the_volume_first_and_says_that_a_controller_chose() -> None:
    actions = plan_claim(claim(), storage(volume()))
    names = [action.name for action in actions if isinstance(action, Change)]
    assert names == ["pv", "pv", "data", "data"]
    found = written(actions)
    assert found["pv"]["spec"]["claimRef"]["uid"] == "uid-data"
    assert found["pv"]["annotations"] == {matching.BOUND_BY_CONTROLLER: "yes"}
    assert found["pv/status"] == {"status": {"phase": "Bound", "message": None}}
    assert found["data"]["spec"] == {"volumeName": "pv"}
    assert found["data"]["annotations"] == {**BOUND, matching.BOUND_BY_CONTROLLER: "yes"}
    assert found["data/status"]["status"]["capacity"] == {"storage": "1Gi"}
    first = actions[0]
    assert isinstance(first, Change)
    assert first.patch["metadata"]["resourceVersion"] == "7", "of two claims only one gets the volume"


def test_a_pair_that_a_user_chose_is_not_marked_as_a_controllers() -> None:
    actions = plan_claim(claim(volume="pv"), storage(volume(claim=reference(uid=None))))
    found = written(actions)
    assert "annotations" not in found["pv"]
    assert found["data"]["annotations"] == BOUND


def chosen(held: Any, *volumes: Any) -> str | None:
    for action in plan_claim(held, storage(*volumes)):
        if isinstance(action, Change) and "volumeName" in (action.patch.get("spec") or {}):
            return str(action.patch["spec"]["volumeName"])
    return None


@pytest.mark.parametrize(
    ("held", "volumes", "expected"),
    [
        (claim(), [volume("big", size="9Gi"), volume("fits", size="2Gi"), volume("small", size="1Mi")], "fits"),
        (claim(), [volume("many", modes=["ReadWriteOnce", "ReadOnlyMany"]), volume("one", size="5Gi")], "one"),
        (claim(), [volume(phase="Released")], None),
        (claim(), [volume(storage_class="other")], None),
        (claim(modes=["ReadWriteMany"]), [volume()], None),
        (claim(), [volume(claim=reference("other"))], None),
        (claim(), [volume("free"), volume("mine", size="9Gi", claim=reference(uid=None))], "mine"),
        (
            claim(selector={"matchLabels": {"disk": "ssd"}}),
            [volume("hdd"), volume("ssd", size="9Gi", labels={"disk": "ssd"})],
            "ssd",
        ),
        (claim(storage_class="standard"), [volume(storage_class="standard")], None),
    ],
    ids=[
        "the smallest that is large enough",
        "the fewest access modes beyond those asked for",
        "not one that was used before",
        "not one of another class",
        "not one without the access mode",
        "not one reserved for another claim",
        "one that names the claim, before all others",
        "one that the selector selects",
        "none before the scheduler has chosen, if the class waits",
    ],
)
def test_the_volume_of_a_claim(held: Any, volumes: Any, expected: str | None) -> None:
    assert chosen(held, *volumes) == expected


@pytest.mark.parametrize(
    ("held", "found", "event", "phase"),
    [
        (
            claim(),
            storage(),
            "FailedBinding: no persistent volumes available for this claim and no storage class",
            None,
        ),
        (
            claim(storage_class="standard"),
            storage(),
            "WaitForFirstConsumer: waiting for first consumer to be created before binding",
            None,
        ),
        (
            claim(storage_class="standard"),
            storage(users=[pod("web-0", node="")]),
            "WaitForPodScheduled: waiting for pod web-0 to be scheduled",
            None,
        ),
        (
            claim(storage_class="none"),
            storage(),
            'ProvisioningFailed: storageclass.storage.k8s.io "none" not found',
            None,
        ),
        (claim(storage_class="fast"), storage(), "ExternalProvisioning: Waiting for a volume to be created", None),
        (
            claim(volume="pv", size="9Gi"),
            storage(volume()),
            'VolumeMismatch: Cannot bind to requested volume "pv": requested PV is too small',
            None,
        ),
        (
            claim(volume="pv"),
            storage(volume(claim=reference("other"))),
            'FailedBinding: volume "pv" already bound to a different claim.',
            None,
        ),
        (
            claim(volume="pv", notes=BOUND, phase="Bound"),
            storage(),
            "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            "Lost",
        ),
        (
            claim(volume="pv", notes=BOUND, phase="Bound"),
            storage(volume(claim=reference("other"))),
            "ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly",
            "Lost",
        ),
    ],
    ids=[
        "no volume and no class",
        "no pod yet",
        "a pod without a node",
        "no such class",
        "left to the provisioner",
        "the named volume is too small",
        "the named volume has another claim",
        "the volume is gone",
        "the volume has another claim",
    ],
)
def test_claims_that_do_not_get_a_volume(held: Any, found: Storage, event: str, phase: str | None) -> None:
    actions = plan_claim(held, found)
    assert events(actions)[0].startswith(event)
    assert written(actions).get("data/status", {}).get("status", {}).get("phase") == phase


def test_the_provisioner_is_named_in_an_annotation() -> None:
    found = written(plan_claim(claim(storage_class="fast"), storage()))
    assert found["data"]["annotations"] == {
        matching.PROVISIONER: "example.com/disk",
        matching.BETA_PROVISIONER: "example.com/disk",
    }


def test_a_claim_without_a_class_gets_the_default_class_that_came_later() -> None:
    classes = [storage_class("a", default=True), storage_class("b", default=True, created="2027-01-01T00:00:00Z")]
    actions = plan_claim(claim(storage_class=None), storage(classes=classes))
    assert written(actions) == {"data": {"spec": {"storageClassName": "b"}}}
    assert not written(plan_claim(claim(storage_class=""), storage(classes=classes)))


def test_a_complete_binding_is_left_alone() -> None:
    held = claim(volume="pv", notes=BOUND, phase="Bound")
    held["status"] |= {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    bound = volume(claim=reference(), phase="Bound")
    assert plan_claim(held, storage(bound)) == ()
    assert plan_volume(bound, held) == ()


MADE = {matching.PROVISIONED_BY: provisioner.PROVISIONER, "local.path.provisioner/selected-node": "worker-1"}


@pytest.mark.parametrize(
    ("held", "owner", "expected"),
    [
        (volume(phase="Pending"), None, "Available"),
        (volume(phase="Pending", claim=reference(uid=None)), None, "Available"),
        (volume(phase="Bound", claim=reference()), None, "Released"),
        (volume(phase="Bound", claim=reference(uid="older")), claim(), "Released"),
        (volume(phase="Bound", claim=reference(), policy="Delete", notes=MADE), None, "Released"),
        (volume(phase="Released", claim=reference(), policy="Delete"), None, "Failed"),
        (
            volume(phase="Bound", claim=reference(), notes={matching.BOUND_BY_CONTROLLER: "yes"}),
            claim(volume="x"),
            "Available",
        ),
    ],
    ids=[
        "free",
        "reserved",
        "its claim is gone",
        "its claim was made anew",
        "its provisioner will delete it",
        "nobody can delete it",
        "its claim took another volume",
    ],
)
def test_the_phase_of_a_volume(held: Any, owner: Any, expected: str) -> None:
    assert written(plan_volume(held, owner))["pv/status"]["status"]["phase"] == expected


CLAIM_HELD = [matching.CLAIM_FINALIZER]


@pytest.mark.parametrize(
    ("held", "users", "expected"),
    [
        (claim(), [], CLAIM_HELD),
        (claim(finalizers=CLAIM_HELD), [], None),
        (claim(finalizers=["x", *CLAIM_HELD], deleting=True), [], ["x"]),
        (claim(finalizers=CLAIM_HELD, deleting=True), [pod("a")], None),
        (claim(finalizers=CLAIM_HELD, deleting=True), [pod("a", node="")], []),
        (claim(finalizers=CLAIM_HELD, deleting=True), [pod("a", phase="Succeeded")], []),
    ],
    ids=["added", "kept", "removed", "a pod uses it", "a pod without a node does not", "a finished pod does not"],
)
def test_a_claim_is_kept_while_a_pod_uses_it(held: Any, users: Any, expected: Any) -> None:
    finalizers = [action.patch["metadata"]["finalizers"] for action in protection.plan_claim(held, users)]  # type: ignore[union-attr]
    assert finalizers == ([] if expected is None else [expected])


@pytest.mark.parametrize(("phase", "is_kept"), [("Bound", True), ("Released", False)])
def test_a_volume_is_kept_while_it_is_bound(phase: str, is_kept: bool) -> None:
    held = volume(phase=phase)
    held["metadata"] |= {"finalizers": [matching.VOLUME_FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert (protection.plan_volume(held) == ()) == is_kept


ASKED = {matching.PROVISIONER: provisioner.PROVISIONER, matching.SELECTED_NODE: "worker-1"}
NODES = {name: node(name) for name in ("worker-1", "worker-2")}
PATH = "/var/local-path-provisioner/pvc-uid-data_default_data"


def step(held: Any, helper: Any = None, nodes: Any = NODES) -> tuple[Action, ...]:
    helpers = {helper["metadata"]["name"]: helper} if helper else {}
    return provisioner.plan_claim(held, STANDARD, provisioner.Cluster(nodes, helpers))


def helper(action: str, phase: str) -> Any:
    return pod(f"helper-pod-{action}-pvc-uid-data", node="worker-1", phase=phase)


def test_the_provisioner_makes_the_directory_by_a_pod_on_the_chosen_node_then_the_volume() -> None:
    held = claim(storage_class="standard", notes=ASKED)
    (_, made) = step(held)
    assert isinstance(made, Create)
    spec: Any = made.obj["spec"]
    assert (spec["nodeName"], spec["hostNetwork"]) == ("worker-1", True)
    assert spec["containers"][0]["command"] == ["/bin/sh", "-c", f'mkdir -m 0777 -p "{PATH}"']
    assert step(held, helper("create", "Running")) == ()
    actions = step(held, helper("create", "Succeeded"))
    bound: Any = next(action.obj for action in actions if isinstance(action, Create))
    assert bound["metadata"]["name"] == "pvc-uid-data"
    assert bound["spec"]["hostPath"]["path"] == PATH
    assert bound["spec"]["claimRef"]["uid"] == "uid-data"
    assert matching.admits_node(bound, NODES["worker-1"])
    assert not matching.admits_node(bound, NODES["worker-2"])
    assert bound["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert any(isinstance(action, Delete) and action.name.startswith("helper") for action in actions)


def test_a_directory_that_cannot_be_made_lets_the_scheduler_choose_again() -> None:
    actions = step(claim(storage_class="standard", notes=ASKED), helper("create", "Failed"))
    assert written(actions)["data"]["annotations"] == {matching.SELECTED_NODE: None}
    assert events(actions)[0].startswith("ProvisioningFailed: failed to provision volume with StorageClass")


@pytest.mark.parametrize(
    ("held", "text"),
    [
        (claim(modes=["ReadWriteMany"], notes=ASKED), "NodePath only supports ReadWriteOnce and ReadWriteOncePod"),
        (claim(selector={}, notes=ASKED) | {}, ""),
        (claim(selector={"matchLabels": {"a": "b"}}, notes=ASKED), "claim.Spec.Selector is not supported"),
    ],
    ids=["access mode", "no selector", "selector"],
)
def test_what_the_provisioner_refuses(held: Any, text: str) -> None:
    first = events(step(held))[0]
    assert (text in first) if text else first.startswith("Provisioning: ")


def test_a_released_volume_goes_with_its_directory() -> None:
    spec: Any = {"policy": "Delete", "phase": "Released", "claim": reference(), "notes": MADE}
    held = volume("pvc-uid-data", **spec)
    held["spec"]["hostPath"]["path"] = PATH
    (made,) = provisioner.plan_volume(held, provisioner.Cluster(NODES, {}))
    assert isinstance(made, Create)
    assert made.obj["spec"]["containers"][0]["command"][-1] == f'rm -rf "{PATH}"'
    done = {"helper-pod-delete-pvc-uid-data": helper("delete", "Succeeded")}
    actions = provisioner.plan_volume(held, provisioner.Cluster(NODES, done))
    assert [action.name for action in actions if isinstance(action, Delete)] == [
        "pvc-uid-data",
        "helper-pod-delete-pvc-uid-data",
    ]
    gone = provisioner.plan_volume(held, provisioner.Cluster({}, {}))
    assert [type(action) for action in gone] == [Delete], "with its node the directory is gone"


def test_the_claim_of_an_ephemeral_volume_belongs_to_its_pod() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    owner = pod("web", spec={"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]})
    (made,) = ephemeral.plan(owner, {})
    assert isinstance(made, Create)
    metadata = made.obj["metadata"]
    assert (metadata["name"], metadata["labels"]) == ("web-scratch", {"a": "b"})
    assert metadata["ownerReferences"][0]["uid"] == "uid-web"
    strange = {"web-scratch": claim("web-scratch")}
    assert events(ephemeral.plan(owner, strange))[0].startswith("ConflictingEphemeralVolumeClaim: ")
