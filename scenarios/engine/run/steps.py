"""What each action of a scenario does. ACTIONS is the list; each returns a line that says what was done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kubewire.components.kernel.features import has_virtual_time
from kubewire.components.kubeapi.resources import PODS, SERVICEACCOUNTS, KubeObject, Resource
from kubewire.scenarios.engine.events.results import ExpectationResult, StepResult
from kubewire.scenarios.engine.file import faults
from kubewire.scenarios.engine.file.duration import seconds, shown
from kubewire.scenarios.engine.file.jsonpath import JSONPath, as_text
from kubewire.scenarios.engine.file.model import Case, Step
from kubewire.scenarios.engine.handle import Background, ComponentAction
from kubewire.scenarios.engine.packets.capturing import CaptureFailed, RunningCapture, compile_filter, locate
from kubewire.scenarios.engine.run.expect import evaluate
from kubewire.scenarios.engine.scene.api import ApiError
from kubewire.scenarios.engine.scene.scene import NotYet, Scene, SceneError
from kubewire.scenarios.engine.verbs.base import listed
from kubewire.scenarios.engine.verbs.commands import argv_of, execute, exit_problem

DEFAULT_WAIT = 60.0
#: Reasons of a container that waits for its turn only.
STARTING = ("ContainerCreating", "PodInitializing")


class StepFailed(Exception):
    """A step that could not do what it says; the text says why."""


@dataclass(frozen=True)
class Done:
    """message: one line; output: what a person may want to read."""

    message: str
    output: str = ""
    expectations: tuple[ExpectationResult, ...] = ()


@dataclass
class Stage:
    """A scene, and what has to be put back when the case ends: components, by (name, host); links; programs."""

    scene: Scene
    case: Case
    disturbed: list[tuple[str, str]]
    faulty: dict[tuple[str, str], None] = field(default_factory=dict)
    programs: dict[str, Background] = field(default_factory=dict)


def perform(stage: Stage, step: Step) -> StepResult:
    """One step. Never raises for what a scenario or lab can do wrong."""
    began = time.monotonic()
    try:
        done = ACTIONS[step.action](stage, step)
    except (StepFailed, CaptureFailed, NotYet, SceneError, ApiError, LookupError, OSError, ValueError) as error:
        return StepResult(step, "failed", time.monotonic() - began, _sentence(error))
    failed = [result for result in done.expectations if result.status != "passed"]
    status = failed[0].status if failed else "passed"
    message = done.message or (failed[0].message if failed else "")
    return StepResult(step, status, time.monotonic() - began, message, done.output, done.expectations)


def _sentence(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)


def poll(scene: Scene, look: Callable[[], str], within: float, what: str) -> float:
    """Call look until it returns "" (seconds that took); raises StepFailed with its last words."""
    began, pause, within = time.monotonic(), 0.03, scene.left(within)
    while True:
        try:
            problem = look()
        except NotYet as error:
            problem = str(error)
        took = time.monotonic() - began
        if not problem:
            return took
        if took >= within:
            raise StepFailed(f"{what}: not within {shown(within)}{scene.late}: {problem}")
        scene.pause(min(pause, within - took))
        pause = min(pause * 1.4, 0.3)


def note(stage: Stage, step: Step) -> Done:
    return Done("", stage.scene.resolve(step.args).strip())


def apply(stage: Stage, step: Step) -> Done:
    return Done(f"applied {listed(apply_objects(stage.scene, step.args))}")


def apply_objects(scene: Scene, objects: tuple[Mapping[str, Any], ...]) -> list[str]:
    """Apply them in order; KIND/NAME of each."""
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
    """Wait for a namespace's default ServiceAccount: until then its pods are refused (admission ServiceAccount)."""

    def look() -> str:
        return "" if scene.cluster.find(SERVICEACCOUNTS, "default", namespace) else "no default ServiceAccount yet"

    poll(scene, look, within, f"namespace {namespace} usable")


def _object(scene: Scene, text: str) -> tuple[Resource, str, str]:
    """KIND/NAME or KIND/NS/NAME -> (resource, name, namespace)."""
    kind, separator, rest = text.partition("/")
    if not separator:
        raise StepFailed(f"{text!r}: write KIND/NAME")
    resource = scene.cluster.resource(kind)
    namespace, name = scene.qualified(rest)
    return resource, name, namespace if resource.namespaced else ""


def delete(stage: Stage, step: Step) -> Done:
    scene, args = stage.scene, step.args
    options = args if isinstance(args, dict) else {"objects": args}
    texts = [options["objects"]] if isinstance(options["objects"], str) else options["objects"]
    objects = [_object(scene, scene.resolve(text)) for text in texts]
    uids = {item: _uid(scene, *item) for item in objects}
    for resource, name, namespace in objects:
        if not scene.cluster.delete(resource, name, namespace, options.get("grace")):
            raise StepFailed(f'{resource.plural} "{name}" not found')
    if options.get("wait", True):
        for (resource, name, namespace), uid in uids.items():
            what = f"{resource.plural}/{name} gone"
            poll(scene, partial(_still, scene, (resource, name, namespace), uid), DEFAULT_WAIT, what)
    return Done(f"deleted {listed(texts)}")


