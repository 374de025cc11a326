"""The action `wait`: waits until objects of the Kubernetes API are in a certain state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.kubeapi.jsonpath import JSONPath, as_text
from kubewire.components.kubeapi.resources import PODS, KubeObject, Resource
from kubewire.scenarios.engine.file.duration import seconds, shown
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.run.steps.stage import DEFAULT_WAIT, Done, Stage, StepFailed, poll
from kubewire.scenarios.engine.scene.scene import Scene
from kubewire.scenarios.engine.verbs.base import listed

#: Resources whose rollout can be awaited, as with `kubectl rollout status`.
ROLLOUTS = ("deployments", "daemonsets", "statefulsets", "replicasets")
#: Reasons for which a container waits during a normal start.
STARTING = ("ContainerCreating", "PodInitializing")


def wait(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    args = step.args
    text = scene.resolve(args["for"])
    within = seconds(args.get("within", DEFAULT_WAIT))
    took = poll(scene, lambda: _waited(scene, text, args), within, f"{text} {_wish(args)}")
    return Done(f"{text} {_wish(args)} after {shown(took)}")


def _wish(args: Mapping[str, Any]) -> str:
    if args.get("deleted"):
        return "deleted"
    if args.get("rollout"):
        return "rolled out"
    if "condition" in args:
        return f"is {args['condition']}"
    return f"{args['jsonpath']} is {args.get('is', 'there')}" if "jsonpath" in args else "there"


def _waited(scene: Scene, text: str, args: Mapping[str, Any]) -> str:
    """What is still missing; "" if nothing is."""
    kind, _, name = text.partition("/")
    if args.get("rollout"):
        return rollout(scene, text)
    resource = scene.cluster.resource(kind)
    if name:
        resource, bare, namespace = object_named(scene, text)
        one = scene.cluster.find(resource, bare, namespace)
        objects = [one] if one else []
    else:
        selector = scene.resolve(args.get("selector", ""))
        objects = scene.cluster.list(resource, scene.namespace, selector)
    if args.get("deleted"):
        return f"{len(objects)} still there" if objects else ""
    wanted = args.get("count", 1)
    fitting = [item for item in objects if not _lacks(scene, item, args)]
    if len(fitting) >= wanted and (name or "count" not in args or len(objects) == wanted):
        return "" if len(fitting) == len(objects) else _lacks_any(scene, objects, args)
    return _lacks_any(scene, objects, args) or f"{len(objects)} there, {wanted} wanted"


def _lacks_any(scene: Scene, objects: list[KubeObject], args: Mapping[str, Any]) -> str:
    problems = [(item["metadata"]["name"], _lacks(scene, item, args)) for item in objects]
    return next(
        (f"{name} {problem}" for name, problem in problems if problem),
        "" if objects else "not there",
    )


def _lacks(scene: Scene, item: KubeObject, args: Mapping[str, Any]) -> str:
    if "condition" in args:
        name, _, wanted = args["condition"].partition("=")
        for condition in item.get("status", {}).get("conditions", ()):
            if condition["type"].lower() == name.lower():
                ok = condition["status"] == (wanted or "True")
                said = f"has {name}={condition['status']} {condition.get('message', '')}".rstrip()
                return "" if ok else said + _pod_trouble(item)
        phase = item.get("status", {}).get("phase", "unknown")
        return f"has no condition {name}" + (_pod_trouble(item) or f" (phase {phase})")
    if "jsonpath" in args:
        values = [as_text(value) for value in JSONPath.parse(args["jsonpath"]).find(item)]
        if "is" not in args:
            return "" if values else f"has no {args['jsonpath']}"
        wanted_text = as_text(scene.resolve(args["is"]))
        return "" if wanted_text in values else f"has {args['jsonpath']} {listed(values)}"
    return ""


def _pod_trouble(item: KubeObject) -> str:
    """Why a pod does not start, as its containers' states say."""
    status = item.get("status", {})
    states = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    said = []
    for state in states:
        waiting = state.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, *STARTING):
            said.append(f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": "))
    return f" ({listed(said)})" if said else ""


def rollout(scene: Scene, text: str) -> str:
    """What a rollout still lacks, as `kubectl rollout status` decides; "" if it is complete."""
    resource, name, namespace = object_named(scene, text)
    found = scene.cluster.find(resource, name, namespace)
    if not found:
        return "not there"
    status = found.get("status", {})
    spec = found["spec"]
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return "waiting for the controller to see the change"
    if resource.plural == "daemonsets":
        wanted = status.get("desiredNumberScheduled", 0)
        ready = status.get("numberReady", 0)
        updated = status.get("updatedNumberScheduled", wanted)
    else:
        wanted = spec.get("replicas", 1)
        ready = status.get("readyReplicas", 0)
        updated = status.get("updatedReplicas", wanted if resource.plural == "replicasets" else 0)
    current = status.get("replicas", ready)
    if ready == wanted == updated == current:
        return ""
    return f"{ready} of {wanted} ready, {updated} updated, {current} in all"


def ready(scene: Scene, objects: Sequence[Mapping[str, Any]], within: float) -> float:
    """Waits until the pods among these manifests are Ready; returns the seconds that this took."""
    metadata = [scene.resolve(item["metadata"]) for item in objects if item["kind"] == "Pod"]
    wanted = [(item.get("namespace", scene.namespace), item["name"]) for item in metadata]

    def look() -> str:
        found = {
            (namespace, pod["metadata"]["name"]): pod
            for namespace in {namespace for namespace, _ in wanted}
            for pod in scene.cluster.list(PODS, namespace)
        }
        for key in wanted:
            if key not in found:
                return f"{key[1]} not there"
            if problem := _lacks(scene, found[key], {"condition": "Ready"}):
                return f"{key[1]} {problem}"
        return ""

    return poll(scene, look, within, "pods ready")


def object_named(scene: Scene, text: str) -> tuple[Resource[Any], str, str]:
    """KIND/NAME or KIND/NS/NAME -> (resource, name, namespace)."""
    kind, separator, rest = text.partition("/")
    if not separator:
        raise StepFailed(f"{text!r} does not name an object; write KIND/NAME, e.g. pod/web")
    resource = scene.cluster.resource(kind)
    namespace, name = scene.qualified(rest)
    return resource, name, namespace if resource.namespaced else ""
