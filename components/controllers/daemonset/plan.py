"""Plans the pods to create and delete, the rolling update and the status of a DaemonSet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import (
    Action,
    Create,
    Delete,
    Emit,
    Plan,
    Report,
    SlowStart,
    Update,
)
from kubewire.components.controllers.daemonset.nodes import new_pod, node_of, verdict
from kubewire.components.controllers.meta import by_age, int_or_percent, is_deleting, labels_of
from kubewire.components.controllers.pods import is_available, is_ready, phase, until_available
from kubewire.components.controllers.podtemplate import CONTROLLER_REVISION_HASH
from kubewire.components.controllers.revisions import plan_history, plan_truncation, revision_hash
from kubewire.components.kubeapi.resources import DAEMONSETS, PODS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ControllerRevision,
        DaemonSet,
        DaemonSetStatus,
        Node,
        Pod,
    )

_BURST = 250


@dataclass(frozen=True)
class World:
    """The state that a DaemonSet's decisions depend on.

    pods maps a node's name to its pods, oldest first. should_run names the nodes that should have
    a pod, may_stay those whose pods may remain.
    """

    nodes: tuple[Node, ...]
    pods: Mapping[str, tuple[Pod, ...]]
    should_run: frozenset[str]
    may_stay: frozenset[str]
    digest: str
    now: datetime


def plan(
    daemonset: DaemonSet,
    nodes: Sequence[Node],
    pods: Sequence[Pod],
    revisions: Sequence[ControllerRevision],
    now: datetime,
) -> Plan:
    """Returns the actions of one sync; the status comes last."""
    history = plan_history(daemonset, revisions)
    world = survey(daemonset, nodes, pods, revision_hash(history.current), now)
    actions: tuple[Action, ...] = ()
    if not is_deleting(daemonset):
        manage = plan_pods(daemonset, world)
        strategy = (daemonset["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
        if strategy == "RollingUpdate" and not manage:
            manage = plan_update(daemonset, world)
        live = {labels_of(pod).get(CONTROLLER_REVISION_HASH, "") for pod in pods}
        actions = history.actions + manage + plan_truncation(daemonset, history.old, live)
    status = plan_status(daemonset, world)
    if _differs(daemonset.get("status") or {}, status):
        actions += (Update(DAEMONSETS, {**daemonset, "status": status}, "status"),)
    return Plan(actions, until_available(pods, _min_ready(daemonset), now))


def survey(
    daemonset: DaemonSet,
    nodes: Sequence[Node],
    pods: Sequence[Pod],
    digest: str,
    now: datetime,
) -> World:
    placed: dict[str, list[Pod]] = {}
    for pod in by_age(pods):
        placed.setdefault(node_of(pod), []).append(pod)
    verdicts = {node["metadata"]["name"]: verdict(daemonset, node) for node in nodes}
    return World(
        tuple(nodes),
        {name: tuple(items) for name, items in placed.items()},
        frozenset(name for name, item in verdicts.items() if item.run),
        frozenset(name for name, item in verdicts.items() if item.stay),
        digest,
        now,
    )


def _min_ready(daemonset: DaemonSet) -> int:
    return int(daemonset["spec"].get("minReadySeconds") or 0)


def plan_pods(daemonset: DaemonSet, world: World) -> tuple[Action, ...]:
    """Plans one pod on each node that should have one, and none elsewhere.

    Failed and succeeded pods are deleted to make room for new ones.
    """
    events: list[Action] = []
    wanted: list[str] = []
    surplus: list[Pod] = []
    for node in world.nodes:
        name = node["metadata"]["name"]
        living = [pod for pod in world.pods.get(name, ()) if not is_deleting(pod)]
        if name in world.should_run and not world.pods.get(name):
            wanted.append(name)
        elif name in world.may_stay:
            failed = [pod for pod in living if phase(pod) in ("Failed", "Succeeded")]
            events += [_failed_event(daemonset, pod, name) for pod in failed]
            surplus += failed + _beyond_one(
                daemonset,
                world,
                [pod for pod in living if pod not in failed],
            )
        else:
            surplus += living
    deletions = tuple(_delete(daemonset, pod) for pod in surplus[:_BURST])
    creations = tuple(_create(daemonset, name, world.digest) for name in wanted[:_BURST])
    return (*events, *deletions, *((SlowStart(creations),) if creations else ()))


def _failed_event(daemonset: DaemonSet, pod: Pod, node: str) -> Emit:
    name = pod["metadata"]["name"]
    namespace = pod["metadata"]["namespace"]
    outcome = phase(pod).lower()
    text = f"Found {outcome} daemon pod {namespace}/{name} on node {node}, will try to kill it"
    if outcome == "failed":
        return Emit(daemonset, "Warning", "FailedDaemonPod", text)
    return Emit(daemonset, "Normal", "SucceededDaemonPod", text)


def _beyond_one(daemonset: DaemonSet, world: World, running: list[Pod]) -> list[Pod]:
    """The pods to delete so that one remains.

    The oldest remains. With maxSurge an old and a new pod run side by side until the new one is
    available.
    """
    surge, _ = budgets(daemonset, len(world.should_run))
    if not surge:
        return running[1:]
    fresh = [pod for pod in running if _is_updated(pod, world)]
    stale = [pod for pod in running if not _is_updated(pod, world)]
    ready = any(is_available(pod, _min_ready(daemonset), world.now) for pod in fresh)
    return fresh[1:] + (stale if ready else stale[1:])


def _create(daemonset: DaemonSet, node: str, digest: str) -> Create:
    report = Report(
        daemonset,
        "SuccessfulCreate",
        "Created pod: {name}",
        "FailedCreate",
        "Error creating: {error}",
    )
    return Create(PODS, new_pod(daemonset, node, digest), report)


def _delete(daemonset: DaemonSet, pod: Pod) -> Delete:
    metadata = pod["metadata"]
    report = Report(
        daemonset,
        "SuccessfulDelete",
        "Deleted pod: {name}",
        "FailedDelete",
        "Error deleting: {error}",
    )
    return Delete(PODS, metadata["namespace"], metadata["name"], metadata["uid"], report)


def _is_updated(pod: Pod, world: World) -> bool:
    return labels_of(pod).get(CONTROLLER_REVISION_HASH) == world.digest


def budgets(daemonset: DaemonSet, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; both round up, and maxUnavailable is 1 if both are 0."""
    rolling = (daemonset["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", 0), desired, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", 1), desired, round_up=True)
    return surge, 1 if not surge and not unavailable else unavailable


def plan_update(daemonset: DaemonSet, world: World) -> tuple[Action, ...]:
    """Replaces pods of other revisions within maxUnavailable, or next to them within maxSurge."""
    surge, unavailable = budgets(daemonset, len(world.should_run))
    return _surge(daemonset, world, surge) if surge else _in_place(daemonset, world, unavailable)


def _in_place(daemonset: DaemonSet, world: World, allowed: int) -> tuple[Action, ...]:
    min_ready = _min_ready(daemonset)
    replace: list[Pod] = []
    candidates: list[Pod] = []
    away = 0
    for name in sorted(world.should_run):
        pods = [pod for pod in world.pods.get(name, ()) if not is_deleting(pod)]
        stale = [pod for pod in pods if not _is_updated(pod, world)]
        if any(is_available(pod, min_ready, world.now) for pod in pods):
            candidates += stale
        else:
            away += 1
            # The node's pod is unavailable already, so replacing it costs no availability.
            replace += stale
    replace += candidates[: max(allowed - away, 0)]
    return tuple(_delete(daemonset, pod) for pod in replace)


def _surge(daemonset: DaemonSet, world: World, allowed: int) -> tuple[Action, ...]:
    min_ready = _min_ready(daemonset)
    deletions: list[Action] = []
    urgent: list[str] = []
    candidates: list[str] = []
    surging = 0
    for name in sorted(world.should_run):
        pods = [pod for pod in world.pods.get(name, ()) if not is_deleting(pod)]
        stale = [pod for pod in pods if not _is_updated(pod, world)]
        fresh = [pod for pod in pods if _is_updated(pod, world)]
        if stale and fresh:
            if any(is_available(pod, min_ready, world.now) for pod in fresh):
                deletions += [_delete(daemonset, pod) for pod in stale]
            else:
                surging += 1
        elif stale and not any(is_available(pod, min_ready, world.now) for pod in stale):
            urgent.append(name)
        elif stale:
            candidates.append(name)
    chosen = urgent + candidates[: max(allowed - surging, 0)]
    creations = tuple(_create(daemonset, name, world.digest) for name in chosen)
    return (*deletions, *((SlowStart(creations),) if creations else ()))


def plan_status(daemonset: DaemonSet, world: World) -> DaemonSetStatus:
    min_ready = _min_ready(daemonset)
    scheduled = misscheduled = ready = updated = available = 0
    for node in world.nodes:
        name = node["metadata"]["name"]
        pods = [pod for pod in world.pods.get(name, ()) if not is_deleting(pod)]
        if name not in world.should_run:
            misscheduled += bool(pods)
            continue
        if not pods:
            continue
        scheduled += 1
        serving = [pod for pod in pods if is_ready(pod)]
        ready += bool(serving)
        available += any(is_available(pod, min_ready, world.now) for pod in serving)
        updated += any(_is_updated(pod, world) for pod in pods)
    status: DaemonSetStatus = {
        "currentNumberScheduled": scheduled,
        "numberMisscheduled": misscheduled,
        "desiredNumberScheduled": len(world.should_run),
        "numberReady": ready,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": len(world.should_run) - available,
        "observedGeneration": daemonset["metadata"].get("generation", 0),
    }
    collisions = (daemonset.get("status") or {}).get("collisionCount")
    if collisions is not None:
        status["collisionCount"] = collisions
    return status


def _differs(held: Mapping[str, object], fresh: Mapping[str, object]) -> bool:
    return any((held.get(key) or 0) != value for key, value in fresh.items())