def _uid(scene: Scene, resource: Resource, name: str, namespace: str) -> str:
    found = scene.cluster.find(resource, name, namespace)
    return found["metadata"].get("uid", "") if found else ""


def _still(scene: Scene, item: tuple[Resource, str, str], uid: str) -> str:
    now = _uid(scene, *item)
    return "is still there" if now and now == uid else ""


def scale(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    for text, replicas in step.args.items():
        resource, name, namespace = _object(scene, text)
        scene.cluster.patch(resource, name, {"spec": {"replicas": replicas}}, namespace)
        if resource.plural in ROLLOUTS:
            poll(scene, partial(_rollout, scene, text), DEFAULT_WAIT, f"{text} with {replicas} replicas")
    return Done("scaled " + listed(f"{text} to {replicas}" for text, replicas in step.args.items()))


def patch(stage: Stage, step: Step) -> Done:
    scene, args = stage.scene, step.args
    resource, name, namespace = _object(scene, scene.resolve(args["object"]))
    body = scene.resolve(args["patch"])
    kind = args.get("type", "json" if isinstance(body, list) else "merge")
    scene.cluster.patch(resource, name, body, namespace, kind, args.get("subresource", ""))
    return Done(f"patched {args['object']}", json.dumps(body))


ROLLOUTS = ("deployments", "daemonsets", "statefulsets", "replicasets")


def wait(stage: Stage, step: Step) -> Done:
    scene, args = stage.scene, step.args
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
    """What is missing, "" when nothing is."""
    kind, _, name = text.partition("/")
    if args.get("rollout"):
        return _rollout(scene, text)
    resource = scene.cluster.resource(kind)
    if name:
        resource, bare, namespace = _object(scene, text)
        one = scene.cluster.find(resource, bare, namespace)
        objects = [one] if one else []
    else:
        objects = scene.cluster.list(resource, scene.namespace, scene.resolve(args.get("selector", "")))
    if args.get("deleted"):
        return f"{len(objects)} still there" if objects else ""
    wanted = args.get("count", 1)
    fitting = [item for item in objects if not _lacks(scene, item, args)]
    if len(fitting) >= wanted and (name or "count" not in args or len(objects) == wanted):
        return "" if len(fitting) == len(objects) else _lacks_any(scene, objects, args)
    return _lacks_any(scene, objects, args) or f"{len(objects)} there, {wanted} wanted"


def _lacks_any(scene: Scene, objects: list[KubeObject], args: Mapping[str, Any]) -> str:
    problems = [(item["metadata"]["name"], _lacks(scene, item, args)) for item in objects]
    return next((f"{name} {problem}" for name, problem in problems if problem), "" if objects else "not there")


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
    """Why a pod does not come up, in its containers' words."""
    status = item.get("status", {})
    states = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    said = []
    for state in states:
        waiting = state.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, *STARTING):
            said.append(f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": "))
    return f" ({listed(said)})" if said else ""


def _rollout(scene: Scene, text: str) -> str:
    """As `kubectl rollout status` decides."""
    resource, name, namespace = _object(scene, text)
    found = scene.cluster.find(resource, name, namespace)
    if not found:
        return "not there"
    status, spec = found.get("status", {}), found["spec"]
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return "waiting for the controller to see the change"
    if resource.plural == "daemonsets":
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        updated = status.get("updatedNumberScheduled", wanted)
    else:
        wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
        updated = status.get("updatedReplicas", wanted if resource.plural == "replicasets" else 0)
    current = status.get("replicas", ready)
    if ready == wanted == updated == current:
        return ""
    return f"{ready} of {wanted} ready, {updated} updated, {current} in all"


def execute_command(stage: Stage, step: Step) -> Done:
    scene, args = stage.scene, step.args
    source = scene.source(scene.resolve(args["from"]))[0]
    command = args["command"]
    argv = argv_of(tuple(scene.resolve([command] if isinstance(command, str) else command)))
    done = execute(scene, source, argv, scene.left(seconds(args.get("timeout", 30))))
    if problem := exit_problem(done, args.get("exit", 0)):
        raise StepFailed(f"{source.name}: {problem}")
    if name := args.get("save"):
        scene.saved[name] = done.text.strip()
    return Done(f"{source.name}$ {argv[-1] if argv[0] == 'sh' else ' '.join(argv)}", done.text.rstrip())


