"""Decides what to do next with a pod: a pure function from the pod's definition and the state of
its processes to a list of actions.

The kubelet is level-triggered: it does not react to events ("a container has ended, so restart it")
but compares the wanted state with the actual state each time anything may have changed. A lost or
repeated event then does no harm, and a kubelet that starts in the middle of a pod's life continues
where the last one stopped. For this the plan must depend on its arguments alone, and it must be
empty once they agree.

The order of the questions is that of upstream's computePodActions, and describes a pod's life:

    sandbox missing or dead      -> kill all, new sandbox (unless nothing will ever run again)
    init containers unfinished   -> run the next one, or fail the pod (restartPolicy Never)
    all containers done for good -> kill the pod (sidecars, sandbox)
    container never ran          -> start
    container exited             -> start again by restartPolicy, after its back-off
    container running            -> kill it if its definition changed or a probe failed; its end
                                    then leads to the line above

What must always hold: no container runs without its pod's sandbox, whose namespaces it shares. Init
containers run one after the other, each to its end, before any app container; sidecars (init
containers with restartPolicy Always, KEP-753) only have to be started. A new sandbox runs the init
containers again, because the pod has a new address.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/,
https://kubernetes.io/docs/concepts/workloads/pods/init-containers/
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.records import ContainerRecord, PodRecord, ProbeView
from kubewire.components.kubelet.status.containers import started

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, Pod, PodStatus


@dataclass(frozen=True)
class Kill:
    """Stop a container. probe: "liveness" or "startup" if that probe failed, else ""."""

    name: str
    message: str
    probe: str = ""


@dataclass(frozen=True)
class Actions:
    """What to do next. kill_pod: end all processes and the sandbox, before create_sandbox makes a
    new one. finished: no container of the pod will run again."""

    kill_pod: bool = False
    create_sandbox: bool = False
    start: tuple[str, ...] = ()
    kill: tuple[Kill, ...] = ()
    finished: bool = False


#: The fields whose change replaces a running container (upstream hashes name and image only).
_HASHED = ("name", "image")


def spec_hash(container: Container) -> str:
    """A hash of the fields whose change replaces a running container."""
    chosen = {key: container.get(key) for key in _HASHED}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]


def should_restart(policy: str, current: ContainerRecord | None) -> bool:
    """Whether restartPolicy demands that a container starts. current: its latest run, if any."""
    if current is None:
        return True
    if current.running or policy == "Never":
        return False
    return policy == "Always" or not current.succeeded


def plan(pod: Pod, record: PodRecord, probes: ProbeView) -> Actions:
    """The next actions. The caller plans again after doing them, until nothing is left to do."""
    if record.sandbox is None or not record.sandbox.ready:
        return _without_sandbox(pod, record)
    actions = _initialize(pod, record, probes) or _run(pod, record, probes)
    if actions.kill_pod:
        return actions
    # Ephemeral containers run once, independently of all others.
    ephemeral = [item["name"] for item in pods.ephemeral_containers(pod)]
    added = [name for name in ephemeral if name not in record.current]
    return replace(actions, start=(*actions.start, *added)) if added else actions


def _without_sandbox(pod: Pod, record: PodRecord) -> Actions:
    policy = pods.restart_policy(pod)
    runs = [record.current.get(item["name"]) for item in pods.containers(pod)]
    # A container cannot outlive the sandbox, so one that still runs counts as failed.
    restarts = (run is None or run.running or should_restart(policy, run) for run in runs)
    wanted = policy != "Never" and any(restarts)
    if record.current and not wanted:
        return Actions(kill_pod=True, finished=True)
    return Actions(kill_pod=record.sandbox is not None, create_sandbox=True)


def _in_sandbox(record: PodRecord, name: str) -> ContainerRecord | None:
    """The container's latest run, if it belongs to the current sandbox."""
    current = record.current.get(name)
    sandbox = record.sandbox
    return current if current and sandbox and current.sandbox_id == sandbox.id else None


def _initialize(pod: Pod, record: PodRecord, probes: ProbeView) -> Actions | None:
    """Actions for the init containers; None once all are done. _run() restarts ended sidecars."""
    if any(_in_sandbox(record, item["name"]) for item in pods.containers(pod)):
        return None
    policy = pods.restart_policy(pod)
    for item in pods.init_containers(pod):
        name = item["name"]
        current = _in_sandbox(record, name)
        if current is None:
            return Actions(start=(name,))
        if current.running:
            actions = _watch_init(item, current, probes)
            if actions is not None:
                return actions
            continue
        if pods.is_sidecar(item):
            return Actions(start=(name,))
        if not current.succeeded:
            if policy == "Never":
                return Actions(kill_pod=True, finished=True)
            return Actions(start=(name,))
    return None


def _watch_init(
    item: Container,
    current: ContainerRecord,
    probes: ProbeView,
) -> Actions | None:
    """Actions for a running init container; None if it is a sidecar that has started."""
    if not pods.is_sidecar(item):
        return Actions()
    if kill := _to_kill(item, current, probes, restart=True):
        return Actions(kill=(kill,))
    return None if started(item, current, probes) else Actions()


def _run(pod: Pod, record: PodRecord, probes: ProbeView) -> Actions:
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
        if to_kill := _to_kill(item, current, probes, restart=policy != "Never"):
            kill.append(to_kill)
        # A container that is to be killed still runs; the pod is not finished before it has ended.
        alive += 1
    if not alive and not start:
        return Actions(kill_pod=True, finished=True)
    for item in pods.init_containers(pod):
        if not pods.is_sidecar(item):
            continue
        current = record.current.get(item["name"])
        if current is None or not current.running:
            start.append(item["name"])
        elif to_kill := _to_kill(item, current, probes, restart=True):
            kill.append(to_kill)
    return Actions(start=tuple(start), kill=tuple(kill))


def _to_kill(
    item: Container,
    current: ContainerRecord,
    probes: ProbeView,
    *,
    restart: bool,
) -> Kill | None:
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
    """When the pod has to end (seconds since 1970), and why. at: None without a deadline."""

    at: float | None = None
    reason: str = field(default="DeadlineExceeded")
    message: str = field(default="Pod was active on the node longer than the specified deadline")


def deadline(pod: Pod, status: PodStatus) -> Deadline:
    """status.startTime plus spec.activeDeadlineSeconds."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    begun = status.get("startTime")
    if seconds is None or not begun:
        return Deadline()
    return Deadline(pods.parse_time(str(begun)).timestamp() + int(seconds))
