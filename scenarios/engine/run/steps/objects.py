"""The actions `apply`, `delete`, `scale` and `patch`, which change objects of the Kubernetes
API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from kubewire.components.kubeapi.resources import SERVICEACCOUNTS, KubeObject, Resource
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.run.steps.stage import DEFAULT_WAIT, Done, Stage, StepFailed, poll
from kubewire.scenarios.engine.run.steps.waiting import ROLLOUTS, object_named, rollout
from kubewire.scenarios.engine.scene.scene import Scene
from kubewire.scenarios.engine.verbs.base import listed


def apply(stage: Stage, step: Step) -> Done:
    return Done(f"applied {listed(apply_objects(stage.scene, step.args))}")


def apply_objects(scene: Scene, objects: tuple[Mapping[str, Any], ...]) -> list[str]:
    """Applies objects in order; returns KIND/NAME of each."""
    names = []
    for item in objects:
        resolved: KubeObject = scene.resolve(item)
        try:
            scene.cluster.apply(resolved, scene.namespace)
        except LookupError as error:
            raise StepFailed(str(error.args[0])) from error
        if item["kind"] == "Namespace":
            usable(scene, resolved["metadata"]["name"])
        names.append(f"{item['kind'].lower()}/{item['metadata']['name']}")
    return names


def usable(scene: Scene, namespace: str, within: float = DEFAULT_WAIT) -> None:
    """Waits for the default ServiceAccount of a namespace, because admission refuses pods before it
    exists."""

    def look() -> str:
        account = scene.cluster.find(SERVICEACCOUNTS, "default", namespace)
        return "" if account else "it has no default ServiceAccount yet"

    poll(scene, look, within, f"namespace {namespace} usable")


def delete(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    args = step.args
    options = args if isinstance(args, dict) else {"objects": args}
    texts = [options["objects"]] if isinstance(options["objects"], str) else options["objects"]
    objects = [object_named(scene, scene.resolve(text)) for text in texts]
    uids = {item: _uid(scene, *item) for item in objects}
    for resource, name, namespace in objects:
        if not scene.cluster.delete(resource, name, namespace, options.get("grace")):
            raise StepFailed(f'{resource.plural} "{name}" not found')
    if options.get("wait", True):
        for (resource, name, namespace), uid in uids.items():
            what = f"{resource.plural}/{name} gone"
            poll(
                scene,
                partial(_still, scene, (resource, name, namespace), uid),
                DEFAULT_WAIT,
                what,
            )
    return Done(f"deleted {listed(texts)}")


def _uid(scene: Scene, resource: Resource[Any], name: str, namespace: str) -> str:
    found = scene.cluster.find(resource, name, namespace)
    return found["metadata"].get("uid", "") if found else ""


def _still(scene: Scene, item: tuple[Resource[Any], str, str], uid: str) -> str:
    now = _uid(scene, *item)
    return "it still exists" if now and now == uid else ""


def scale(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    for text, replicas in step.args.items():
        resource, name, namespace = object_named(scene, text)
        scene.cluster.patch(resource, name, {"spec": {"replicas": replicas}}, namespace)
        if resource.plural in ROLLOUTS:
            poll(
                scene,
                partial(rollout, scene, text),
                DEFAULT_WAIT,
                f"{text} with {replicas} replicas",
            )
    return Done("scaled " + listed(f"{text} to {replicas}" for text, replicas in step.args.items()))


def patch(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    args = step.args
    resource, name, namespace = object_named(scene, scene.resolve(args["object"]))
    body = scene.resolve(args["patch"])
    kind = args.get("type", "json" if isinstance(body, list) else "merge")
    scene.cluster.patch(resource, name, body, namespace, kind, args.get("subresource", ""))
    return Done(f"patched {args['object']}", json.dumps(body))
