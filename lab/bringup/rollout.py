"""Whether what a manifest has made is ready, as `kubectl rollout status` decides it, and why it is
not. Pure.

A pod that waits may still become ready whatever it waits for: a ConfigMap may come later, a crash
may be over when the database answers, a node may get room. So only what cannot pass by itself ends
the wait (`hopeless`), and all else is told (`trouble`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject

_UNSEEN = "the controller has not seen it yet"
#: A container that waits for this reason waits in vain: nothing is ever pulled.
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
#: A container that waits for this reason is on its way.
_STARTING = (None, "ContainerCreating", "PodInitializing")


def is_waited_for(group: str, plural: str) -> bool:
    return group in ("", "apps") and plural in _LACKS


def lacks(plural: str, item: KubeObject) -> str:
    """What is missing until the object is ready; "" when it is."""
    return _LACKS[plural](item)


def hopeless(item: KubeObject, pods: Sequence[KubeObject]) -> str:
    """Why the object will not become ready by itself; "" while it may.

    pods are those of a workload, or the object itself.
    """
    if reason := _progress_has_ended(item):
        return reason
    if item.get("status", {}).get("phase") == "Failed":
        return f"the pod has failed: {_why_failed(item)}"
    return next((said for pod in pods for said in _said(pod) if said.startswith(_NO_IMAGE)), "")


def trouble(item: KubeObject, pods: Sequence[KubeObject]) -> str:
    """What keeps the object from being ready, in upstream's words where there are any; "" if
    nothing is known."""
    if (failure := _condition(item, "ReplicaFailure")) and failure["status"] == "True":
        return str(failure.get("message") or failure.get("reason", ""))
    return next((said for pod in pods for said in _said(pod)), "")


def _deployment_lacks(item: KubeObject) -> str:
    status, spec = item.get("status", {}), item["spec"]
    if _is_unseen(item):
        return _UNSEEN
    wanted = spec.get("replicas", 1)
    if spec.get("paused"):  # Nothing happens before someone resumes it.
        return ""
    available = min(status.get("availableReplicas", 0), status.get("updatedReplicas", 0))
    return "" if available >= wanted else f"{available} of {wanted} pods ready"


def _statefulset_lacks(item: KubeObject) -> str:
    status, spec = item.get("status", {}), item["spec"]
    if _is_unseen(item):
        return _UNSEEN
    strategy = spec.get("updateStrategy") or {}
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    # Pods below the partition keep the old revision, and with OnDelete all do.
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    to_update = 0 if strategy.get("type") == "OnDelete" else max(0, wanted - partition)
    return _counted(ready, wanted, status.get("updatedReplicas", 0), to_update)


def _daemonset_lacks(item: KubeObject) -> str:
    status, spec = item.get("status", {}), item["spec"]
    if _is_unseen(item):
        return _UNSEEN
    wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    to_update = 0 if (spec.get("updateStrategy") or {}).get("type") == "OnDelete" else wanted
    return _counted(ready, wanted, status.get("updatedNumberScheduled", 0), to_update)


def _counted(ready: int, wanted: int, updated: int, to_update: int) -> str:
    if ready < wanted:
        return f"{ready} of {wanted} pods ready"
    return f"{updated} of {to_update} pods updated" if updated < to_update else ""


def _pod_lacks(item: KubeObject) -> str:
    """A pod that has done its work is ready, too."""
    phase = item.get("status", {}).get("phase", "Pending")
    return "" if phase == "Succeeded" or is_true(item, "Ready") else f"not ready, phase {phase}"


_LACKS: Mapping[str, Callable[[KubeObject], str]] = {
    "deployments": _deployment_lacks,
    "statefulsets": _statefulset_lacks,
    "daemonsets": _daemonset_lacks,
    "pods": _pod_lacks,
}


def _is_unseen(item: KubeObject) -> bool:
    generation: int = item["metadata"].get("generation", 0)
    return bool(item.get("status", {}).get("observedGeneration", 0) < generation)


def is_true(item: KubeObject, condition: str) -> bool:
    """Whether the object has this condition and its status is "True"."""
    found = _condition(item, condition)
    return found is not None and found["status"] == "True"


def _condition(item: KubeObject, name: str) -> KubeObject | None:
    conditions = item.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == name), None)


def _progress_has_ended(item: KubeObject) -> str:
    """spec.progressDeadlineSeconds of a Deployment, which the controller watches over."""
    progress = _condition(item, "Progressing")
    if progress is None or progress.get("reason") != "ProgressDeadlineExceeded" or _is_unseen(item):
        return ""
    return f"ProgressDeadlineExceeded: {progress.get('message', '')}"


def _why_failed(pod: KubeObject) -> str:
    """The kubelet's reason, such as Evicted, or the container that ended."""
    status = pod["status"]
    if status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    return next(
        (f"container {name}{ended}" for name, ended, _ in _containers(pod) if ended),
        "its containers ended",
    )


def _said(pod: KubeObject) -> Iterator[str]:
    """Why a container is not ready, in the kubelet's words where it has any, or why the pod is on
    no node."""
    for name, ended, container in _containers(pod):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in _STARTING:
            yield f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ") + (
                f"; it{ended}" if ended else ""
            )
        elif not container.get("ready") and ended:
            yield f"container {name}{ended}"
        elif not container.get("ready") and container.get("started"):
            yield f"container {name} runs and is not ready"
    scheduled = _condition(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False":
        yield scheduled.get("message") or scheduled.get("reason", "")


def _containers(pod: KubeObject) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Name, how it ended last (" ended with exit code 1 (Error)", "" if it did not fail) and status
    of each."""
    status: Mapping[str, Any] = pod.get("status", {})
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or ():
            yield container["name"], _ended(container), container


def _ended(container: Mapping[str, Any]) -> str:
    states = (container.get("state") or {}, container.get("lastState") or {})
    last: Mapping[str, Any] = next(
        (state["terminated"] for state in states if "terminated" in state), {}
    )
    if not last.get("exitCode"):
        return ""
    return f" ended with exit code {last['exitCode']}" + (
        f" ({last['reason']})" if last.get("reason") else ""
    )
