"""Completion indexes of Indexed Jobs: status.completedIndexes ("0,2-5") and the pod of an index."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kubewire.components.controllers.meta import annotations_of
from kubewire.components.controllers.podtemplate import pod_from_template

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import EnvVar, EnvVarSource, Job, Pod

INDEX = "batch.kubernetes.io/job-completion-index"
FINALIZER = "batch.kubernetes.io/job-tracking"


def is_indexed(job: Job) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def parse_indexes(text: str) -> set[int]:
    """Parses a list of indexes: 1,3-5 means {1, 3, 4, 5}."""
    indexes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indexes.update(range(int(first), int(last or first) + 1))
    return indexes


def format_indexes(indexes: Iterable[int]) -> str:
    """Formats sorted indexes; upstream writes three or more consecutive ones as a range."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(indexes), None]:
        if run and (index is None or index != run[-1] + 1):
            separator = "-" if len(run) > 2 else ","
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}{separator}{run[-1]}")
            run = []
        if index is not None:
            run.append(index)
    return ",".join(parts)


def index_of(pod: Pod) -> int | None:
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdecimal() and len(text) < 19 else None


def new_pod(job: Job, index: int | None) -> Pod:
    """Builds a pod of the Job with the tracking finalizer.

    The pod of an Indexed Job has its index in its name, host name, label and environment.
    """
    pod = pod_from_template(job, job["spec"]["template"])
    metadata = pod["metadata"]
    name = job["metadata"]["name"]
    metadata["finalizers"] = [*metadata["finalizers"], FINALIZER]
    metadata["labels"] = _labels(job) | metadata["labels"]
    if index is None:
        return pod
    metadata["generateName"] = f"{name}-{index}-"
    metadata["annotations"][INDEX] = metadata["labels"][INDEX] = str(index)
    pod["spec"].setdefault("hostname", f"{name}-{index}")
    path: EnvVarSource = {
        "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{INDEX}']"}
    }
    variable: EnvVar = {"name": "JOB_COMPLETION_INDEX", "valueFrom": path}
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        given = container.get("env") or []
        if not any(item["name"] == variable["name"] for item in given):
            container["env"] = [*given, copy.deepcopy(variable)]
    return pod


def _labels(job: Job) -> dict[str, str]:
    """The Job's labels, which the API server normally has put into the template already."""
    uid = job["metadata"]["uid"]
    name = job["metadata"]["name"]
    return {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
