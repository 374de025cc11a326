"""Applies the manifests of a lab file in order, and waits until the workloads in them are ready.

Bring-up forks this process onto the control-plane node as its last step. It writes its progress to
stdout, a line each. It waits as `kubectl rollout status` does, by the controllers'
observedGeneration and counts of ready pods, so a lab is reported as ready only when its workloads
are. Something that can never become ready, such as an image that the lab does not have, is an error
at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.resources import PODS, KubeObject, Resource
from kubewire.scenarios.engine.file.manifests import Manifests
from kubewire.scenarios.engine.file.spec import LabSpec

Note = Callable[[str], None]

_APPLY = {"fieldManager": "kubewire", "force": "true"}
_APPLY_PATCH = "application/apply-patch+yaml"
_POLL = 0.1
#: Exit code if a manifest cannot be applied or its pods cannot run; the last line of stderr says
#: why.
WRONG_INPUT = 2
#: Reasons of waiting containers that never end, because a lab does not pull images.
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class ManifestError(Exception):
    """A manifest cannot be applied, or cannot become ready; the text names the file, the object and
    the reason."""


def main(argv: list[str]) -> int:
    """Apply and wait. argv: path of the kubeconfig, path of the lab file as JSON. Returns 0 when
    everything is ready."""
    spec = LabSpec.parse(json.loads(Path(argv[1]).read_text()), argv[1])
    try:
        asyncio.run(apply_and_wait(argv[0], spec.manifests, lambda text: print(text, flush=True)))
    except ManifestError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    return 0


async def apply_and_wait(kubeconfig: str, manifests: tuple[Manifests, ...], note: Note) -> None:
    """Apply manifests in order, then wait for each until it is ready. Raises ManifestError."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="kubewire-up") as client:
        applied = [(where, *await _apply(client, where, obj)) for where, obj in _objects(manifests)]
        for where, resource, obj in applied:
            await _ready(client, where, resource, obj, note)


def _objects(manifests: tuple[Manifests, ...]) -> Iterator[tuple[str, KubeObject]]:
    """Yield each object with its description for people, e.g. "web.yaml: Deployment web"."""
    for one in manifests:
        for obj in one.objects:
            metadata = obj.data["metadata"]
            name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
            yield f"{one.source}: {obj.data['kind']} {name}", obj.data


async def _apply(client: Client, where: str, obj: KubeObject) -> tuple[Resource, KubeObject]:
    """Create or change an object, as `kubectl apply --server-side` does. Waits until a
    CustomResourceDefinition is established, because later objects may need it."""
    try:
        resource = await _resource(client, obj)
        namespace = obj["metadata"].get("namespace", "default") if resource.namespaced else None
        name = obj["metadata"]["name"]
        # The content type is YAML, and every JSON document is also a YAML document.
        body = orjson.dumps(obj)
        done = await client.patch(
            resource,
            name,
            body,
            namespace,
            content_type=_APPLY_PATCH,
            params=_APPLY,
        )
    except (ApiError, LookupError) as error:
        raise ManifestError(f"{where}: {error}") from error
    if obj["kind"] == "CustomResourceDefinition":
        await _until(
            client,
            resource,
            done,
            lambda item: "" if _is(item, "Established") else "not established",
        )
    return resource, done


async def _resource(client: Client, obj: KubeObject) -> Resource:
    """The resource of an object's kind, from the API's discovery. Raises LookupError, which names
    the known kinds."""
    group, _, version = obj["apiVersion"].rpartition("/")
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        listed = orjson.loads(await client.request("GET", prefix))["resources"]
    except ApiError as error:
        if error.status != 404:
            raise
        raise LookupError(
            f"the API server has no API {obj['apiVersion']}; a CustomResourceDefinition must come "
            "before objects of its kind"
        ) from error
    kinds = {entry["kind"]: entry for entry in listed if "/" not in entry["name"]}
    entry = kinds.get(obj["kind"])
    if entry is None:
        known = ", ".join(sorted(kinds))
        raise LookupError(f"{obj['apiVersion']} has no kind {obj['kind']}; it has {known}")
    return Resource(group, version, entry["name"], obj["kind"], entry["namespaced"])


