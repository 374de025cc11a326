"""A lab file's manifests: applied in order, then waited for until what runs is ready.

Forked onto the control-plane node at the end of bring-up; notes on progress go to stdout, a line each.
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
#: The exit code when a manifest cannot be applied or what it makes cannot run; the last line of stderr says why.
WRONG_INPUT = 2
#: A container that waits for this reason waits in vain: nothing is ever pulled.
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class ManifestError(Exception):
    """Says which file, which object and why."""


def main(argv: list[str]) -> int:
    """argv: kubeconfig, lab file as JSON. Returns 0 when everything is ready."""
    spec = LabSpec.parse(json.loads(Path(argv[1]).read_text()), argv[1])
    try:
        asyncio.run(apply_and_wait(argv[0], spec.manifests, lambda text: print(text, flush=True)))
    except ManifestError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    return 0


async def apply_and_wait(kubeconfig: str, manifests: tuple[Manifests, ...], note: Note) -> None:
    """Raises ManifestError."""
    async with Client.from_kubeconfig(kubeconfig, user_agent="kubewire-up") as client:
        applied = [(where, *await _apply(client, where, obj)) for where, obj in _objects(manifests)]
        for where, resource, obj in applied:
            await _ready(client, where, resource, obj, note)


def _objects(manifests: tuple[Manifests, ...]) -> Iterator[tuple[str, KubeObject]]:
    """With what a person calls each: "web.yaml: Deployment web"."""
    for one in manifests:
        for obj in one.objects:
            metadata = obj.data["metadata"]
            name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
            yield f"{one.source}: {obj.data['kind']} {name}", obj.data


async def _apply(client: Client, where: str, obj: KubeObject) -> tuple[Resource[Any], KubeObject]:
    """As `kubectl apply --server-side`: what is there already gets what the manifest says."""
    try:
        resource = await _resource(client, obj)
        namespace = obj["metadata"].get("namespace", "default") if resource.namespaced else None
        name = obj["metadata"]["name"]
        # JSON is YAML.
        body = orjson.dumps(obj)
        done = await client.patch(resource, name, body, namespace, content_type=_APPLY_PATCH, params=_APPLY)
    except (ApiError, LookupError) as error:
        raise ManifestError(f"{where}: {error}") from error
    if obj["kind"] == "CustomResourceDefinition":
        await _until(client, resource, done, lambda item: "" if _is(item, "Established") else "not established")
    return resource, done


async def _resource(client: Client, obj: KubeObject) -> Resource[Any]:
    """By discovery. Raises LookupError that names the kinds there are."""
    group, _, version = obj["apiVersion"].rpartition("/")
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        listed = orjson.loads(await client.request("GET", prefix))["resources"]
    except ApiError as error:
        if error.status != 404:
            raise
        raise LookupError(f"no API {obj['apiVersion']}; is the CustomResourceDefinition further down?") from error
    kinds = {entry["kind"]: entry for entry in listed if "/" not in entry["name"]}
    entry = kinds.get(obj["kind"])
    if entry is None:
        raise LookupError(f"{obj['apiVersion']} has no kind {obj['kind']}; it has {', '.join(sorted(kinds))}")
    return Resource(group, version, entry["name"], obj["kind"], entry["namespaced"])


async def _ready(client: Client, where: str, resource: Resource[Any], obj: KubeObject, note: Note) -> None:
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


async def _found(client: Client, where: str, resource: Resource[Any], obj: KubeObject) -> KubeObject:
    metadata = obj["metadata"]
    while True:
        try:
            return await client.get(resource, metadata["name"], metadata.get("namespace"))
        except ApiUnavailable:
            await asyncio.sleep(_POLL)
        except ApiError as error:
            raise ManifestError(f"{where}: {error}") from error


async def _until(client: Client, resource: Resource[Any], obj: KubeObject, lacks: Callable[[KubeObject], str]) -> None:
    metadata = obj["metadata"]
    while True:
        if not lacks(await client.get(resource, metadata["name"], metadata.get("namespace"))):
            return
        await asyncio.sleep(_POLL)


def _workload_lacks(item: KubeObject) -> str:
    """As `kubectl rollout status` decides."""
    status, spec = item.get("status", {}), item["spec"]
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return "the controller has not seen it yet"
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    updated = status.get("updatedReplicas", 0)
    return "" if ready >= wanted and updated >= wanted else f"{ready} of {wanted} pods ready"


def _daemonset_lacks(item: KubeObject) -> str:
    status = item.get("status", {})
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return "the controller has not seen it yet"
    wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    updated = status.get("updatedNumberScheduled", 0)
    return "" if ready >= wanted and updated >= wanted else f"{ready} of {wanted} pods ready"


def _pod_lacks(item: KubeObject) -> str:
    """A pod that has done its work is ready, too."""
    phase = item.get("status", {}).get("phase", "Pending")
    return "" if _is(item, "Ready") or phase == "Succeeded" else f"not ready, phase {phase}"


def _is(item: KubeObject, condition: str) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


#: Resource -> what is missing until an object of it is ready.
_LACKS: dict[str, Callable[[KubeObject], str]] = {
    "deployments": _workload_lacks,
    "statefulsets": _workload_lacks,
    "daemonsets": _daemonset_lacks,
    "pods": _pod_lacks,
}


async def _trouble(client: Client, resource: Resource[Any], item: KubeObject) -> str:
    """Why a container of it waits, in the kubelet's words, or why its pod is on no node."""
    namespace = item["metadata"]["namespace"]
    if resource.plural == "pods":
        pods: list[Any] = [item]
    else:
        selector = ",".join(f"{key}={value}" for key, value in _labels(item).items())
        try:
            pods = (await client.list(PODS, namespace, label_selector=selector)).items
        except ApiError:
            return ""
    return next((said for pod in pods for said in _said(pod)), "")


def _labels(item: KubeObject) -> dict[str, str]:
    labels: dict[str, str] = item["spec"].get("selector", {}).get("matchLabels") or {}
    return labels


def _said(pod: KubeObject) -> Iterator[str]:
    status: dict[str, Any] = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            yield f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield condition.get("message") or condition.get("reason", "")