def capture(stage: Stage, step: Step) -> Done:
    scene, args = stage.scene, step.args
    if name := args.get("stop"):
        if name not in scene.captures:
            raise StepFailed(f"no capture {name!r}; there are {listed(scene.captures)}")
        scene.captures[name].stop()
        return Done(f"stopped capture {name}")
    points = [scene.resolve(point) for point in args["on"]]

    def find_pod(text: str) -> tuple[str, str]:
        end = scene.source(f"pod:{text}")[0]
        return end.node, end.ip

    located = [locate(point, find_pod, scene.hosts) for point in points]
    expression = scene.resolve(args.get("filter", ""))
    name = args["start"]
    if old := scene.captures.pop(name, None):
        old.stop()
    scene.captures[name] = RunningCapture.start(
        scene.lab,
        f"{scene.slug}-{name}",
        located,
        scene.lab.state_dir / "captures",
        program=compile_filter(expression) if expression else (),
        max_packets=args.get("maxPackets", 20_000),
        max_seconds=args.get("maxSeconds", 600.0),
    )
    return Done(f"capturing at {listed(points)}")


def component(stage: Stage, step: Step) -> Done:
    scene, args = stage.scene, step.args
    hosts = [args["on"]] if isinstance(args["on"], str) else args["on"]
    names = [end.name for host in hosts for end in scene.source(host)]
    for host in names:
        key = (args["name"], host)
        actions: tuple[ComponentAction, ...] = ("kill", "start") if args["action"] == "restart" else (args["action"],)
        for action in actions:
            scene.lab.component(args["name"], host, action)
        if actions[-1] == "start":
            stage.disturbed[:] = [other for other in stage.disturbed if other != key]
        elif key not in stage.disturbed:
            stage.disturbed.append(key)
    return Done(f"{args['action']} {args['name']} on {listed(names)}")


def link(stage: Stage, step: Step) -> Done:
    """Make what leaves an interface slow, lossy or unordered, or put it in order again."""
    scene, args = stage.scene, step.args
    hosts = [args["on"]] if isinstance(args["on"], str) else args["on"]
    names = [end.name for host in hosts for end in scene.source(host)]
    interface = scene.resolve(args.get("interface", "eth0"))
    for host in names:
        if args.get("restore"):
            restore_link(stage, host, interface)
        else:
            _tc(scene, host, faults.install(interface, _qdiscs(scene, host, interface), args))
            stage.faulty[host, interface] = None
    what = "as it was" if args.get("restore") else " ".join(faults.discipline(args))
    return Done(f"{interface} of {listed(names)}: {what}")


def restore_link(stage: Stage, host: str, interface: str) -> None:
    """As it was before any link step."""
    if command := faults.remove(interface, _qdiscs(stage.scene, host, interface)):
        _tc(stage.scene, host, command)
    stage.faulty.pop((host, interface), None)


def _qdiscs(scene: Scene, host: str, interface: str) -> str:
    return _tc(scene, host, ["tc", "qdisc", "show", "dev", interface])


def _tc(scene: Scene, host: str, command: list[str]) -> str:
    done = scene.lab.exec(host, command)
    if done.returncode:
        raise StepFailed(f"{host}: {' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return done.text


def start(stage: Stage, step: Step) -> Done:
    """A program that runs until the case ends, or a stop step."""
    scene, args = stage.scene, step.args
    name, source = args["program"], scene.source(scene.resolve(args["on"]))[0]
    if name in stage.programs:
        raise StepFailed(f"program {name!r} is already running")
    command = args["command"]
    argv = argv_of(tuple(scene.resolve([command] if isinstance(command, str) else command)))
    stage.programs[name] = scene.lab.start(source.target, argv=argv)
    return Done(f"{source.name}$ {argv[-1] if argv[0] == 'sh' else ' '.join(argv)} &")


def stop(stage: Stage, step: Step) -> Done:
    if step.args not in stage.programs:
        raise StepFailed(f"no program {step.args!r} runs; there are {listed(stage.programs) or 'none'}")
    done = stage.programs.pop(step.args).stop()
    return Done(f"stopped {step.args}", (done.text + done.stderr.decode(errors="replace")).rstrip())


def elapse(stage: Stage, step: Step) -> Done:
    """Time passes and nothing is done: what happens then is the subject (with clock: virtual it costs nothing)."""
    if stage.case.scenario.clock == "virtual" and not has_virtual_time():
        raise StepFailed(f"{shown(seconds(step.args))} would really pass here; the scenario wants virtual time")
    time.sleep(seconds(step.args))
    return Done(f"{shown(seconds(step.args))} later")


def save(stage: Stage, step: Step) -> Done:
    values = {name: stage.scene.resolve(value) for name, value in step.args.items()}
    stage.scene.saved.update(values)
    return Done("remembered " + listed(f"{name} = {value}" for name, value in values.items()))


def expect(stage: Stage, step: Step) -> Done:
    return Done("", "", tuple(evaluate(stage.scene, one) for one in step.expectations))


ACTIONS: Mapping[str, Callable[[Stage, Step], Done]] = {
    "note": note,
    "apply": apply,
    "delete": delete,
    "scale": scale,
    "patch": patch,
    "wait": wait,
    "exec": execute_command,
    "capture": capture,
    "component": component,
    "link": link,
    "start": start,
    "stop": stop,
    "elapse": elapse,
    "save": save,
    "expect": expect,
}


def ready(scene: Scene, objects: Sequence[Mapping[str, Any]], within: float) -> float:
    """Wait until the pods among these manifests are Ready; seconds that took."""
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
