"""What to do next with a pod: a pure function from what is wanted and what is there to a list of actions.

The order of the questions, upstream's computePodActions, is the whole life of a pod:

    sandbox missing or dead      -> kill all, new sandbox (unless nothing will ever run again)
    init containers unfinished   -> run the next one, or fail the pod (restartPolicy Never)
    all containers done for good -> kill the pod (sidecars, sandbox)
    container never ran          -> start
    container exited             -> start again by restartPolicy, after its back-off
    container running            -> kill and start again when its definition changed or a probe says so
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, ProbeView
from kubewire.components.kubelet.status.containers import started


@dataclass(frozen=True)
class Kill:
    """Stop one container; probe is "liveness" or "startup" when that probe asked for it."""

    name: str
    message: str
    probe: str = ""


@dataclass(frozen=True)
class Actions:
    """kill_pod ends every process and the sandbox, before a new sandbox where create_sandbox is set."""

    kill_pod: bool = False
    create_sandbox: bool = False
    start: tuple[str, ...] = ()
    kill: tuple[Kill, ...] = ()
    finished: bool = False


#: What a change to which replaces a running container (upstream hashes name and image only).
_HASHED = ("name", "image")


def spec_hash(container: pods.Container) -> str:
    """Changes when a container has to be replaced for its definition's sake."""
    chosen = {key: container.get(key) for key in _HASHED}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]


def should_restart(policy: str, current: ContainerRecord | None) -> bool:
    """Whether a container that does not run is to be started under this restartPolicy."""
    if current is None:
        return True
    if current.running or policy == "Never":
        return False
    return policy == "Always" or not current.succeeded


def plan(pod: KubeObject, record: PodRecord, probes: ProbeView) -> Actions:
    """The next actions. Calling again after they are done leads on; without a change it returns Actions()."""
    if record.sandbox is None or not record.sandbox.ready:
        return _without_sandbox(pod, record)
    actions = _initialize(pod, record, probes) or _run(pod, record, probes)
    if actions.kill_pod:
        return actions
    # Ephemeral containers run once, whatever the others do.
    added = [item["name"] for item in pods.ephemeral_containers(pod) if item["name"] not in record.current]
    return replace(actions, start=(*actions.start, *added)) if added else actions


def _without_sandbox(pod: KubeObject, record: PodRecord) -> Actions:
    policy = pods.restart_policy(pod)
    held = [record.current.get(item["name"]) for item in pods.containers(pod)]
    # A container that still runs cannot outlive its namespaces: it counts as one that failed.
    wanted = policy != "Never" and any(
        current is None or current.running or should_restart(policy, current) for current in held
    )
    if record.current and not wanted:
        return Actions(kill_pod=True, finished=True)
    return Actions(kill_pod=record.sandbox is not None, create_sandbox=True)


def _in_sandbox(record: PodRecord, name: str) -> ContainerRecord | None:
    """The current run if it belongs to this sandbox: a new sandbox runs the init containers again."""
    current = record.current.get(name)
    sandbox = record.sandbox
    return current if current and sandbox and current.sandbox_id == sandbox.id else None


def _initialize(pod: KubeObject, record: PodRecord, probes: ProbeView) -> Actions | None:
    """The next init container; None when they are done (sidecars that died are restarted by _run)."""
    if any(_in_sandbox(record, item["name"]) for item in pods.containers(pod)):
        return None
    policy = pods.restart_policy(pod)
    for item in pods.init_containers(pod):
        name = item["name"]
        current = _in_sandbox(record, name)
        if current is None:
            return Actions(start=(name,))
        if current.running:
            if held_by := _watch_sidecar(item, current, probes):
                return held_by
            continue
        if pods.is_sidecar(item):
            return Actions(start=(name,))
        if not current.succeeded:
            if policy == "Never":
                return Actions(kill_pod=True, finished=True)
            return Actions(start=(name,))
    return None


def _watch_sidecar(item: pods.Container, current: ContainerRecord, probes: ProbeView) -> Actions | None:
    """What to do about a running init container; None when it is a sidecar that has started."""
    if not pods.is_sidecar(item):
        return Actions()
    if kill := _to_kill(item, current, probes, restart=True):
        return Actions(kill=(kill,))
    return None if started(item, current, probes) else Actions()


def _run(pod: KubeObject, record: PodRecord, probes: ProbeView) -> Actions:
    policy = pods.restart_policy(pod)
    start: list[str] = []
    kill: list[Kill] = []
    alive = 0
    for item in pods.containers(pod):
        current = record.current.get(item["name"])
        fresh = _in_sandbox(record, item["name"])
        if current is None or not current.running:
            if should_restart(policy, current) or (fresh is None and policy == "Always"):
                start.append(item["name"])
            continue
        found = _to_kill(item, current, probes, restart=policy != "Never")
        if found:
            kill.append(found)
        # A container killed by a probe under Never ends for good, but its end is still to be seen.
        alive += 1
    if not alive and not start:
        return Actions(kill_pod=True, finished=True)
    for item in pods.init_containers(pod):
        if not pods.is_sidecar(item):
            continue
        current = record.current.get(item["name"])
        if current is None or not current.running:
            start.append(item["name"])
        elif found := _to_kill(item, current, probes, restart=True):
            kill.append(found)
    return Actions(start=tuple(start), kill=tuple(kill))


def _to_kill(item: pods.Container, current: ContainerRecord, probes: ProbeView, *, restart: bool) -> Kill | None:
    name = item["name"]
    suffix = ", will be restarted" if restart else ""
    if current.spec_hash != spec_hash(item):
        return Kill(name, f"Container {name} definition changed, will be restarted")
    if probes.alive.get(name) is False:
        return Kill(name, f"Container {name} failed liveness probe{suffix}", "liveness")
    if probes.started.get(name) is False and item.get("startupProbe"):
        return Kill(name, f"Container {name} failed startup probe{suffix}", "startup")
    return None


@dataclass(frozen=True)
class Deadline:
    """spec.activeDeadlineSeconds against status.startTime; at is seconds since 1970, None without one."""

    at: float | None = None
    reason: str = field(default="DeadlineExceeded")
    message: str = field(default="Pod was active on the node longer than the specified deadline")


def deadline(pod: KubeObject, status: Mapping[str, object]) -> Deadline:
    seconds = pod["spec"].get("activeDeadlineSeconds")
    begun = status.get("startTime")
    if seconds is None or not begun:
        return Deadline()
    return Deadline(pods.parse_time(str(begun)).timestamp() + int(seconds))
