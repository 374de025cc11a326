"""What the wait for a lab file's manifests takes for ready, for hopeless, and for worth telling."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ObjectList
from kubewire.components.kubeapi.resources import DEPLOYMENTS, PODS, KubeObject, Resource
from kubewire.lab.bringup import manifests, rollout

CRASHING: Any = {
    "name": "web", "ready": False, "restartCount": 3,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}  # fmt: skip


def workload(kind: str, status: dict[str, Any], **spec: Any) -> Any:
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}
    return {
        "kind": kind,
        "metadata": {"name": "web", "namespace": "mine", "generation": 2},
        "spec": {"replicas": 2, "selector": selector, **spec},
        "status": {"observedGeneration": 2, **status},
    }


def pod(*containers: dict[str, Any], **status: Any) -> Any:
    return {"kind": "Pod", "metadata": {"name": "p", "namespace": "mine"}, "status": {"containerStatuses": [*containers], **status}}  # fmt: skip


ONE, BOTH = {"availableReplicas": 1, "readyReplicas": 1}, {"availableReplicas": 2, "readyReplicas": 2}
ON_DELETE: Any = {"updateStrategy": {"type": "OnDelete"}}
LACKS: dict[str, tuple[str, KubeObject, str]] = {
    "a Deployment that has begun": ("deployments", workload("Deployment", {**ONE, "updatedReplicas": 2}), "1 of 2 pods ready"),
    "a Deployment with pods of the old template": ("deployments", workload("Deployment", {**BOTH, "updatedReplicas": 1}), "1 of 2 pods ready"),
    "a Deployment whose pods are ready, but not for minReadySeconds": (
        "deployments", workload("Deployment", {"readyReplicas": 2, "updatedReplicas": 2}), "0 of 2 pods ready",
    ),
    "a Deployment that is available": ("deployments", workload("Deployment", {**BOTH, "updatedReplicas": 2}), ""),
    "a Deployment of an older generation": (
        "deployments", workload("Deployment", {**BOTH, "updatedReplicas": 2, "observedGeneration": 1}),
        "the controller has not seen it yet",
    ),
    "a Deployment that is paused makes no pods": ("deployments", workload("Deployment", {}, paused=True), ""),
    "a StatefulSet below its partition": (
        "statefulsets",
        workload("StatefulSet", {**BOTH, "updatedReplicas": 1}, updateStrategy={"rollingUpdate": {"partition": 1}}), "",
    ),
    "a StatefulSet with an old pod": ("statefulsets", workload("StatefulSet", {**BOTH, "updatedReplicas": 1}), "1 of 2 pods updated"),
    "a StatefulSet that is updated by hand": ("statefulsets", workload("StatefulSet", {**BOTH, "updatedReplicas": 0}, **ON_DELETE), ""),
    "a StatefulSet with too few": ("statefulsets", workload("StatefulSet", {**ONE, "updatedReplicas": 2}), "1 of 2 pods ready"),
    "a DaemonSet on one of two nodes": (
        "daemonsets", workload("DaemonSet", {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}),
        "1 of 2 pods ready",
    ),
    "a DaemonSet that is updated by hand": (
        "daemonsets", workload("DaemonSet", {"desiredNumberScheduled": 2, "numberAvailable": 2}, **ON_DELETE), "",
    ),
    "a pod without status": ("pods", {"kind": "Pod", "metadata": {}}, "not ready, phase Pending"),
    "a pod that has ended well": ("pods", pod(phase="Succeeded"), ""),
    "a pod that is ready": ("pods", pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]), ""),
}  # fmt: skip


@pytest.mark.parametrize(("plural", "item", "text"), LACKS.values(), ids=LACKS)
def test_what_is_lacking(plural: str, item: KubeObject, text: str) -> None:
    assert rollout.lacks(plural, item) == text


WEB = workload("Deployment", {})


def waiting(reason: str, message: str = "") -> Any:
    return {"name": "web", "state": {"waiting": {"reason": reason, "message": message}}}


TIMED_OUT = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]
FULL = "0/2 nodes are available: 2 Insufficient cpu."
FAILED: Any = {"name": "once", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
STATES: dict[str, tuple[KubeObject, list[KubeObject], str, str]] = {
    "an image that nobody has": (
        WEB, [pod(), pod(waiting("ImagePullBackOff", "no ngnix"))], "ImagePullBackOff: no ngnix", "ImagePullBackOff: no ngnix",
    ),
    "a pod that ran once and failed": (
        pod(FAILED, phase="Failed"), [pod(FAILED, phase="Failed")],
        "the pod has failed: container once ended with exit code 3 (Error)", "container once ended with exit code 3 (Error)",
    ),
    "a pod that the kubelet evicted": (
        pod(phase="Failed", reason="Evicted", message="low on memory"), [], "the pod has failed: Evicted: low on memory", "",
    ),
    "a workload's failed pod, which is replaced": (WEB, [pod(phase="Failed", reason="Evicted")], "", ""),
    "a Deployment after its progressDeadlineSeconds": (
        workload("Deployment", {"conditions": TIMED_OUT}), [], "ProgressDeadlineExceeded: timed out", "",
    ),
    "a Deployment that was changed after it": (
        workload("Deployment", {"conditions": TIMED_OUT, "observedGeneration": 1}), [], "", "",
    ),
    "a pod for which no node has room": (
        WEB, [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": FULL}])], "", FULL,
    ),
    "a ConfigMap that may come later": (
        WEB, [pod(waiting("CreateContainerConfigError", 'configmap "a" not found'))], "",
        'CreateContainerConfigError: configmap "a" not found',
    ),
    "a container that crashes again and again": (
        WEB, [pod(CRASHING)], "", "CrashLoopBackOff: back-off 20s; it ended with exit code 1 (Error)",
    ),
    "a container that runs again after a crash": (
        WEB, [pod(CRASHING | {"state": {"running": {}}, "started": True})], "", "container web ended with exit code 1 (Error)",
    ),
    "a container whose probe fails": (
        WEB, [pod({"name": "web", "state": {"running": {}}, "started": True, "ready": False})], "", "container web runs and is not ready",
    ),
    "a container that starts": (WEB, [pod(waiting("ContainerCreating"))], "", ""),
    "an init container that has done its work": (
        WEB, [{"status": {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}]}}], "", "",
    ),
    "pods that cannot be created": (
        workload("Deployment", {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "no account"}]}), [],
        "", "no account",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("item", "pods", "hopeless", "trouble"), STATES.values(), ids=STATES)
def test_what_ends_the_wait_and_what_is_told(
    item: KubeObject, pods: list[KubeObject], hopeless: str, trouble: str
) -> None:
    assert (rollout.hopeless(item, pods), rollout.trouble(item, pods)) == (hopeless, trouble)


class FakeClient:
    """Answers with one state after the other, as long as there are any."""

    def __init__(self, states: list[tuple[KubeObject, list[KubeObject]]]) -> None:
        self._states = states
        self.asked: list[str] = []

    async def get(self, resource: Resource[Any], name: str, namespace: str | None) -> Any:
        return self._states[0][0]

    async def list(self, resource: Resource[Any], namespace: str, *, label_selector: str) -> ObjectList[Any]:
        self.asked.append(label_selector)
        return ObjectList((self._states.pop(0))[1], "1")


async def _wait(
    resource: Resource[Any], states: list[tuple[KubeObject, list[KubeObject]]]
) -> tuple[FakeClient, list[str]]:
    client: Any = FakeClient(states)
    notes: list[str] = []
    await manifests._ready(client, "web.yaml: it", resource, states[0][0], notes.append)
    return client, notes


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_POLL", 0.0)


READY = workload("Deployment", {**BOTH, "updatedReplicas": 2})


def test_each_trouble_is_told_once() -> None:
    states = [(WEB, [pod(CRASHING)]), (WEB, [pod(CRASHING)]), (WEB, []), (READY, [])]
    client, notes = asyncio.run(_wait(DEPLOYMENTS, states))
    assert notes == [
        "web.yaml: it: 0 of 2 pods ready (CrashLoopBackOff: back-off 20s; it ended with exit code 1 (Error))",
        "web.yaml: it: 0 of 2 pods ready",
    ]
    assert client.asked == ["app in (a,b)"] * 3


def test_a_pod_that_leaves_does_not_end_the_wait() -> None:
    leaving = pod(waiting("ErrImagePull"))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert asyncio.run(_wait(DEPLOYMENTS, [(WEB, [leaving]), (READY, [])]))[1] == ["web.yaml: it: 0 of 2 pods ready"]


def test_a_pod_that_failed_ends_the_wait_with_its_file() -> None:
    with pytest.raises(manifests.ManifestError, match=r"^web\.yaml: it: the pod has failed: container once ended"):
        asyncio.run(_wait(PODS, [(pod(FAILED, phase="Failed"), [])]))
