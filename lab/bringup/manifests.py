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
from kubewire.components.kubeapi.selectors import LabelSelector
from kubewire.lab.bringup import rollout
from kubewire.scenarios.engine.file.manifests import Manifests
from kubewire.scenarios.engine.file.spec import LabSpec

Note = Callable[[str], None]

_APPLY = {"fieldManager": "kubewire", "force": "true"}
_APPLY_PATCH = "application/apply-patch+yaml"
_POLL = 0.1
#: Exit code if a manifest cannot be applied or its pods cannot run; the last line of stderr says
#: why.
WRONG_INPUT = 2


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


async def _apply(client: Client, where: str, obj: KubeObject) -> tuple[Resource[Any], KubeObject]:
    """Create or change an object, as `kubectl apply --server-side` does. Waits until a
    CustomResourceDefinition is established, because later objects may need it."""
    try:
        resource = await resource_of(client, obj)
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
            lambda item: "" if rollout.is_true(item, "Established") else "not established",
        )
    return resource, done


async def resource_of(client: Client, obj: KubeObject) -> Resource[Any]:
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
    client: Client, where: str, resource: Resource[Any], obj: KubeObject, note: Note
) -> None:
    """Returns when it is ready; raises ManifestError when it will not be. Bring-up limits how long
    it may take."""
    if not rollout.is_waited_for(resource.group, resource.plural):
        return
    said = ""
    while missing := rollout.lacks(
        resource.plural, item := await _found(client, where, resource, obj)
    ):
        pods = await _pods(client, item)
        if reason := rollout.hopeless(item, pods):
            raise ManifestError(f"{where}: {reason}")
        trouble = rollout.trouble(item, pods)
        text = f"{where}: {missing}" + (f" ({trouble})" if trouble else "")
        if text != said:
            note(text)
            said = text
        await asyncio.sleep(_POLL)


async def _found(
    client: Client, where: str, resource: Resource[Any], obj: KubeObject
) -> KubeObject:
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
    resource: Resource[Any],
    obj: KubeObject,
    lacks: Callable[[KubeObject], str],
) -> None:
    metadata = obj["metadata"]
    while True:
        if not lacks(await client.get(resource, metadata["name"], metadata.get("namespace"))):
            return
        await asyncio.sleep(_POLL)


async def _pods(client: Client, item: KubeObject) -> list[Any]:
    """The pods of a workload that stay, or the pod itself."""
    if item["kind"] == "Pod":
        return [item]
    selector = str(LabelSelector.from_object(item["spec"]["selector"]))
    try:
        listed = await client.list(PODS, item["metadata"]["namespace"], label_selector=selector)
    except (ApiError, ApiUnavailable):
        return []
    return [pod for pod in listed.items if "deletionTimestamp" not in pod["metadata"]]