async def _ready(
    client: Client,
    where: str,
    resource: Resource,
    obj: KubeObject,
    note: Note,
) -> None:
    lacks = _LACKS.get(resource.plural) if resource.group in ("", "apps") else None
    if lacks is None:
        return
    said = ""

    async def look(item: KubeObject) -> str:
        nonlocal said
        missing = lacks(item)
        if missing:
            trouble = await _trouble(client, resource, item)
            if trouble and trouble.startswith(_NO_IMAGE):
                raise ManifestError(f"{where}: {trouble}")
            text = f"{where}: {missing}" + (f" ({trouble})" if trouble else "")
            if text != said:
                note(text)
                said = text
        return missing

    while True:
        if not await look(await _found(client, where, resource, obj)):
            return
        await asyncio.sleep(_POLL)


async def _found(client: Client, where: str, resource: Resource, obj: KubeObject) -> KubeObject:
    metadata = obj["metadata"]
    while True:
        try:
            return await client.get(resource, metadata["name"], metadata.get("namespace"))
        except ApiUnavailable:
            await asyncio.sleep(_POLL)
        except ApiError as error:
            raise ManifestError(f"{where}: {error}") from error


async def _until(
    client: Client,
    resource: Resource,
    obj: KubeObject,
    lacks: Callable[[KubeObject], str],
) -> None:
    metadata = obj["metadata"]
    while True:
        if not lacks(await client.get(resource, metadata["name"], metadata.get("namespace"))):
            return
        await asyncio.sleep(_POLL)


def _workload_lacks(item: KubeObject) -> str:
    """What a Deployment or StatefulSet lacks, as `kubectl rollout status` decides."""
    status = item.get("status", {})
    spec = item["spec"]
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return "the controller has not seen it yet"
    wanted = spec.get("replicas", 1)
    ready = status.get("readyReplicas", 0)
    updated = status.get("updatedReplicas", 0)
    return "" if ready >= wanted and updated >= wanted else f"{ready} of {wanted} pods ready"


def _daemonset_lacks(item: KubeObject) -> str:
    status = item.get("status", {})
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return "the controller has not seen it yet"
    wanted = status.get("desiredNumberScheduled", 0)
    ready = status.get("numberReady", 0)
    updated = status.get("updatedNumberScheduled", 0)
    return "" if ready >= wanted and updated >= wanted else f"{ready} of {wanted} pods ready"


def _pod_lacks(item: KubeObject) -> str:
    """What a Pod lacks. A pod that has completed counts as ready."""
    phase = item.get("status", {}).get("phase", "Pending")
    return "" if _is(item, "Ready") or phase == "Succeeded" else f"not ready, phase {phase}"


def _is(item: KubeObject, condition: str) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


#: Resource -> function that says what an object of it lacks to be ready; "" if it is ready.
_LACKS: dict[str, Callable[[KubeObject], str]] = {
    "deployments": _workload_lacks,
    "statefulsets": _workload_lacks,
    "daemonsets": _daemonset_lacks,
    "pods": _pod_lacks,
}


async def _trouble(client: Client, resource: Resource, item: KubeObject) -> str:
    """Why a container of the workload waits, in the kubelet's words, or why its pod is not
    scheduled; "" if neither is the case."""
    namespace = item["metadata"]["namespace"]
    if resource.plural == "pods":
        pods = [item]
    else:
        selector = ",".join(f"{key}={value}" for key, value in _labels(item).items())
        try:
            pods = (await client.list(PODS, namespace, label_selector=selector)).items
        except ApiError:
            return ""
    return next((reason for pod in pods for reason in _reasons(pod)), "")


def _labels(item: KubeObject) -> dict[str, str]:
    labels: dict[str, str] = item["spec"].get("selector", {}).get("matchLabels") or {}
    return labels


def _reasons(pod: KubeObject) -> Iterator[str]:
    status: dict[str, Any] = pod.get("status", {})
    for container in (
        *status.get("initContainerStatuses", ()),
        *status.get("containerStatuses", ()),
    ):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            yield f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield condition.get("message") or condition.get("reason", "")
